"""The picture a network is shown: people about as large and as central in it as in its training.

A network trained on Human3.6M's square pictures has never seen a person who fills a tall one, one
who is tiny, or one at its upper border, and bends them out of shape. A longer lens and a turned
camera would have filmed nearly the same; so the picture is cropped, once for the whole video, but
only as far as needed.
"""

from dataclasses import dataclass

import numpy as np

from lib.camera import to_screen

# Of a person's longer side, in half picture widths. Measured: errors grow beyond both.
EXTENT = (0.6, 1.2)
# Where the middle of a person's box may lie, on the screen.
MIDDLE = np.array([[-0.6, -0.05], [0.6, 0.2]])


@dataclass(frozen=True)
class Framing:
    """A square window: its centre (2,), and the pixels from there to its side."""

    centre: np.ndarray
    half: float

    @classmethod
    def of(cls, keypoints: np.ndarray, size: tuple[int, int]) -> "Framing":
        """The whole picture if it suits the person (F, J, 3), else what comes nearest to it."""
        seen = keypoints[..., 2].max(axis=-1) > 0
        points = keypoints[seen if seen.any() else ..., :, :2].astype(np.float64)
        low, high = points.min(axis=1), points.max(axis=1)
        extent = max(float(np.median((high - low).max(axis=-1))), 1e-6)
        half = float(np.clip(size[0] / 2, extent / EXTENT[1], extent / EXTENT[0]))
        middle = np.median((low + high) / 2, axis=0)
        wanted = np.clip((middle - np.array(size) / 2) / half, *MIDDLE)
        return cls(middle - wanted * half, half)

    def to_screen(self, keypoints: np.ndarray) -> np.ndarray:
        """Pixels (..., 3: x, y, confidence) -> normalised screen, as lib.camera's."""
        screen = keypoints.astype(np.float32)
        in_window = keypoints[..., :2] - (self.centre - self.half)
        screen[..., :2] = to_screen(in_window, (2 * self.half, 2 * self.half))
        return screen
