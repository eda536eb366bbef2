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
    """A square window in each frame: its centres (F, 2), and the pixels from there to its sides."""

    centre: np.ndarray
    half: np.ndarray

    @classmethod
    def along(cls, keypoints: np.ndarray, times: np.ndarray, size: tuple[int, int]) -> "Framing":
        """A window as wide as the picture while that suits the person (F, J, 3), else the nearest.

        times: (F,) seconds; size: width and height of the picture.
        """
        seen = keypoints[..., 2].max(axis=0) > 0
        points = keypoints[:, seen if seen.any() else ..., :2].astype(np.float64)
        low, high = points.min(axis=1), points.max(axis=1)
        extent = averaged((high - low).max(axis=-1), times, PATH_SECONDS)
        extent = np.maximum(extent, 1e-6)
        half = np.clip(size[0] / 2, extent / EXTENT[1], extent / EXTENT[0])
        middle = averaged((low + high) / 2, times, PATH_SECONDS)
        wanted = np.clip((middle - np.array(size) / 2) / half[:, None], *MIDDLE)
        return cls(middle - wanted * half[:, None], half)

    def to_screen(self, keypoints: np.ndarray) -> np.ndarray:
        """Pixels (F, J, 3: x, y, confidence) -> normalised screen, as lib.camera's."""
        screen = keypoints.astype(np.float32)
        half = self.half[:, None]
        in_window = keypoints[..., :2] - (self.centre - half)[:, None]
        screen[..., :2] = to_screen(in_window, np.repeat(2 * half, 2, axis=-1))
        return screen
