"""What the network is shown of a picture: people about as large and central as it knows them.

A network trained on Human3.6M's square pictures has never seen a person who fills a tall one, one
who is tiny, or one at its upper border, and bends them out of shape. A longer lens and a turned
camera would have filmed nearly the same; so a window follows the person's smoothed path, and their
smoothed size where that is out of range. Networks whose input is centred on the person and in the
person's own unit see no difference.
"""

from dataclasses import dataclass

import numpy as np

from demo.timeline import averaged
from lib.camera import to_screen

# The range of a person's longer side, in half picture widths. Outside of it, poses get worse.
EXTENT = (0.6, 1.2)
# Where the middle of a person's box may lie, on the screen: x in the middle, y in a range.
MIDDLE = np.array([[0.0, -0.05], [0.0, 0.2]])
PATH_SECONDS = 0.5  # over which path and size are averaged


@dataclass(frozen=True)
class Framing:
    """A square window in each of F frames, or one in all of them (F = 1).

    centre: (F, 2) pixels; half: (F,) pixels from there to its sides.
    """

    centre: np.ndarray
    half: np.ndarray

    @classmethod
    def along(cls, keypoints: np.ndarray, times: np.ndarray, size: tuple[int, int]) -> "Framing":
        """A window as wide as the picture while that suits the person (F, J, 3), else the nearest.

        times: (F,) seconds; size: width and height of the picture.
        """
        extent, middle = _boxes(keypoints)
        return cls._around(
            averaged(extent, times, PATH_SECONDS), averaged(middle, times, PATH_SECONDS), size
        )

    @classmethod
    def still(cls, keypoints: np.ndarray, size: tuple[int, int]) -> "Framing":
        """One window for all frames of a moment (F, J, 3); those without anybody do not count."""
        seen = keypoints[..., 2].max(axis=-1) > 0
        extent, middle = _boxes(keypoints[seen] if seen.any() else keypoints)
        return cls._around(np.median(extent)[None], np.median(middle, axis=0)[None], size)

    @classmethod
    def _around(cls, extent: np.ndarray, middle: np.ndarray, size: tuple[int, int]) -> "Framing":
        """extent: (F,) and middle: (F, 2) of the person's box in pixels."""
        extent = np.maximum(extent, 1e-6)
        half = np.clip(size[0] / 2, extent / EXTENT[1], extent / EXTENT[0])
        wanted = np.clip((middle - np.array(size) / 2) / half[:, None], *MIDDLE)
        return cls(middle - wanted * half[:, None], half)

    def to_screen(self, keypoints: np.ndarray) -> np.ndarray:
        """Pixels (F, J, 3: x, y, confidence) -> normalised screen, as lib.camera's."""
        screen = keypoints.astype(np.float32)
        half = self.half[:, None]
        in_window = keypoints[..., :2] - (self.centre - half)[:, None]
        screen[..., :2] = to_screen(in_window, np.repeat(2 * half, 2, axis=-1))
        return screen


def _boxes(keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(F, J, 3) -> the longer side of the box in each frame, (F,), and its middle, (F, 2).

    Joints that are never seen do not count.
    """
    seen = keypoints[..., 2].max(axis=0) > 0
    points = keypoints[:, seen if seen.any() else ..., :2].astype(np.float64)
    low, high = points.min(axis=1), points.max(axis=1)
    return (high - low).max(axis=-1), (low + high) / 2
