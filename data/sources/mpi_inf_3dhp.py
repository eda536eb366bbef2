"""MPI-INF-3DHP: the two .npz files that are passed round, or the files as published.

`data_train_3dhp.npz`, array `data`, a pickled dict: 'S1 Seq1' -> [{camera: {'data_2d': (n, 17, 2)
pixels, 'data_3d': (n, 17, 3) mm}}, fps]. Beside it `data_test_3dhp.npz`: 'TS1' -> {'data_2d',
'data_3d', 'valid': (n,)}. Joints as in lib.skeleton.MPI_INF_3DHP, 3D in the camera's axes. A folder
instead of a file is read by data/sources/mpi_inf_3dhp_raw.py.
"""

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.safe_pickle import load_npz
from data.sequences import CHUNK, SPLITS, Sequences, Video, seen
from lib.arrays import Bools, Floats, Ints
from lib.camera import Camera
from lib.cli import logger
from lib.errors import UserError
from lib.files import find_path, listing
from lib.processes import Processes
from lib.skeleton import MPI_INF_3DHP
from lib.training.progress import progress_bar

TRAIN, TEST = "data_train_3dhp.npz", "data_test_3dhp.npz"
REMEDY = "get it again (README, Data), or make one with data/preprocess/synthetic.py --format 3dhp"
JOINTS, ROOT = MPI_INF_3DHP.num_joints, MPI_INF_3DHP.root

# (subject, sequence) -> frames that are used, and how many a second there are.
FRAME_TABLE = {
    ("S1", "Seq1"): (6416, 25), ("S1", "Seq2"): (12430, 50),
    ("S2", "Seq1"): (6502, 25), ("S2", "Seq2"): (6081, 25),
    ("S3", "Seq1"): (12488, 50), ("S3", "Seq2"): (12283, 50),
    ("S4", "Seq1"): (6171, 25), ("S4", "Seq2"): (6675, 25),
    ("S5", "Seq1"): (12820, 50), ("S5", "Seq2"): (12312, 50),
    ("S6", "Seq1"): (6188, 25), ("S6", "Seq2"): (6145, 25),
    ("S7", "Seq1"): (6239, 25), ("S7", "Seq2"): (6320, 25),
    ("S8", "Seq1"): (6468, 25), ("S8", "Seq2"): (6054, 25),
}  # fmt: skip
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)  # of 14: those at the height of the chest
TRAIN_SIZE = (2048, 2048)
# Test sequence -> image size in pixels, and its valid frames.
TEST_TABLE = {
    "TS1": ((2048, 2048), 603), "TS2": ((2048, 2048), 540), "TS3": ((2048, 2048), 505),
    "TS4": ((2048, 2048), 553), "TS5": ((1920, 1080), 276), "TS6": ((1920, 1080), 452),
}  # fmt: skip
TEST_FPS = 25  # of the films that data/preprocess/visualize.py makes; nothing else depends on it
# Of activity_annotation, from 1 on.
ACTIVITIES = (
    "stand/walk", "exercise", "sit on chair", "crouch/reach", "on the floor", "sports", "misc.",
)  # fmt: skip


@dataclass(frozen=True)
class Take:
    """A sequence as one camera saw it. n frames.

    pixels: (n, 17, 2); relative: (n, 17, 3) mm from the root; both float32. Of the test split:
    valid (n,), and activity (n,), numbers from 1 on, where the file has it.
    """

    video: Video
    pixels: Floats
    relative: Floats
    valid: Bools | None = None
    activity: Ints | None = None


def read(
    path: str | os.PathLike[str], splits: Sequence[str] = SPLITS
) -> Iterator[tuple[str, Sequences]]:
    """Yields (split, its videos), so that the caller can free one split before the next.

    path: data_train_3dhp.npz, or a folder with the files as published. Raises UserError.
    """
    found = find_path(path)
    if found.is_dir():
        from data.sources.mpi_inf_3dhp_raw import takes_of  # needs packages that npz files do not

        return ((split, to_sequences(takes_of(found, split))) for split in splits)
    files = {"train": found, "test": found.parent / TEST}
    for split in splits:
        if not files[split].is_file():
            there = listing(found.parent, "*.npz")
            raise UserError(f"{files[split]}: no such file (there: {there}); {REMEDY}")
    takes = {"train": read_train, "test": read_test}
    return ((split, to_sequences(takes[split](files[split]))) for split in splits)


