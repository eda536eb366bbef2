"""MPI-INF-3DHP as published: `S1/Seq1/annot.mat` … (MATLAB v5), `TS1/annot_data.mat` … (HDF5).

annot.mat: `annot2` and `univ_annot3`, cell columns over 14 cameras, each cell (n, 56) pixels or
(n, 84) mm of 28 joints; `cameras`: their numbers. annot_data.mat as h5py sees it: `annot2`
(n, 1, 17, 2), `univ_annot3` (n, 1, 17, 3), `valid_frame` and `activity_annotation` (n, 1).
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from data.sources.mpi_inf_3dhp import (
    ACTIVITIES,
    CAMERAS,
    FRAME_TABLE,
    JOINTS,
    REMEDY,
    TEST_TABLE,
    TRAIN_SIZE,
    Take,
    check_lengths,
    flags,
    make_take,
    test_video,
    whole_numbers,
)
from lib.arrays import Bools, Ints
from lib.cli import logger
from lib.errors import UserError
from lib.files import listing
from lib.processes import Processes
from lib.training.progress import progress_bar

ANNOTATION, TEST_ANNOTATION = "annot.mat", "annot_data.mat"
ACTIVITY = "activity_annotation"
RAW_JOINTS = 28
# MPI_INF_3DHP's joints among the 28.
CHOSEN = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
NEEDS = "pip install -r requirements-mpi.txt, or use the .npz files instead"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_USER_BLOCK = 512  # MATLAB's HDF5 files begin with a block of text


def takes_of(folder: Path, split: str) -> Iterator[Take]:
    """The takes of a split. Raises UserError."""
    name = {"train": ANNOTATION, "test": TEST_ANNOTATION}[split]
    pattern = {"train": f"S[0-9]/Seq[0-9]/{name}", "test": f"TS[0-9]/{name}"}[split]
    # The test set's archive has a folder around the sequences.
    files = sorted([*folder.glob(pattern), *folder.glob(f"*/{pattern}")])
    if not files:
        there = listing(folder)
        raise UserError(
            f"{folder}: no {pattern.replace('[0-9]', '1')} … in it or one level below (there:"
            f" {there})"
        )
    places: dict[tuple[str, ...], Path] = {}
    for path in files:
        first = places.setdefault(
            path.parts[-3:-1] if split == "train" else path.parts[-2:-1], path
        )
        if first is not path:
            raise UserError(f"{path}: the same sequence as {first}; take one of them away")
    return _train_takes(files) if split == "train" else _test_takes(files)


def optional_package(name: str, path: Path) -> ModuleType:
    """An optional package. Raises UserError if it is not installed."""
    try:
        if name == "h5py":
            import h5py

            return h5py
        import scipy.io

        return scipy.io
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(f"{path}: needs {package}; {NEEDS}") from error


def _train_takes(files: Sequence[Path]) -> Iterator[Take]:
    lengths = {}
    for path in progress_bar(files, "reading training sequences", Processes()):
        subject, sequence = path.parts[-3:-1]
        if (subject, sequence) not in FRAME_TABLE:
            raise UserError(f"{path}: MPI-INF-3DHP has S1/Seq1 to S8/Seq2 only; take it away")
        used, fps = FRAME_TABLE[subject, sequence]
        content = _read(path, ["annot2", "univ_annot3", "cameras"], may_be_hdf5=False)
        listed = np.asarray(content["cameras"]).ravel().tolist()
        for camera in CAMERAS:
            if camera not in listed:
                raise UserError(f"{path}: no camera {camera} in 'cameras'; {REMEDY}")
            row, where = listed.index(camera), f"{path}: camera {camera}"
            points = _cell(content["annot2"], row, 2, f"{where}: annot2")[:used]
            poses = _cell(content["univ_annot3"], row, 3, f"{where}: univ_annot3")[:used]
            name = f"{subject} {sequence} camera {camera}"
            video = (name, subject, str(camera), TRAIN_SIZE, float(fps))
            yield make_take(video, points, poses, where)
            lengths[f"{subject} {sequence}"] = len(points)
    wanted = {" ".join(key): frames for key, (frames, _) in FRAME_TABLE.items()}
    check_lengths(lengths, wanted, "frames")


def _cell(cells: Any, row: int, axes: int, where: str) -> np.ndarray:
    """One camera's (n, 17, axes) of a cell column."""
    column = np.asarray(cells)
    if column.dtype != object or row >= column.size:
        raise UserError(f"{where}: not a cell column over the cameras; {REMEDY}")
    cell = np.asarray(column.ravel()[row])
    if cell.ndim != 2 or cell.shape[1] != RAW_JOINTS * axes or cell.dtype.kind not in "fiu":
        raise UserError(
            f"{where} is {cell.dtype} of shape {cell.shape}, not numbers"
            f" (frames, {RAW_JOINTS * axes}); {REMEDY}"
        )
    return cell.reshape(-1, RAW_JOINTS, axes)[:, CHOSEN]


