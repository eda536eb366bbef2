"""Human3.6M's published file: a pickle of per-frame rows, read and written.

N frames, J = 17 joints. 2D poses are detections, 3D poses "2.5D": pixels, and as z the depth behind
the root in pixels at the root's scale. As published with MotionBERT; data made by
data/preprocess/mocap.py and synthetic.py has the same format.
"""

import os
import pickle
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data.safe_pickle import load_pickle
from data.sequences import SPLITS, Sequences, Video
from lib.arrays import Floats, Ints
from lib.camera import H36M_CAMERAS, H36M_FPS, Camera
from lib.errors import UserError
from lib.files import find_path, write_atomic
from lib.skeleton import H36M

Rows = dict[str, Any]

LARGEST_CONFIDENCE = 10.0  # a heatmap may go somewhat above 1; percent go farther

REMEDY = "get it again (README, Data), or make one with data/preprocess/synthetic.py"


# --- Reading ----------------------------------------------------------------------------------


def read(
    path: str | os.PathLike[str], splits: Sequence[str] = SPLITS
) -> Iterator[tuple[str, Sequences]]:
    """Yields (split, its videos), so that the caller can free one split before the next.

    Of a file without training videos, which is enough for an evaluation, only the test videos.
    Raises UserError.
    """
    tables = read_tables(path)
    return (
        (split, read_split(tables.pop(split), split, path)) for split in splits if split in tables
    )


def read_tables(path: str | os.PathLike[str]) -> dict[str, Rows]:
    """The pickle as it is: a table of columns for each split, or of the test split alone.

    Raises UserError.
    """
    found = find_path(path)
    if not found.is_file():
        there = sorted(p.name for p in found.parent.glob("*.pkl")) if found.parent.is_dir() else []
        raise UserError(
            f"{path}: no such file (there: {', '.join(there) or 'no .pkl file'}); {REMEDY}"
        )
    tables = load_pickle(found, REMEDY)
    if isinstance(tables, dict) and isinstance(tables.get("test"), dict) and "train" not in tables:
        return {"test": tables["test"]}
    for split in SPLITS:
        if not isinstance(tables, dict) or not isinstance(tables.get(split), dict):
            raise UserError(f"{path}: no table {split!r} inside; {REMEDY}")
    return tables


def read_split(rows: Rows, split: str, path: str | os.PathLike[str]) -> Sequences:
    """Check the rows of a split; `path` is for messages. Raises UserError."""
    path, joints = Path(path), H36M.num_joints
    if _array(rows, path, "source").shape == (0,):
        raise UserError(f"{path}: no frames in table {split!r}; {REMEDY}")
    pixels = _numbers(rows, path, "joint_2d", (joints, None))[..., :2]
    image = _numbers(rows, path, "joint3d_image", (joints, 3))
    source = _names(rows, path, "source")
    camera = _names(rows, path, "camera_name")
    if "confidence" in rows:
        has_axis = _array(rows, path, "confidence").ndim == 3
        confidence = _numbers(rows, path, "confidence", (joints, 1) if has_axis else (joints,))
        confidence = confidence.reshape(len(confidence), joints)
    else:
        confidence = np.ones(pixels.shape[:2])
    columns = {"joint_2d": pixels, "joint3d_image": image, "camera_name": camera}
    columns["confidence"] = confidence
    sizes = _sizes(rows, path)
    if sizes is not None:
        columns["width"] = columns["height"] = sizes
    action = factor = millimetres = None
    if split == "test":
        columns["action"] = action = _names(rows, path, "action")
        has_axis = _array(rows, path, "2.5d_factor").ndim == 2
        factor = _numbers(rows, path, "2.5d_factor", (1,) if has_axis else ()).reshape(-1)
        columns["2.5d_factor"] = factor
        millimetres = _numbers(rows, path, "joints_2.5d_image", (joints, 3))
        columns["joints_2.5d_image"] = millimetres
    for name, column in columns.items():
        if len(column) != len(source):
            raise UserError(
                f"{path}: column {name!r} has {len(column)} rows, 'source' {len(source)}"
            )
    _refuse_other_units(path, pixels, confidence, factor)
    videos = _videos(source, camera, action, sizes, path)
    return Sequences(videos, pixels, confidence, image, factor, millimetres)