def to_sequences(takes: Iterable[Take]) -> Sequences:
    """All takes as one; each is freed when it has been copied."""
    parts = list(takes)
    ends = np.cumsum([part.video.frames for part in parts])
    pixels = np.empty((ends[-1], JOINTS, 2), np.float32)
    relative = np.empty((ends[-1], JOINTS, 3), np.float32)
    videos, valid, activity = [], [], []
    parts.reverse()
    for end in ends:
        part = parts.pop()
        rows = slice(end - part.video.frames, end)
        pixels[rows], relative[rows] = part.pixels, part.relative
        videos.append(part.video)
        valid.append(part.valid)
        activity.append(part.activity)
    is_test = valid[0] is not None
    return Sequences(
        videos,
        pixels,
        np.broadcast_to(np.float32(1), pixels.shape[:2]),  # the 2D is ground truth
        relative,
        np.ones(len(pixels)) if is_test else None,
        relative if is_test else None,
        np.concatenate([v for v in valid if v is not None]) if is_test else None,
        _activities(videos, activity) if is_test else None,
    )


def _activities(videos: Sequence[Video], activity: Sequence[Ints | None]) -> list[str]:
    """The name of each frame's activity, '' where it is not known."""
    names = ["", *(f"{number} {name}" for number, name in enumerate(ACTIVITIES, 1))]
    return [
        names[number]
        for video, numbers in zip(videos, activity, strict=True)
        for number in (np.zeros(video.frames, int) if numbers is None else numbers)
    ]


def mm_from_root(sequences: Sequences) -> tuple[Floats, Floats]:
    """Units: labels are mm from the root times 2 / width of the image; see data.sequences.seen."""
    width, mm = sequences.image_size[:, 0], sequences.joint_3d
    pose_3d = np.empty(mm.shape, np.float32)
    for start in range(0, len(mm), CHUNK):
        rows = slice(start, start + CHUNK)
        pose_3d[rows] = mm[rows] * (2 / width[rows, None, None])
    return seen(sequences), pose_3d


# --- Checks that both kinds of files need ------------------------------------------------------


def make_take(
    video: tuple[str, str, str, tuple[int, int], float],
    pixels: object,
    mm: object,
    where: str,
    valid: Bools | None = None,
    activity: Ints | None = None,
) -> Take:
    """A take from the arrays of a file, (n, 17, 2) and (n, 17, 3); video: name, subject, camera,
    image size and fps; `where` begins messages. Raises UserError.
    """
    name, subject, camera, size, fps = video
    points, poses = numbers(pixels, 2, f"{where}: 2D"), numbers(mm, 3, f"{where}: 3D")
    if len(points) != len(poses):
        raise UserError(f"{where}: {len(points)} frames in 2D, {len(poses)} in 3D; {REMEDY}")
    finite = np.isfinite(poses).all((1, 2))
    if valid is not None:
        finite |= ~valid  # what is marked as invalid is never used
    for what, good in (("2D", np.isfinite(points).all((1, 2))), ("3D", finite)):
        if not good.all():
            raise UserError(
                f"{where}: the {what} pose of frame {int(good.argmin())} is not finite; {REMEDY}"
            )
    poses = poses.astype(np.float64)
    relative = np.nan_to_num(poses - poses[:, ROOT, None]).astype(np.float32)
    # The intrinsics are not needed: both poses are in the file.
    lens = Camera(camera, size, (math.nan, math.nan), (math.nan, math.nan))
    activity_name = ""
    seen_by = Video(name, lens, activity_name, subject, fps, len(points))
    return Take(seen_by, points.astype(np.float32), relative, valid, activity)


def numbers(array: object, axes: int, where: str) -> np.ndarray:
    """An array (n, 17, axes) of numbers. Raises UserError."""
    found = np.asarray(array)
    if found.dtype.kind not in "fiu" or found.ndim != 3 or found.shape[1:] != (JOINTS, axes):
        raise UserError(
            f"{where} is {found.dtype} of shape {found.shape}, not numbers (frames, 17, {axes});"
            f" {REMEDY}"
        )
    if not len(found):
        raise UserError(f"{where} has no frames; {REMEDY}")
    return found


def flags(array: object, frames: int, where: str) -> Bools:
    """A flag for each frame: (n,), (n, 1) or (1, n), truth values or 0 and 1. Raises UserError."""
    return whole_numbers(array, frames, where, 0, 1).astype(bool)


