"""People over time in 2D: who was seen when, by what, and the keypoints that are lifted.

F frames, P people, N sightings, J keypoints of a layout; a keypoint is x and y in pixels and a
confidence, 0 where it was not found.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np

from demo.readers import ASSUMED_FPS as ASSUMED_FPS
from demo.readers import MAX_FPS
from lib.errors import UserError
from lib.film import Frame
from lib.keypoints import Layout
from lib.skeleton import H36M

LARGEST_PIXEL = 1e6  # coordinates beyond it are nonsense
LEG = 0.9  # length of a thigh or shin against the trunk's

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
    sections: whether a video is done sooner in sections: true where one detector computes on a
    single core.
    """

    make: Callable[[], Pose2D]
    sections: bool = False
    at_rate: Callable[[float], Pose2D] | None = None

    def for_frames(self, fps: float) -> Pose2D:
        """A fresh one for frames at this rate, 0: unknown."""
        return self.at_rate(fps) if fps and self.at_rate else self.make()


def nobody(layout: Layout) -> Found:
    return np.zeros((0, layout.num_keypoints, 3), dtype=np.float32)


@dataclass(frozen=True)
class People:
    """Who was seen when: a row for each sighting, in the order of the frames.

    keypoints: (N, J, 3) float32. frame: (N,), from 0 to F - 1. person: (N,), 1 the first to appear;
    0 everywhere: nobody was followed yet. fps: frames a second, 0: unknown; size: width and height
    of the picture, None: unknown. assumed: what was taken for granted in reading a keypoint file,
    a sentence each. looks: (N, D) as demo/looks.py describes people, None: unknown.
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
        )

    def filmed(self, fps: float, size: tuple[int, int] | None = None) -> "People":
        """The same with this frame rate and size, where they are known, in place of their own."""
        return replace(self, fps=fps or self.fps, size=size or self.size)

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

    @cached_property
    def filled(self) -> np.ndarray:
        """(P, F, J, 3): everybody in every frame, unseen keypoints with a confidence of 0."""
        everybody = [self.only(self.person == number) for number in self.numbers]
        return np.stack(
            [fill_gaps(p.keypoints, p.frame, p.num_frames, p.layout.mirror) for p in everybody]
        )

    @cached_property
    def h36m(self) -> np.ndarray:
        """(P, F, 17, 3): `filled` as Human3.6M's joints."""
        return np.stack([with_straight_legs(self.layout.to_h36m(track)) for track in self.filled])


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


def fill_gaps(
    keypoints: np.ndarray, frame: np.ndarray, num_frames: int, mirror: tuple[int, ...]
) -> np.ndarray:
    """One person's sightings (N, J, 3) and their frames (N,) -> (F, J, 3).

    A keypoint that was not seen in a frame lies between its neighbours in time, with confidence 0;
    one that was never seen lies on its mirror image, or else in the middle of the body.
    mirror: where each keypoint's counterpart on the other side is found.
    """
    filled = np.zeros((num_frames, len(mirror), 3), dtype=np.float32)
    filled[frame] = without_nonsense(keypoints)
    seen = np.asarray(filled[..., 2] > 0)  # (F, J)
    if seen.all():
        return filled
    times = np.arange(num_frames)
    ever = np.flatnonzero(seen.any(axis=0))
    never = np.flatnonzero(~seen.any(axis=0))
    if not len(ever):
        raise UserError("no keypoint has a confidence above 0; nothing can be lifted")
    for joint in ever:
        known = np.flatnonzero(seen[:, joint])
        for axis in (0, 1):
            filled[:, joint, axis] = np.interp(times, known, filled[known, joint, axis])
    middle = filled[:, ever, :2].mean(axis=1)
    for joint in never:
        filled[:, joint, :2] = middle if mirror[joint] in never else filled[:, mirror[joint], :2]
    filled[~seen, 2] = 0
    return filled


def with_straight_legs(track: np.ndarray) -> np.ndarray:
    """(F, 17, 3): knees and ankles that are never seen are straight below the hips."""
    never = (track[..., 2] == 0).all(axis=0)
    standing = track.copy()
    trunk = track[:, H36M.index("thorax"), :2] - track[:, H36M.index("pelvis"), :2]
    for side in ("left", "right"):
        for above, below in (("hip", "knee"), ("knee", "ankle")):
            joint = H36M.index(f"{side}_{below}")
            if never[joint]:
                standing[:, joint, :2] = standing[:, H36M.index(f"{side}_{above}"), :2]
                standing[:, joint, 1] += LEG * np.linalg.norm(trunk, axis=-1)
    return standing