def _refuse_other_units(
    path: Path, pixels: Floats, confidence: Floats, factor: Floats | None
) -> None:
    if np.abs(pixels).max() <= 2:
        raise UserError(f"{path}: column 'joint_2d' is within 2 of 0; it must be in pixels")
    if confidence.max() > LARGEST_CONFIDENCE:
        raise UserError(
            f"{path}: column 'confidence' goes up to {confidence.max():.4g}; it must be from 0 to 1"
        )
    if factor is not None and factor.min() <= 0:
        frame = int(np.argmax(factor <= 0))
        raise UserError(f"{path}: column '2.5d_factor' is not above 0 at frame {frame}")


def _videos(
    source: np.ndarray,
    camera: np.ndarray,
    action: np.ndarray | None,
    sizes: np.ndarray | None,
    path: Path,
) -> list[Video]:
    """A video ends where the source changes; what is the same in all its frames must be so.

    sizes: (N, 2) of the pictures, if the file has them; else the cameras must be Human3.6M's.
    """
    starts = np.flatnonzero(np.concatenate([[True], source[1:] != source[:-1]]))
    _refuse_unsorted(source, starts, path)
    cameras = {str(camera[frame]) for frame in [*starts, *_changes(camera)]}
    unknown = sorted(cameras - set(H36M_CAMERAS))
    if unknown and sizes is None:
        raise UserError(
            f"{path}: unknown camera {unknown[0]!r}; Human3.6M has {', '.join(H36M_CAMERAS)}; the"
            " pictures of another one need columns 'width' and 'height'"
        )
    for name, column in (("camera_name", camera), ("action", action), ("width, height", sizes)):
        inside: Any = [] if column is None else np.setdiff1d(_changes(column), starts)
        if len(inside):
            raise UserError(
                f"{path}: column {name!r} changes at frame {inside[0]}, inside a video; give the"
                " parts names of their own in 'source'"
            )
    lengths = np.diff(starts, append=len(source))
    return [
        Video(
            name=str(source[start]),
            camera=_camera(str(camera[start]), None if sizes is None else sizes[start]),
            action="" if action is None else str(action[start]),
            subject=_subject(str(source[start])),
            fps=H36M_FPS,
            frames=int(length),
        )
        for start, length in zip(starts, lengths, strict=True)
    ]


def _refuse_unsorted(source: np.ndarray, starts: Ints, path: Path) -> None:
    """Raise UserError where a video's rows are not all in one place."""
    first: dict[str, int] = {}
    for start in starts.tolist():
        name = str(source[start])
        if name in first:
            raise UserError(
                f"{path}: the rows of video {name!r} are not together (from row {first[name]} and"
                f" again from row {start}); sort the rows by video and frame"
            )
        first[name] = start


def _camera(name: str, size: np.ndarray | None) -> Camera:
    """One of Human3.6M's, or one of which only the size of its pictures is known."""
    known = H36M_CAMERAS.get(name)
    if size is None or (known and known.size == tuple(size.tolist())):
        return H36M_CAMERAS[name]
    unknown = (np.nan, np.nan)
    return Camera(name, (int(size[0]), int(size[1])), focal=unknown, center=unknown)


def _sizes(rows: Rows, path: Path) -> np.ndarray | None:
    """(N, 2) widths and heights of the pictures, None where the file has no such columns."""
    if "width" not in rows and "height" not in rows:
        return None
    sides = []
    for name in ("width", "height"):
        has_axis = _array(rows, path, name).ndim == 2
        column = _numbers(rows, path, name, (1,) if has_axis else ()).reshape(-1)
        if not ((column >= 1) & (column % 1 == 0)).all():
            raise UserError(f"{path}: column {name!r} must be whole numbers of pixels, 1 or more")
        sides.append(column.astype(int))
    if len(sides[0]) != len(sides[1]):
        raise UserError(f"{path}: columns 'width' and 'height' differ in length")
    return np.stack(sides, axis=-1)


