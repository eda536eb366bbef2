"""What every 2D detector is: frames in, people's keypoints with confidence out."""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

import numpy as np

from lib.film import Frame
from lib.keypoints import Layout

People = np.ndarray  # (P, J, 3) float32: x and y in pixels, confidence 0 to 1; P = 0: nobody


class Pose2D(Protocol):
    """A 2D pose detector for the frames of one video, in their order."""

    layout: Layout

    def __call__(self, frames: Iterable[Frame]) -> Iterator[People]:
        """One People a frame, as soon as it is known."""
        ...


# Makes a fresh detector: each section of a video that is read in parallel has one of its own.
DetectorFactory = Callable[[], Pose2D]


def nobody(layout: Layout) -> People:
    return np.zeros((0, layout.num_keypoints, 3), dtype=np.float32)
