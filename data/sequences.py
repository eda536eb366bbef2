"""What every source gives: videos with 2D and 3D poses."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lib.arrays import Bools, Floats, Ints
from lib.camera import Camera, to_screen
from lib.evaluation.frames import TestFrames

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Video:
    """What is the same in all `frames` frames of a video."""

    name: str
    camera: Camera
    action: str
    subject: str
    fps: float
    frames: int


@dataclass(frozen=True)
class Sequences:
    """The videos of a split, one after the other. N frames of all together, J joints.

    joint_2d: (N, J, 2) pixels; confidence: (N, J); joint_3d: (N, J, 3) in the source's own unit,
    in the camera's axes. Only where frames are to be scored: factor (N,), mm per pixel at the
    root, and joint_3d_mm (N, J, 3). valid: (N,), whether a frame may be scored, None if all may;
    action: (N,) the name of each frame's action, None where it is its video's.
    """

    videos: Sequence[Video]
    joint_2d: Floats
    confidence: Floats
    joint_3d: Floats
    factor: Floats | None = None
    joint_3d_mm: Floats | None = None
    valid: Bools | None = None
    action: Sequence[str] | None = None

    @property
    def video(self) -> Ints:
        """(N,) the number of each frame's video."""
        return np.repeat(np.arange(len(self.videos)), [video.frames for video in self.videos])

    @property
    def is_valid(self) -> Bools:
        """(N,) whether a frame may be scored."""
        return np.ones(len(self.joint_2d), dtype=bool) if self.valid is None else self.valid

    @property
    def image_size(self) -> Floats:
        """(N, 2) width and height in pixels."""
        return np.array([video.camera.size for video in self.videos], np.float64)[self.video]

    def part(self, number: int) -> "Sequences":
        """Video `number` alone."""
        start = sum(video.frames for video in self.videos[:number])
        rows = slice(start, start + self.videos[number].frames)
        return Sequences(
            [self.videos[number]],
            self.joint_2d[rows],
            self.confidence[rows],
            self.joint_3d[rows],
            None if self.factor is None else self.factor[rows],
            None if self.joint_3d_mm is None else self.joint_3d_mm[rows],
            None if self.valid is None else self.valid[rows],
            None if self.action is None else self.action[rows],
        )

    def test_frames(self) -> TestFrames:
        """What an evaluation needs of the frames, which must have a ground truth."""
        if self.factor is None or self.joint_3d_mm is None:
            raise ValueError("sequences without ground truth cannot be scored")
        names = self.action
        if names is None:
            names = [v.action for v in self.videos for _ in range(v.frames)]
        actions = sorted(set(names))
        number = {name: index for index, name in enumerate(actions)}
        return TestFrames(
            actions=actions,
            videos=[video.name for video in self.videos],
            action=np.array([number[name] for name in names], np.int32),
            video=self.video.astype(np.int32),
            factor=self.factor.astype(np.float64),
            pose_3d_mm=self.joint_3d_mm.astype(np.float32),
            image_size=self.image_size.astype(np.float32),
            subjects=[video.subject for video in self.videos],
            valid=self.valid,
        )


def join(parts: Sequence[Sequences]) -> Sequences:
    """Sequences one after the other, as one; all have a ground truth, or none."""

    def joined(name: str) -> Floats:
        return np.concatenate([getattr(part, name) for part in parts])

    scored = all(part.factor is not None for part in parts)
    return Sequences(
        [video for part in parts for video in part.videos],
        joined("joint_2d"),
        joined("confidence"),
        joined("joint_3d"),
        joined("factor") if scored else None,
        joined("joint_3d_mm") if scored else None,
    )


CHUNK = 50_000  # frames that are converted at a time, for the memory


def seen(sequences: Sequences) -> Floats:
    """pose_2d (N, J, 3) float32: x and y on the normalised screen, confidence."""
    size, pixels = sequences.image_size, sequences.joint_2d
    pose_2d = np.empty((*pixels.shape[:2], 3), np.float32)
    for start in range(0, len(pixels), CHUNK):
        rows = slice(start, start + CHUNK)
        pose_2d[rows, :, :2] = to_screen(pixels[rows].astype(np.float64), size[rows])
        pose_2d[rows, :, 2] = sequences.confidence[rows]
    return pose_2d


def on_screen(sequences: Sequences) -> tuple[Floats, Floats]:
    """Units of a source whose 3D poses are pixels on the screen and, as z, pixels of depth.

    Returns pose_2d (N, J, 3), see `seen`, and pose_3d (N, J, 3): x, y and z in the unit of the
    screen. Both float32.
    """
    pose_3d = to_screen(sequences.joint_3d.astype(np.float64), sequences.image_size)
    return seen(sequences), pose_3d.astype(np.float32)


def in_metres(sequences: Sequences) -> tuple[Floats, Floats]:
    """Units of a source whose 3D poses are metres from the root already.

    Returns pose_2d, see `seen`, and pose_3d, both (N, J, 3) float32.
    """
    return seen(sequences), sequences.joint_3d.astype(np.float32, copy=False)
