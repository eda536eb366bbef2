"""Which frames make up each clip of T frames, and clips as the tensors of a batch."""

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.sequences import Sequences
from data.store import DOOR, ArrayClips, StoredClips, open_clips, projected
from lib.arrays import Floats, Ints
from lib.batch import Batch
from lib.errors import UserError


def clip_index(sources: Sequence[str] | np.ndarray, frames: int, stride: int) -> Ints:
    """The frames of each clip: windows of `frames` inside one video, every `stride` frames.

    sources: (N,) the video of each frame, a video's frames contiguous. Returns (clips, frames)
    int64. A tail shorter than a window is dropped; a video shorter than one gives a single clip,
    its n frames resampled: frame floor(i·n/T). No randomness.
    """
    sources = np.asarray(sources)
    if not len(sources):
        return np.empty((0, frames), np.int64)
    starts = np.flatnonzero(np.concatenate([[True], sources[1:] != sources[:-1]]))
    lengths = np.diff(starts, append=len(sources))
    window = np.arange(frames)
    clips = []
    for start, length in zip(starts, lengths, strict=True):
        if length < frames:
            clips.append(start + window[None] * length // frames)
        else:
            clips.append(np.arange(start, start + length - frames + 1, stride)[:, None] + window)
    return np.concatenate(clips)


def overlapping_clips(sequences: Sequences, frames: int) -> Ints:
    """Clips that share two thirds of their frames with the next one: (clips, frames)."""
    return clip_index(sequences.video, frames, max(1, frames // 3))


def adjacent_clips(sequences: Sequences, frames: int) -> Ints:
    """Clips that share no frame: (clips, frames)."""
    return clip_index(sequences.video, frames, frames)


def covering_clips(sources: Sequence[str] | np.ndarray, frames: int, step: int = 1) -> Ints:
    """Clips of every `step`-th frame that hold every frame of every video: (clips, frames).

    sources: as for clip_index(). The frames 0, step, 2·step … of a video are cut into clips side by
    side, so are 1, 1 + step …; the last clip is moved back to end with the last of them, and shares
    some frames with the one before. Fewer frames than a clip has: the last one is repeated.
    """
    sources = np.asarray(sources)
    starts = np.flatnonzero(np.concatenate([[True], sources[1:] != sources[:-1]]))
    clips = []
    for start, end in zip(starts, [*starts[1:], len(sources)], strict=True):
        for first in range(start, min(start + step, end)):
            ids = np.arange(first, end, step)
            begins = np.arange(0, max(len(ids), 1), frames)
            begins = np.minimum(begins, max(len(ids) - frames, 0))
            window = np.minimum(begins[:, None] + np.arange(frames), len(ids) - 1)
            clips.append(ids[window])
    return _joined(clips, frames)


def centred_windows(sequences: Sequences, frames: int) -> Ints:
    """Windows that share no frame and lie centred on their video, whose first and last frame fill
    what sticks out of it: (clips, frames). VideoPose3D's and MixSTE's training windows.
    """
    clips, start = [], 0
    for video in sequences.videos:
        count = -(-video.frames // frames)
        first = -((count * frames - video.frames) // 2)
        inside = np.clip(np.arange(first, first + count * frames), 0, video.frames - 1)
        clips.append(start + inside.reshape(count, frames))
        start += video.frames
    return _joined(clips, frames)


def covering_windows(sequences: Sequences, frames: int) -> Ints:
    """Windows from a video's start, the last one its last frames, so that it may overlap the one
    before; the last frame fills up a shorter video: (clips, frames). MixSTE's test windows.
    """
    return covering_clips(sequences.video, frames)


def _joined(clips: Sequence[Ints], frames: int) -> Ints:
    return np.concatenate([np.empty((0, frames), np.int64), *clips])


class JoinedClips:
    """The clips of several data sets, one after the other."""

    def __init__(self, parts: Sequence[StoredClips]) -> None:
        self.parts = parts
        self.where, self.n_frames = parts[0].where, parts[0].n_frames
        self.num_joints = parts[0].num_joints
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _split(self, clips: Sequence[int] | Ints) -> tuple[Ints, Ints]:
        """Which part each clip belongs to, and its number there."""
        numbers = np.asarray(clips, np.int64)
        part = np.searchsorted(self._ends, numbers, side="right")
        return part, numbers - np.concatenate([[0], self._ends])[part]

    def place(self, clip: int) -> str:
        part, number = self._split([clip])
        return self.parts[part[0]].place(int(number[0]))

    def read(self, clips: Sequence[int] | Ints) -> tuple[Floats, Floats]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""
        part, number = self._split(clips)
        shape = (len(part), self.n_frames, self.num_joints, 3)
        poses = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for index in np.unique(part):
            mine = part == index
            for pose, read in zip(poses, self.parts[index].read(number[mine]), strict=True):
                pose[mine] = read
        return poses


class TrainingClips(Protocol):
    """Clips by number, which may be others in each epoch of a training of some seed."""

    def __len__(self) -> int: ...
    def draw(self, clips: Sequence[int], *, seed: int, epoch: int) -> Batch: ...


class ClipDataset(Dataset):
    """Clips as tensors: x and y on the normalised screen with confidence, and the label.

    The label is in the data set's unit; training subtracts its root. Shapes (T, J, 3), float32.
    """

    def __init__(
        self,
        directory: Path | Sequence[Path],
        split: str,
        n_frames: int,
        use_proj_as_2d: bool = False,
        dt_file: str | None = None,
        *,
        num_joints: int | None = None,
        door: str = DOOR,
    ) -> None:
        """directory: one data set's folder, or several, whose clips are joined.

        use_proj_as_2d: ground-truth 2D in place of detections; the rest as for `open_clips`.
        Raises UserError.
        """
        folders = [directory] if isinstance(directory, str | os.PathLike) else directory
        parts = [
            open_clips(
                Path(folder), split, n_frames, num_joints=num_joints, dt_file=dt_file, door=door
            )
            for folder in folders
        ]
        self.source: StoredClips = parts[0] if len(parts) == 1 else JoinedClips(parts)
        self.use_proj_as_2d, self._door = use_proj_as_2d, door

    def __len__(self) -> int:
        return len(self.source)

    def cut(self, frame_ids: Ints) -> "ClipDataset":
        """The same frames in other clips, of frame ids (clips, T). Raises UserError."""
        if not isinstance(self.source, ArrayClips):
            raise UserError(
                f"{self.source.where}: holds single clips, and this protocol cuts the videos anew;"
                f" slice them with {self._door}"
            )
        other = copy.copy(self)
        other.source = self.source.cut(frame_ids)
        return other

    def draw(self, clips: Sequence[int], *, seed: int, epoch: int) -> Batch:
        """Stored clips are the same in each epoch."""
        return self.__getitems__(clips)

    def __getitem__(self, clip: int) -> tuple[Tensor, Tensor]:
        batch = self.__getitems__([clip])
        return batch.pose_2d[0], batch.pose_3d[0]

    def __getitems__(self, clips: Sequence[int]) -> Batch:
        pose_2d, pose_3d = self.source.read(clips)
        if self.use_proj_as_2d:
            pose_2d = projected(pose_3d)
        for pose in (pose_2d, pose_3d):
            finite = np.isfinite(pose).all((1, 2, 3))
            if not finite.all():
                raise UserError(
                    f"{self.source.place(clips[int(finite.argmin())])}: holds a number that is not"
                    f" finite; slice anew with {self._door}, or remove the clip"
                )
        return Batch(torch.from_numpy(pose_2d), torch.from_numpy(pose_3d), list(clips))
