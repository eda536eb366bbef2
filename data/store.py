"""Where clips of T frames are stored, and how they are read. J joints.

`H36M-243/` holds a small index.json and a folder of memory-mapped arrays that it names: per-frame
rows and, for each split, the (clips, T) frame ids, so overlapping clips share their rows. Folders
of the released code (`H36M-243/train/00000000.pkl`, one clip a file) are read as well.

`door`: the script that makes such a folder, for messages.
"""

import copy
import json
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from data.safe_pickle import load_pickle
from lib.arrays import Floats, Ints
from lib.errors import UserError
from lib.evaluation.frames import TestFrames
from lib.files import UNREADABLE, sync_directory, write_json
from lib.locks import locked, try_lock
from lib.skeleton import Skeleton

INDEX, FORMAT = "index.json", 1
DOOR = "a command in data/preprocess"
_UNFINISHED, _LOCK = ".slicing-", ".lock"
_TEST_ARRAYS = ("action", "video", "factor", "pose_3d_mm", "image_size")
_TEST_NAMES = ("actions", "videos", "subjects")


Entry = dict[str, Any]  # a split's lines of index.json


class ArrayWriter:
    """Writes a data set's arrays into a temporary folder; only a clean exit puts them in place.

    The arrays' folder gets a new name each time and index.json, replaced last, says which one
    counts: a run killed at any moment leaves the old data set or none. Of two that write at once,
    the one that ends last counts.
    """

    def __init__(
        self,
        directory: Path,
        n_frames: int,
        made_from: str,
        skeleton: Skeleton | None = None,
        dataset: str = "",
    ) -> None:
        """made_from: the file's name; skeleton: that of the poses, if it shall be kept; dataset:
        whose joints and units the poses have, if only that one may read them."""
        self.directory = directory
        self._splits: dict[str, Entry] = {}
        self._head: Entry = {"format": FORMAT, "n_frames": n_frames}
        self._head["made_from"] = made_from
        if skeleton is not None:
            self._head |= {"joints": skeleton.names, "joint_parents": skeleton.parent_names}
        if dataset:
            self._head["dataset"] = dataset

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
        """Held while folders are made and removed: one without a lock is a dead run's."""
        return locked(self.directory / _LOCK)

    def _refused(self, error: OSError) -> UserError:
        reason = error.strerror or error
        return UserError(
            f"cannot write {self.directory}: {reason}; free space or choose another place"
        )

    def _remove_leftovers(self) -> None:
        for folder in self.directory.glob(f"{_UNFINISHED}*"):
            with suppress(OSError):  # a folder that cannot be removed stays
                lock = try_lock(folder / _LOCK)
                if lock is not None:
                    lock.release()
                    shutil.rmtree(folder)

    def add(
        self,
        split: str,
        pose_2d: Floats,
        pose_3d: Floats,
        clips: Ints,
        test: TestFrames | None = None,
        about: Entry | None = None,
    ) -> None:
        """pose_2d, pose_3d: (N, J, 3) normalised; clips: (clips, T) frame ids; about: what else
        the index is to say of the split."""
        arrays: dict[str, np.ndarray] = {"pose_2d": pose_2d, "pose_3d": pose_3d}
        arrays["clips"] = clips.astype(np.int32)
        entry: Entry = {"frames": len(pose_2d), "clips": len(clips)}
        if test is not None:
            arrays |= {name: getattr(test, name) for name in _TEST_ARRAYS}
            entry |= {name: list(getattr(test, name)) for name in _TEST_NAMES}
            if test.valid is not None:
                arrays["valid"] = test.valid
        self.add_arrays(split, arrays, entry | (about or {}))

    def add_arrays(self, split: str, arrays: Mapping[str, np.ndarray], entry: Entry) -> None:
        """Arrays of any names, for open_arrays(); entry: what the index is to say of them."""
        try:
            for name, array in arrays.items():
                with open(self._folder / f"{split}_{name}.npy", "wb") as file:
                    np.save(file, array, allow_pickle=False)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise self._refused(error) from error
        self._splits[split] = dict(entry)

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
        write_json(self.directory / INDEX, {**self._head, "splits": self._splits, "arrays": name})
        for folder in self.directory.glob("arrays-*"):
            if folder.name != name:
                shutil.rmtree(folder, ignore_errors=True)