def _changes(column: np.ndarray) -> Ints:
    """The frames that differ from the one before."""
    differs = column[1:] != column[:-1]
    return 1 + np.flatnonzero(differs.any(axis=-1) if column.ndim > 1 else differs)


def _subject(source: str) -> str:
    """'09' of 's_09_act_05_subact_02_ca_01'."""
    found = re.match(r"s_(.+?)_act_", source)
    return found[1] if found else ""


def _array(rows: Rows, path: Path, name: str) -> np.ndarray:
    if name not in rows:
        raise UserError(f"{path}: no column {name!r}; {REMEDY}")
    try:
        return np.asarray(rows[name])
    except ValueError as error:
        raise UserError(
            f"{path}: column {name!r} has rows of different lengths; {REMEDY}"
        ) from error


def _column(rows: Rows, path: Path, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A column as an array of `shape`, None standing for any length of two or more."""
    array = _array(rows, path, name)
    wanted = "(frames" + "".join(f", {n or '2+'}" for n in shape) + ")"
    fits = array.ndim == len(shape) + 1 and all(
        n == m or (n is None and m >= 2) for n, m in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        raise UserError(f"{path}: column {name!r} has shape {array.shape}, not {wanted}")
    return array


def _numbers(rows: Rows, path: Path, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
    array = _column(rows, path, name, shape)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path}: column {name!r} holds {array.dtype}, not numbers")
    finite = np.isfinite(array)
    if not finite.all():
        frame = int(np.argwhere(~finite)[0][0])
        raise UserError(f"{path}: column {name!r} is not finite at frame {frame}; remove the frame")
    return array


def _names(rows: Rows, path: Path, name: str) -> np.ndarray:
    """A column of text; bytes and whole numbers are names too."""
    array = _column(rows, path, name, ())
    if array.dtype.kind == "O" and all(
        isinstance(value, str | bytes | int) and not isinstance(value, bool) for value in array
    ):
        array = np.array([v.decode("latin-1") if isinstance(v, bytes) else str(v) for v in array])
    if array.dtype.kind == "S":
        array = np.char.decode(array, "latin-1")
    if array.dtype.kind in "iu":
        array = array.astype(str)
    if array.dtype.kind != "U":
        raise UserError(f"{path}: column {name!r} holds {array.dtype}, not names")
    return array


# --- Writing ----------------------------------------------------------------------------------


def write(path: Path, train: Sequences, test: Sequences) -> None:
    """Write both splits, the test one with its ground truth. Raises UserError."""
    content = {"train": _rows(train), "test": _rows(test) | _truth(test)}
    with write_atomic(path) as file:
        # Protocol 4 rebuilds arrays with the same constructors as the published file.
        pickle.dump(content, file, protocol=4)


def _rows(sequences: Sequences) -> Rows:
    return {
        "joint_2d": sequences.joint_2d.astype(np.float32),
        "confidence": sequences.confidence[..., None].astype(np.float32),
        "joint3d_image": sequences.joint_3d.astype(np.float32),
        "camera_name": [v.camera.name for v in sequences.videos for _ in range(v.frames)],
        "source": [v.name for v in sequences.videos for _ in range(v.frames)],
    }


def _truth(sequences: Sequences) -> Rows:
    if sequences.factor is None or sequences.joint_3d_mm is None:
        raise ValueError("a test split needs a ground truth")
    return {
        "action": [v.action for v in sequences.videos for _ in range(v.frames)],
        "2.5d_factor": sequences.factor.astype(np.float32),
        "joints_2.5d_image": sequences.joint_3d_mm.astype(np.float32),
    }
