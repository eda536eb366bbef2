"""People over time in 2D: who was seen when, by what, and the keypoints that are lifted.

F frames, P people, N sightings, J keypoints of a layout; a keypoint is x and y in pixels and a
confidence, 0 where it was not found.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from demo.readers import ASSUMED_FPS as ASSUMED_FPS
from demo.readers import MAX_FPS
from demo.video import square_size
from lib.errors import UserError
from lib.film import Frame
from lib.keypoints import Layout

LARGEST_PIXEL = 1e6  # coordinates beyond it are nonsense

Found = np.ndarray  # (P, J, 3) float32: the people of one frame; P = 0: nobody


class Pose2D(Protocol):
    """A 2D pose detector for the frames of one video, in their order."""

    layout: Layout

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Found]:
        """The people of each frame, as soon as they are known."""
        ...


@dataclass(frozen=True)
class Detector:
    """A 2D pose detector, ready to be made.

    make: a fresh one; each section of a video that is read in parallel has one of its own.
    at_rate: the same for a frame rate, where it matters to the detector.
    jitters: whether it sees each frame for itself, so that a body at rest trembles.
    sections: whether a video is done sooner in sections: true where one detector computes on a
    single core. most: people that it follows at once, 0: any number.
    """

    make: Callable[[], Pose2D]
    sections: bool = False
    at_rate: Callable[[float], Pose2D] | None = None
    jitters: bool = False
    most: int = 0

    def for_frames(self, fps: float) -> Pose2D:
        """A fresh one for frames at this rate, 0: unknown."""
        return self.at_rate(fps) if fps and self.at_rate else self.make()


def nobody(layout: Layout) -> Found:
    return np.zeros((0, layout.num_keypoints, 3), dtype=np.float32)


@dataclass(frozen=True)
class People:
    """Who was seen when: a row for each sighting, in the order of the frames.

    keypoints: (N, J, 3) float32. frame: (N,), from 0 to F - 1. person: (N,), 1 the first to appear;
    0 everywhere: nobody was followed yet. fps: frames a second, on average, 0: unknown; times:
    (F,) seconds of each frame, None: evenly `fps`. size: width and height of the picture, None:
    unknown; pixel_aspect: how many times wider than high its pixels are. cuts: rising, the frames
    that begin a new shot. assumed: what was taken for granted in reading a keypoint file, a
    sentence each. looks: (N, D) as demo/looks.py describes people, None: unknown. Once people were
    chosen among those found: crowd: the number of each who was found, and in how many frames;
    tracked: (N,) the number a sighting had among them.
    """

    keypoints: np.ndarray
    frame: np.ndarray
    person: np.ndarray
    num_frames: int
    layout: Layout
    fps: float = 0.0
    size: tuple[int, int] | None = None
    assumed: tuple[str, ...] = ()
    looks: np.ndarray | None = None
    times: np.ndarray | None = None
    pixel_aspect: float = 1.0
    cuts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    crowd: tuple[tuple[int, int], ...] = ()
    tracked: np.ndarray | None = None

    @classmethod
    def of_frames(
        cls, frames: Sequence[Found], layout: Layout, looks: Sequence[np.ndarray] = ()
    ) -> "People":
        """From the people of each frame, not followed yet, and maybe how they look."""
        frame = np.repeat(np.arange(len(frames)), [len(found) for found in frames])
        keypoints = np.concatenate([nobody(layout), *frames]).astype(np.float32, copy=False)
        seen = np.concatenate(looks) if len(looks) else None
        return cls(keypoints, frame, np.zeros_like(frame), len(frames), layout, looks=seen)

    @classmethod
    def of_array(cls, keypoints: np.ndarray, layout: Layout) -> "People":
        """From (P, F, J, 3): somebody is seen in the frames where any confidence is above 0."""
        frame, person = np.nonzero((keypoints[..., 2] > 0).any(axis=-1).T)
        rows = keypoints[person, frame].astype(np.float32, copy=False)
        return cls(rows, frame, person + 1, keypoints.shape[1], layout)

    def only(self, rows: np.ndarray) -> "People":
        """Some of the sightings; rows: a mask or indices in rising order."""
        return replace(
            self,
            keypoints=self.keypoints[rows],
            frame=self.frame[rows],
            person=self.person[rows],
            looks=None if self.looks is None else self.looks[rows],
            tracked=None if self.tracked is None else self.tracked[rows],
        )

    def filmed(self, fps: float, size: tuple[int, int] | None = None) -> "People":
        """The same with this frame rate and size, where they are known, in place of their own."""
        times = self.times if not fps or fps == self.fps else None
        return replace(self, fps=fps or self.fps, size=size or self.size, times=times)

    def at(self, times: Sequence[float]) -> "People":
        """The same with the times of its frames, in seconds; the first is at 0 then.

        Raises UserError: they are too few, or do not rise.
        """
        known = np.array(times[: self.num_frames], dtype=np.float64)
        if len(known) < self.num_frames or not (np.diff(known, prepend=-np.inf) > 0).all():
            raise UserError(
                f"{len(known)} times for {self.num_frames} frames; give one for each, in seconds,"
                " each later than the one before"
            )
        fps = (len(known) - 1) / (known[-1] - known[0]) if len(known) > 1 else self.fps
        return replace(self, times=known - known[:1], fps=float(fps))

    @property
    def seconds(self) -> np.ndarray:
        """(F,) the time of each frame."""
        if self.times is not None:
            return self.times
        return np.arange(self.num_frames) / (self.fps or ASSUMED_FPS)

    def in_square_pixels(self) -> "People":
        """The same in the picture as it is shown."""
        if self.size is None or self.pixel_aspect == 1:
            return self
        size = square_size(self.size, self.pixel_aspect)
        scale = np.array([*np.divide(size, self.size), 1], dtype=np.float32)
        return replace(self, keypoints=self.keypoints * scale, size=size, pixel_aspect=1.0)

    def check_facts(self) -> tuple[float, tuple[int, int]]:
        """Frame rate and size, which lifting needs. Raises UserError: missing or impossible."""
        if not 0 < self.fps <= MAX_FPS:
            raise UserError(f"{self.fps} frames/s is no frame rate; give one up to {MAX_FPS}")
        if self.size is None:
            raise UserError(
                "the keypoint file does not say how large its images are; give --size 1280x720, or"
                " --video with the video they were found in"
            )
        if min(self.size) < 1:
            raise UserError(f"{self.size[0]}x{self.size[1]} is no image size; give --size 1280x720")
        return self.fps, self.size

    @property
    def numbers(self) -> np.ndarray:
        """(P,) the people's numbers."""
        return np.unique(self.person)


def bounding_box(keypoints: np.ndarray) -> np.ndarray:
    """(J, 3) -> x0, y0, x1, y1 of the keypoints with any confidence."""
    points = keypoints[keypoints[:, 2] > 0, :2]
    if not len(points):
        return np.zeros(4)
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def without_nonsense(keypoints: np.ndarray) -> np.ndarray:
    """(..., 3) or more: keypoints with impossible numbers become 0, that is unseen."""
    sane = (np.abs(keypoints) < LARGEST_PIXEL).all(axis=-1)  # NaN is not below it
    return np.where(sane[..., None], keypoints, 0)