class StoredClips(Protocol):
    """Clips of one length by number, wherever they lie."""

    where: Path
    n_frames: int
    num_joints: int

    def __len__(self) -> int: ...
    def place(self, clip: int) -> str: ...  # where a clip is, for messages
    def read(self, clips: Sequence[int] | Ints) -> tuple[Floats, Floats]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""


def open_arrays(
    directory: Path, split: str, names: Sequence[str], door: str
) -> tuple[Entry, dict[str, np.ndarray]]:
    """A split's entry in the index, and its arrays of these names, memory-mapped.

    Raises UserError: they are not there, or not whole.
    """
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        folder, entry = index["arrays"], index["splits"][split]
        if index["format"] != FORMAT or Path(folder).name != folder or not isinstance(entry, dict):
            raise ValueError
        paths = {name: directory / folder / f"{split}_{name}.npy" for name in names}
        arrays = {n: np.load(p, mmap_mode="r", allow_pickle=False) for n, p in paths.items()}
    except UNREADABLE as error:
        raise UserError(
            f"{directory}: no {split} split of this kind, or half of one; make it with {door}"
        ) from error
    return entry, arrays


def dataset_of(directory: Path) -> str | None:
    """The data set whose poses a folder holds; None if it does not say it, or is none of ours."""
    try:
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        return str(index["dataset"])
    except UNREADABLE:
        return None


class ArrayClips:
    """The clips of one split, read from memory-mapped arrays."""

    def __init__(self, directory: Path, split: str, door: str = DOOR) -> None:
        self.where, self._door = directory, door
        try:
            self._index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
            splits = self._index["splits"]
            if split not in splits and set(splits) == {"test"}:
                raise UserError(
                    f"{directory}: made from {self._index['made_from']}, which has test videos"
                    " only; for a training, slice a file with training videos"
                )
            folder, self._entry = self._index["arrays"], splits[split]
            if self._index["format"] != FORMAT or Path(folder).name != folder:
                raise ValueError
            self._folder, self._split = directory / folder, split
            self._pose_2d, self._pose_3d = self._open("pose_2d"), self._open("pose_3d")
            self.frame_ids: Ints = np.asarray(self._open("clips"), dtype=np.int64)
            frames, clips = self._entry["frames"], self._entry["clips"]
            self.n_frames: int = self._index["n_frames"]
            rows = {self._pose_2d.shape, self._pose_3d.shape}
            self.num_joints = self._pose_2d.shape[1]
            if rows != {(frames, self.num_joints, 3)}:
                raise ValueError
            if self.frame_ids.shape != (clips, self.n_frames):
                raise ValueError
            if clips and not 0 <= self.frame_ids.min() <= self.frame_ids.max() < frames:
                raise ValueError
        except UNREADABLE as error:
            raise self._damaged() from error

    @property
    def skeleton(self) -> Skeleton | None:
        """That of the poses, None if the folder does not say it."""
        if "joints" not in self._index:
            return None
        try:
            return Skeleton.of_names(self._index["joints"], self._index["joint_parents"])
        except UNREADABLE as error:
            raise self._damaged() from error

    def _open(self, name: str) -> np.ndarray:
        path = self._folder / f"{self._split}_{name}.npy"
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _damaged(self) -> UserError:
        return UserError(
            f"{self.where}: damaged or half a data set; make it anew with {self._door}"
        )

    def cut(self, frame_ids: Ints) -> "ArrayClips":
        """The same frames in other clips, of frame ids (clips, T)."""
        other = copy.copy(self)
        other.frame_ids, other.n_frames = frame_ids, frame_ids.shape[1]
        return other

    def __len__(self) -> int:
        return len(self.frame_ids)

    def place(self, clip: int) -> str:
        return f"{self.where}: clip {clip}"

    def rows(self) -> tuple[Floats, Floats]:
        """2D and 3D of every frame, (N, J, 3) float32, which `frame_ids` count."""
        return self._pose_2d, self._pose_3d

    def read(self, clips: Sequence[int] | Ints) -> tuple[Floats, Floats]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""
        ids = self.frame_ids[np.asarray(clips, np.int64)]
        return self._pose_2d[ids], self._pose_3d[ids]

    def test_frames(self) -> TestFrames:
        try:
            names = [*_TEST_ARRAYS]
            if (self._folder / f"{self._split}_valid.npy").is_file():
                names.append("valid")
            arrays: dict[str, Any] = {name: np.asarray(self._open(name)) for name in names}
            entry = {"subjects": [], **self._entry}  # which older folders do not name
            texts: dict[str, Any] = {key: [str(n) for n in entry[key]] for key in _TEST_NAMES}
            test_set = f"{self.where.name} (of {self._index['made_from']})"
            test = TestFrames(**texts, **arrays, test_set=test_set)
            if any(len(array) != self._entry["frames"] for array in arrays.values()):
                raise ValueError
        except UNREADABLE as error:
            raise self._damaged() from error
        return test