def whole_numbers(array: object, frames: int, where: str, low: int, high: int) -> Ints:
    """One number from low to high for each frame: (n,), (n, 1) or (1, n). Raises UserError."""
    found = np.asarray(array)
    if (
        found.dtype.kind not in "bfiu"
        or found.size != frames
        or max(found.shape, default=0) != (frames)
    ):
        raise UserError(
            f"{where} is {found.dtype} of shape {found.shape}, not one number for each of the"
            f" {frames} frames; {REMEDY}"
        )
    values = found.reshape(-1).astype(np.float64)
    if not ((values >= low) & (values <= high) & (values == np.floor(values))).all():
        raise UserError(f"{where} has other values than {low} to {high}; {REMEDY}")
    return values.astype(np.int64)


def check_lengths(found: Mapping[str, int], wanted: Mapping[str, int], what: str) -> None:
    """Warn, in one line, of sequences whose lengths are not the published ones, or that lack."""
    missing = [name for name in wanted if name not in found]
    others = [name for name in found if found[name] != wanted[name]]
    told = []
    if missing:
        told.append(f"{len(missing)} of {len(wanted)} sequences are missing ({missing[0]} …)")
    if others:
        first = others[0]
        told.append(
            f"{len(others)} have another number of {what} than published ({first}:"
            f" {found[first]:,}, not {wanted[first]:,})"
        )
    if told:
        logger.warning("warning: not the whole of MPI-INF-3DHP: %s", "; ".join(told))


# --- The .npz files ----------------------------------------------------------------------------


def read_train(path: Path) -> Iterator[Take]:
    """data_train_3dhp.npz. Raises UserError."""
    table = _table(path)
    lengths = {}
    titles = sorted(table, key=str)
    for title in progress_bar(titles, "reading training sequences", Processes()):
        where, entry = f"{path}: {title!r}", table.pop(title)
        subject, _, sequence = str(title).partition(" ")
        if (subject, sequence) not in FRAME_TABLE:
            raise UserError(f"{where}: no such sequence, they are 'S1 Seq1' to 'S8 Seq2'; {REMEDY}")
        try:
            cameras, fps = entry
            fps, names = float(fps), list(cameras)
        except (TypeError, ValueError) as error:
            raise UserError(f"{where}: is not a pair of cameras and fps; {REMEDY}") from error
        if not names or not isinstance(cameras, dict) or not (math.isfinite(fps) and fps > 0):
            raise UserError(f"{where}: is not a pair of cameras and fps; {REMEDY}")
        for camera in sorted(names, key=lambda name: (len(str(name)), str(name))):
            arrays = _arrays(cameras.pop(camera), f"{where}, camera {camera}")
            name = f"{subject} {sequence} camera {camera}"
            video = (name, subject, str(camera), TRAIN_SIZE, fps)
            take = make_take(video, *arrays, f"{where}, camera {camera}")
            lengths[str(title)] = take.video.frames
            yield take
    wanted = {" ".join(key): frames for key, (frames, _) in FRAME_TABLE.items()}
    check_lengths(lengths, wanted, "frames")


def read_test(path: Path) -> Iterator[Take]:
    """data_test_3dhp.npz. Raises UserError."""
    table = _table(path)
    lengths = {}
    for title in sorted(table, key=str):
        where, entry = f"{path}: {title!r}", table.pop(title)
        if title not in TEST_TABLE:
            raise UserError(f"{where}: no such test sequence, they are TS1 to TS6; {REMEDY}")
        points, poses = _arrays(entry, where)
        if "valid" not in entry:
            raise UserError(f"{where}: no array 'valid'; {REMEDY}")
        frames = len(numbers(points, 2, f"{where}: 2D"))
        valid = flags(entry["valid"], frames, f"{where}: 'valid'")
        lengths[title] = int(valid.sum())
        yield make_take(test_video(title), points, poses, where, valid)
    check_lengths(lengths, {name: frames for name, (_, frames) in TEST_TABLE.items()}, "frames")


def test_video(name: str) -> tuple[str, str, str, tuple[int, int], float]:
    """What make_take() wants to know of a test sequence."""
    return name, name, "0", TEST_TABLE[name][0], TEST_FPS


def _table(path: Path) -> dict[Any, Any]:
    table = load_npz(path, ["data"], remedy=REMEDY)["data"]
    if not isinstance(table, dict) or not table:
        raise UserError(f"{path}: 'data' is no table of sequences; {REMEDY}")
    return table


def _arrays(entry: object, where: str) -> tuple[object, object]:
    for name in ("data_2d", "data_3d"):
        if not isinstance(entry, dict) or name not in entry:
            raise UserError(f"{where}: no array {name!r}; {REMEDY}")
    assert isinstance(entry, dict)  # for the type
    return entry["data_2d"], entry["data_3d"]
