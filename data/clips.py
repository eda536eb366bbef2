"""Clips of T frames: which frames they hold, how they are stored, and how they are read.

`H36M-243/` holds a small index.json and a folder of memory-mapped arrays that it names: per-frame
rows and, for each split, the (clips, T) frame ids, so overlapping clips share their rows. Folders
of the released code (`H36M-243/train/00000000.pkl`, one clip a file) are read as well.
"""

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.safe_pickle import load_pickle
from lib.errors import UserError
from lib.evaluation import TestFrames
from lib.files import UNREADABLE, sync_directory, write_json
from lib.locks import locked, try_lock
from lib.skeleton import H36M

SPLITS = ("train", "test")
INDEX, FORMAT = "index.json", 1
_UNFINISHED, _LOCK = ".slicing-", ".lock"
_TEST_ARRAYS = ("action", "video", "factor", "pose_3d_mm", "image_size")


def clip_index(sources: Sequence[str] | np.ndarray, frames: int, stride: int) -> np.ndarray:
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


class ArrayWriter:
    """Writes a data set's arrays beside their place; only a clean exit puts them there.

    The arrays' folder gets a new name each time and index.json, replaced last, says which one
    counts: a run killed at any moment leaves the old data set or none. Of two that write at once,
    the one that ends last counts.
    """

    def __init__(self, directory: Path, n_frames: int, made_from: str) -> None:
        self.directory = directory
        self.index: dict[str, Any] = {"format": FORMAT, "n_frames": n_frames, "splits": {}}
        self.index["made_from"] = made_from

    def __enter__(self) -> "ArrayWriter":
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._directory_lock():
                self._remove_leftovers()
                self._folder = self.directory / f"{_UNFINISHED}{uuid.uuid4().hex[:8]}"
                self._folder.mkdir()
                self._alive = try_lock(self._folder / _LOCK)
        except OSError as error:
            raise self._refused(error) from error
        return self

    def _directory_lock(self) -> AbstractContextManager[None]:
        """Taken while folders come and go: what is not locked then belongs to a dead run."""
        return locked(self.directory / _LOCK)

    def _refused(self, error: OSError) -> UserError:
        reason = error.strerror or error
        return UserError(
            f"cannot write {self.directory}: {reason}; free space or choose another place"
        )

    def _remove_leftovers(self) -> None:
        for folder in self.directory.glob(f"{_UNFINISHED}*"):
            with suppress(OSError):  # what may not be removed may stay
                lock = try_lock(folder / _LOCK)
                if lock is not None:
                    lock.release()
                    shutil.rmtree(folder)

    def add(
        self,
        split: str,
        pose_2d: np.ndarray,
        pose_3d: np.ndarray,
        clips: np.ndarray,
        test: TestFrames | None = None,
    ) -> None:
        """pose_2d, pose_3d: (N, J, 3) normalised; clips: (clips, T) frame ids."""
        arrays = {"pose_2d": pose_2d, "pose_3d": pose_3d, "clips": clips.astype(np.int32)}
        entry: dict[str, object] = {"frames": len(pose_2d), "clips": len(clips)}
        if test is not None:
            arrays |= {name: getattr(test, name) for name in _TEST_ARRAYS}
            entry |= {"actions": test.actions, "videos": test.videos}
        try:
            for name, array in arrays.items():
                with open(self._folder / f"{split}_{name}.npy", "wb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self.index["splits"][split] = entry

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            with self._directory_lock():
                if self._alive is not None:  # Windows neither removes nor renames a file in use
                    self._alive.release()
                if kind is None:
                    self._put_in_place()
                else:
                    shutil.rmtree(self._folder, ignore_errors=True)
        except OSError as failure:
            raise self._refused(failure) from failure

    def _put_in_place(self) -> None:
        (self._folder / _LOCK).unlink(missing_ok=True)
        sync_directory(self._folder)
        name = f"arrays-{uuid.uuid4().hex[:8]}"
        self._folder.rename(self.directory / name)
        write_json(self.directory / INDEX, self.index | {"arrays": name})
        for folder in self.directory.glob("arrays-*"):
            if folder.name != name:
                shutil.rmtree(folder, ignore_errors=True)


class Clips(Protocol):
    """Clips of one length by number, wherever they lie."""

    where: Path
    n_frames: int

    def __len__(self) -> int: ...
    def place(self, clip: int) -> str: ...  # where a clip is, for messages
    def read(self, clips: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""


class ArrayClips:
    """The clips of one split, read from memory-mapped arrays."""

    def __init__(self, directory: Path, split: str) -> None:
        self.where = directory
        try:
            self._index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
            folder, self._entry = self._index["arrays"], self._index["splits"][split]
            if self._index["format"] != FORMAT or Path(folder).name != folder:
                raise ValueError
            self._folder, self._split = directory / folder, split
            self._pose_2d, self._pose_3d = self._open("pose_2d"), self._open("pose_3d")
            self.frame_ids = np.asarray(self._open("clips"), dtype=np.int64)
            frames, clips = self._entry["frames"], self._entry["clips"]
            self.n_frames: int = self._index["n_frames"]
            rows = {self._pose_2d.shape, self._pose_3d.shape}
            if len(rows) != 1 or self._pose_2d.shape != (frames, *self._pose_2d.shape[1:2], 3):
                raise ValueError
            if self.frame_ids.shape != (clips, self.n_frames):
                raise ValueError
            if clips and not 0 <= self.frame_ids.min() <= self.frame_ids.max() < frames:
                raise ValueError
        except UNREADABLE as error:
            raise _damaged(directory) from error

    def _open(self, name: str) -> np.ndarray:
        return np.load(
            self._folder / f"{self._split}_{name}.npy", mmap_mode="r", allow_pickle=False
        )

    def __len__(self) -> int:
        return len(self.frame_ids)

    def place(self, clip: int) -> str:
        return f"{self.where}: clip {clip}"

    def read(self, clips: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""
        ids = self.frame_ids[np.asarray(clips, np.int64)]
        return self._pose_2d[ids], self._pose_3d[ids]

    def test_frames(self) -> TestFrames:
        try:
            arrays = {name: np.asarray(self._open(name)) for name in _TEST_ARRAYS}
            actions, videos = ([str(n) for n in self._entry[k]] for k in ("actions", "videos"))
            test = TestFrames(actions, videos, **arrays)
            if any(len(arrays[name]) != self._entry["frames"] for name in _TEST_ARRAYS):
                raise ValueError
        except UNREADABLE as error:
            raise _damaged(self.where) from error
        return test


class FolderClips:
    """The clips of one split in the released layout: a pickle for each clip."""

    def __init__(self, directory: Path, split: str) -> None:
        self.where = directory / split
        self._files = sorted(self.where.glob("[0-9]*.pkl"))
        for number, file in enumerate(self._files):
            if file.name != f"{number:08d}.pkl":
                raise UserError(
                    f"{self.where}: {number:08d}.pkl is missing; copy the folder again or slice"
                    " anew with data/preprocess/h36m.py"
                )
        self.n_frames = len(self._read_file(0)[0])

    def __len__(self) -> int:
        return len(self._files)

    def place(self, clip: int) -> str:
        return str(self._files[clip])

    def _read_file(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        file = self._files[number]
        clip = load_pickle(file, "copy it again or slice anew with data/preprocess/h36m.py")
        try:
            pose_2d, pose_3d = clip["data_input"], np.asarray(clip["data_label"], np.float32)
            # As in the released code: a clip may come without detections.
            pose_2d = projected(pose_3d) if pose_2d is None else np.asarray(pose_2d, np.float32)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{file}: no arrays 'data_input' and 'data_label' inside") from error
        n_frames = getattr(self, "n_frames", len(pose_3d) if pose_3d.ndim else 0)
        for array in (pose_2d, pose_3d):
            if array.shape != (n_frames, 17, 3):
                raise UserError(f"{file}: an array of shape {array.shape}, not {(n_frames, 17, 3)}")
        return pose_2d, pose_3d

    def read(self, clips: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""
        if not len(clips):
            empty = np.empty((0, self.n_frames, H36M.num_joints, 3), np.float32)
            return empty, empty.copy()
        pairs = [self._read_file(int(clip)) for clip in clips]
        pose_2d, pose_3d = zip(*pairs, strict=True)
        return np.stack(pose_2d), np.stack(pose_3d)


class JoinedClips:
    """The clips of several data sets, one after the other."""

    def __init__(self, parts: Sequence[Clips]) -> None:
        self.parts = parts
        self.where, self.n_frames = parts[0].where, parts[0].n_frames
        self._ends = np.cumsum([len(part) for part in parts])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _split(self, clips: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which part each clip belongs to, and its number there."""
        numbers = np.asarray(clips, np.int64)
        part = np.searchsorted(self._ends, numbers, side="right")
        return part, numbers - np.concatenate([[0], self._ends])[part]

    def place(self, clip: int) -> str:
        part, number = self._split([clip])
        return self.parts[part[0]].place(int(number[0]))

    def read(self, clips: Sequence[int] | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""
        part, number = self._split(clips)
        shape = (len(part), self.n_frames, H36M.num_joints, 3)
        poses = np.empty(shape, np.float32), np.empty(shape, np.float32)
        for index in np.unique(part):
            mine = part == index
            for pose, read in zip(poses, self.parts[index].read(number[mine]), strict=True):
                pose[mine] = read
        return poses


def projected(pose_3d: np.ndarray) -> np.ndarray:
    """Ground-truth 2D: the label's x and y on the screen, with confidence 1."""
    return np.concatenate([pose_3d[..., :2], np.ones_like(pose_3d[..., :1])], axis=-1)


def _damaged(directory: Path) -> UserError:
    return UserError(
        f"{directory}: damaged or half a data set; make it anew with data/preprocess/h36m.py"
    )


def open_clips(
    directory: Path, split: str, n_frames: int | None, dt_file: str | None = None
) -> ArrayClips | FolderClips:
    """The clips of `directory` (data/motion3d/H36M-243), arrays or a released folder.

    n_frames: the length that clips must have, None for any; dt_file: the pickle they would be made
    from, for the message. Raises UserError: nothing there, damaged, or clips of another length.
    """
    if (directory / INDEX).is_file():
        clips: ArrayClips | FolderClips = ArrayClips(directory, split)
    elif (directory / split / "00000000.pkl").is_file():
        clips = FolderClips(directory, split)
    else:
        raise UserError(
            f"{directory}: no data set; make it with: python data/preprocess/h36m.py"
            f" --n-frames {n_frames or 243} --data-root {directory.parent}"
            + (f" --dt-file {dt_file}" if dt_file else "")
        )
    if n_frames is not None and clips.n_frames != n_frames:
        raise UserError(
            f"{directory}: clips of {clips.n_frames} frames, the config's n_frames is {n_frames};"
            " correct n_frames or subset_list"
        )
    return clips


@dataclass
class Batch:
    """B clips: pose_2d (B, T, J, 3), pose_3d (B, T, J, 3), and which clips they are."""

    pose_2d: Tensor
    pose_3d: Tensor
    clips: list[int]

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.pose_2d.to(device), self.pose_3d.to(device), self.clips)

    def part(self, start: int, end: int) -> "Batch":
        rows = slice(start, end)
        return Batch(self.pose_2d[rows], self.pose_3d[rows], self.clips[rows])


class ClipDataset(Dataset):
    """Clips as tensors: x, y in normalised screen coordinates with confidence, and the label.

    The label holds the position on the screen (x, y) and the root-relative depth; training and
    labels subtract the root. Shapes (T, J, 3), float32.
    """

    def __init__(
        self,
        directory: Path | Sequence[Path],
        split: str,
        n_frames: int,
        use_proj_as_2d: bool = False,
        dt_file: str | None = None,
    ) -> None:
        """directory: one data set's folder, or several, whose clips are joined.

        use_proj_as_2d: ground-truth 2D in place of detections. Raises UserError.
        """
        folders = [directory] if isinstance(directory, str | os.PathLike) else directory
        parts = [open_clips(Path(folder), split, n_frames, dt_file) for folder in folders]
        self.source: Clips = parts[0] if len(parts) == 1 else JoinedClips(parts)
        self.use_proj_as_2d = use_proj_as_2d

    def __len__(self) -> int:
        return len(self.source)

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
                    " finite; slice anew with data/preprocess/h36m.py, or remove the clip"
                )
        return Batch(torch.from_numpy(pose_2d), torch.from_numpy(pose_3d), list(clips))