class FolderClips:
    """The clips of one split in the released layout: a pickle for each clip."""

    def __init__(self, directory: Path, split: str, door: str) -> None:
        self.where = directory / split
        self._remedy = f"copy it again or slice anew with {door}"
        self._files = sorted(self.where.glob("[0-9]*.pkl"))
        for number, file in enumerate(self._files):
            if file.name != f"{number:08d}.pkl":
                raise UserError(f"{self.where}: {number:08d}.pkl is missing; {self._remedy}")
        self._shape: tuple[int, ...] = ()  # of every clip: that of the first
        self._shape = self._read_file(0)[0].shape
        self.n_frames, self.num_joints = self._shape[:2]

    def __len__(self) -> int:
        return len(self._files)

    def place(self, clip: int) -> str:
        return str(self._files[clip])

    def _read_file(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        file = self._files[number]
        clip = load_pickle(file, self._remedy)
        try:
            pose_2d, pose_3d = clip["data_input"], np.asarray(clip["data_label"], np.float32)
            # As in the released code: a clip may come without detections.
            pose_2d = projected(pose_3d) if pose_2d is None else np.asarray(pose_2d, np.float32)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UserError(f"{file}: no arrays 'data_input' and 'data_label' inside") from error
        wanted = self._shape or pose_3d.shape
        for array in (pose_2d, pose_3d):
            if array.shape != wanted or array.ndim != 3 or array.shape[-1] != 3:
                shown: object = self._shape or "(frames, joints, 3)"
                raise UserError(f"{file}: an array of shape {array.shape}, not {shown}")
        return pose_2d, pose_3d

    def read(self, clips: Sequence[int] | Ints) -> tuple[Floats, Floats]:
        """Two (B, T, J, 3) float32 arrays, 2D and 3D."""
        if not len(clips):
            empty = np.empty((0, self.n_frames, self.num_joints, 3), np.float32)
            return empty, empty.copy()
        pairs = [self._read_file(int(clip)) for clip in clips]
        pose_2d, pose_3d = zip(*pairs, strict=True)
        return np.stack(pose_2d), np.stack(pose_3d)


def projected(pose_3d: Floats) -> Floats:
    """Ground-truth 2D: the label's x and y on the screen, with confidence 1."""
    return np.concatenate([pose_3d[..., :2], np.ones_like(pose_3d[..., :1])], axis=-1)


def open_clips(
    directory: Path,
    split: str,
    n_frames: int | None,
    *,
    num_joints: int | None,
    door: str,
    dt_file: str | None = None,
) -> ArrayClips | FolderClips:
    """The clips of `directory` (data/motion3d/H36M-243), arrays or a released folder.

    n_frames, num_joints: what the clips must have, None for any; dt_file: what they would be made
    from, for the message. Raises UserError: nothing there, damaged, or other clips than wanted.
    """
    if (directory / INDEX).is_file():
        clips: ArrayClips | FolderClips = ArrayClips(directory, split, door)
    elif (directory / split / "00000000.pkl").is_file():
        clips = FolderClips(directory, split, door)
    else:
        raise UserError(
            f"{directory}: no data set; make it with: python {door}"
            f" --n-frames {n_frames or 243} --data-root {directory.parent}"
            + (f" --dt-file {dt_file}" if dt_file else "")
        )
    if num_joints is not None and clips.num_joints != num_joints:
        raise UserError(
            f"{directory}: poses of {clips.num_joints} joints, not of {num_joints};"
            " correct the keys dataset or subset_list"
        )
    if n_frames is not None and clips.n_frames != n_frames:
        raise UserError(
            f"{directory}: clips of {clips.n_frames} frames, the config's n_frames is {n_frames};"
            " correct n_frames or subset_list"
        )
    return clips