def _test_takes(files: Sequence[Path]) -> Iterator[Take]:
    lengths = {}
    for path in progress_bar(files, "reading test sequences", Processes()):
        name = path.parent.name
        if name not in TEST_TABLE:
            raise UserError(f"{path}: MPI-INF-3DHP has TS1 to TS6 only; take it away")
        names = ["annot2", "univ_annot3", "valid_frame"]
        content = _read(path, names, may_be_hdf5=True, optional=[ACTIVITY])
        points = _frames_first(content["annot2"], 2, f"{path}: annot2")
        poses = _frames_first(content["univ_annot3"], 3, f"{path}: univ_annot3")
        valid = flags(content["valid_frame"], len(points), f"{path}: valid_frame")
        activity = _activity(content, valid, path)
        lengths[name] = int(valid.sum())
        yield make_take(test_video(name), points, poses, str(path), valid, activity)
    check_lengths(
        lengths, {name: frames for name, (_, frames) in TEST_TABLE.items()}, "valid frames"
    )


def _activity(content: Mapping[str, Any], valid: Bools, path: Path) -> Ints | None:
    """(n,) the activity of each frame; a frame that is not valid may have anything, taken as 0."""
    if ACTIVITY not in content:
        logger.warning("warning: %s: no %s: no scores of single activities", path, ACTIVITY)
        return None
    found = np.asarray(content[ACTIVITY])
    if found.size == len(valid) and found.dtype.kind in "fiu":
        known = np.isin(found, range(len(ACTIVITIES) + 1))
        found = np.where(known | valid.reshape(found.shape), found, 0)
    where = f"{path}: {ACTIVITY}"
    return whole_numbers(found, len(valid), where, 0, len(ACTIVITIES))


def _frames_first(array: np.ndarray, axes: int, where: str) -> np.ndarray:
    """(n, 1, 17, axes), or with its axes reversed as in MATLAB, or without the 1: (n, 17, axes)."""
    for order in (array, array.T):
        if order.ndim == 4 and order.shape[1] == 1:
            order = order[:, 0]
        if order.ndim == 3 and order.shape[1:] == (JOINTS, axes):
            return order
    raise UserError(f"{where} has shape {array.shape}, not (frames, 1, {JOINTS}, {axes}); {REMEDY}")


def _is_hdf5(path: Path) -> bool:
    with open(path, "rb") as file:
        head = file.read(_USER_BLOCK + len(_HDF5))
    return head.startswith(_HDF5) or head[_USER_BLOCK:] == _HDF5


def _read(
    path: Path, names: Sequence[str], *, may_be_hdf5: bool, optional: Sequence[str] = ()
) -> Mapping[str, Any]:
    """Arrays of a MATLAB file of either kind by name. Raises UserError."""
    wanted = [*names, *optional]
    try:
        is_hdf5 = _is_hdf5(path)
        if is_hdf5 and not may_be_hdf5:
            raise UserError(f"{path}: HDF5 (MATLAB 7.3), not MATLAB v5; save it again with -v7")
        package = optional_package("h5py" if is_hdf5 else "scipy.io", path)
        if not is_hdf5:
            return _all_there(package.loadmat(path, variable_names=wanted), names, path)
        with package.File(path, "r") as file:
            content = {name: file[name][()] for name in wanted if name in file}
            return _all_there(content, names, path)
    except UserError:
        raise
    except Exception as error:  # a damaged file can raise almost anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{path}: damaged or no MATLAB file ({reason}); {REMEDY}") from error


def _all_there(content: Mapping[str, Any], names: Sequence[str], path: Path) -> Mapping[str, Any]:
    for name in names:
        if name not in content:
            raise UserError(f"{path}: no array {name!r} inside; {REMEDY}")
    return content
