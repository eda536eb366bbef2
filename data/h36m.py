"""Human3.6M: the published pickle of per-frame rows, checked and cut into clips of arrays.

N frames, J = 17 joints, T frames of a clip. The pickle's format is SH-detected 2D with 2.5D ground
truth, as published with MotionBERT; `synthetic.py` and `mocap.py` write the same.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.clips import SPLITS, ArrayClips, ArrayWriter, Clips, clip_index
from data.safe_pickle import load_pickle
from lib.camera import H36M_CAMERAS, to_screen
from lib.errors import UserError
from lib.evaluation import TestFrames
from lib.files import find_path
from lib.skeleton import H36M

PICKLE_REMEDY = "get it again (README, Data), or make one with data/preprocess/synthetic.py"


@dataclass(frozen=True)
class Frames:
    """The rows of one split.

    pose_2d (N, J, 3): normalised x, y and confidence; pose_3d (N, J, 3): normalised position on
    the screen and root-relative depth; source (N,): the video each frame belongs to.
    """

    pose_2d: np.ndarray
    pose_3d: np.ndarray
    source: np.ndarray
    image_size: np.ndarray


def read_pickle(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The published pickle as it is. Raises UserError."""
    found = find_path(path)
    if not found.is_file():
        there = sorted(p.name for p in found.parent.glob("*.pkl")) if found.parent.is_dir() else []
        raise UserError(
            f"{path}: no such file (there: {', '.join(there) or 'no .pkl file'}); {PICKLE_REMEDY}"
        )
    rows = load_pickle(found, PICKLE_REMEDY)
    for split in SPLITS:
        if not isinstance(rows, dict) or not isinstance(rows.get(split), dict):
            raise UserError(f"{path}: no table {split!r} inside; {PICKLE_REMEDY}")
    return rows


def _array(rows: dict[str, Any], path: Path, name: str) -> np.ndarray:
    if name not in rows:
        raise UserError(f"{path}: no column {name!r}; {PICKLE_REMEDY}")
    try:
        return np.asarray(rows[name])
    except ValueError as error:
        raise UserError(
            f"{path}: column {name!r} has rows of different lengths; {PICKLE_REMEDY}"
        ) from error


def _column(rows: dict[str, Any], path: Path, name: str, shape: tuple[int | None, ...]) -> Any:
    """A column as an array of `shape`, None standing for any length of two or more."""
    array = _array(rows, path, name)
    wanted = "(frames" + "".join(f", {n or '2+'}" for n in shape) + ")"
    fits = array.ndim == len(shape) + 1 and all(
        n == m or (n is None and m >= 2) for n, m in zip(shape, array.shape[1:], strict=True)
    )
    if not fits:
        raise UserError(f"{path}: column {name!r} has shape {array.shape}, not {wanted}")
    return array


def _numbers(rows: dict[str, Any], path: Path, name: str, shape: tuple[int | None, ...]) -> Any:
    array = _column(rows, path, name, shape)
    if array.dtype.kind not in "fiu":
        raise UserError(f"{path}: column {name!r} holds {array.dtype}, not numbers")
    finite = np.isfinite(array)
    if not finite.all():
        frame = int(np.argwhere(~finite)[0][0])
        raise UserError(f"{path}: column {name!r} is not finite at frame {frame}; remove the frame")
    return array


def _names(rows: dict[str, Any], path: Path, name: str) -> np.ndarray:
    array = _column(rows, path, name, ())
    if array.dtype.kind == "O" and all(isinstance(value, str) for value in array):
        array = array.astype(str)
    if array.dtype.kind != "U" and len(array):  # an empty list is of no kind
        raise UserError(f"{path}: column {name!r} holds {array.dtype}, not names")
    return array


def _image_sizes(camera_names: np.ndarray, path: Path) -> np.ndarray:
    """(N,) names -> (N, 2) width and height in pixels."""
    sizes = np.zeros((len(camera_names), 2))
    for camera in H36M_CAMERAS.values():
        sizes[camera_names == camera.name] = camera.size
    unknown = sizes[:, 0] == 0
    if unknown.any():
        raise UserError(
            f"{path}: unknown camera {str(camera_names[unknown][0])!r};"
            f" Human3.6M has {', '.join(H36M_CAMERAS)}"
        )
    return sizes


def read_frames(rows: dict[str, Any], path: str | os.PathLike[str]) -> Frames:
    """Check and normalise the rows of one split; `path` is for messages. Raises UserError."""
    path, joints = Path(path), H36M.num_joints
    pixels = _numbers(rows, path, "joint_2d", (joints, None))[..., :2]
    image = _numbers(rows, path, "joint3d_image", (joints, 3))
    source = _names(rows, path, "source")
    sizes = _image_sizes(_names(rows, path, "camera_name"), path)
    if "confidence" in rows:
        has_axis = _array(rows, path, "confidence").ndim == 3
        confidence = _numbers(rows, path, "confidence", (joints, 1) if has_axis else (joints,))
        confidence = confidence.reshape(len(confidence), joints)
    else:
        confidence = np.ones(pixels.shape[:2])
    lengths = {
        "joint_2d": pixels,
        "joint3d_image": image,
        "source": source,
        "confidence": confidence,
    }
    for name, column in lengths.items():
        if len(column) != len(sizes):
            raise UserError(
                f"{path}: column {name!r} has {len(column)} rows, 'camera_name' {len(sizes)}"
            )

    pose_2d = np.empty((*pixels.shape[:2], 3), np.float32)
    pose_2d[..., :2] = to_screen(pixels.astype(np.float64), sizes)
    pose_2d[..., 2] = confidence
    pose_3d = to_screen(image.astype(np.float64), sizes).astype(np.float32)
    return Frames(pose_2d, pose_3d, source, sizes)


def read_test_frames(
    rows: dict[str, Any], path: str | os.PathLike[str], source: np.ndarray, image_size: np.ndarray
) -> TestFrames:
    """What the protocol needs of the test split's rows. Raises UserError."""
    path = Path(path)
    action = _names(rows, path, "action")
    factor = _numbers(rows, path, "2.5d_factor", ())
    millimetres = _numbers(rows, path, "joints_2.5d_image", (H36M.num_joints, 3))
    for name, column in (
        ("action", action),
        ("2.5d_factor", factor),
        ("joints_2.5d_image", millimetres),
    ):
        if len(column) != len(source):
            raise UserError(
                f"{path}: column {name!r} has {len(column)} rows, 'source' {len(source)}"
            )
    actions, action_ids = np.unique(action, return_inverse=True)
    videos, video_ids = np.unique(source, return_inverse=True)
    return TestFrames(
        actions=actions.tolist(),
        videos=videos.tolist(),
        action=action_ids.astype(np.int32),
        video=video_ids.astype(np.int32),
        factor=factor.astype(np.float64),
        pose_3d_mm=millimetres.astype(np.float32),
        image_size=image_size.astype(np.float32),
    )


def load_test_frames(clips: Clips, pickle_path: Path) -> tuple[np.ndarray, TestFrames]:
    """The (clips, T) frame ids of a test split, and what the protocol needs of its frames.

    A released clip folder keeps neither, so the pickle is read for them. It lacks the last video's
    clip if that video is shorter than a clip. Raises UserError.
    """
    if isinstance(clips, ArrayClips):
        return clips.frame_ids, clips.test_frames()
    rows = read_pickle(pickle_path)["test"]
    frames = read_frames(rows, pickle_path)
    ids = clip_index(frames.source, clips.n_frames, stride_of("test", clips.n_frames))
    if len(ids) == len(clips) + 1 and len(np.unique(ids[-1])) < clips.n_frames:
        ids = ids[:-1]
    if len(ids) != len(clips):
        raise UserError(
            f"{clips.where}: {len(clips)} clips, {pickle_path} gives {len(ids)}; they do not belong"
            " together: slice anew with data/preprocess/h36m.py"
        )
    return ids, read_test_frames(rows, pickle_path, frames.source, frames.image_size)


def stride_of(split: str, n_frames: int) -> int:
    """Clips overlap by two thirds in training, not at all in testing."""
    return max(1, n_frames // 3) if split == "train" else n_frames


def slice_h36m(path: str | os.PathLike[str], directory: Path, n_frames: int) -> dict[str, int]:
    """Cut the pickle's videos into clips and write `directory` (H36M-243). Raises UserError.

    Returns the number of clips of each split. Until all is written, an older data set stays.
    """
    rows = read_pickle(path)
    counts = {}
    with ArrayWriter(directory, n_frames, made_from=Path(path).name) as writer:
        for split in SPLITS:
            table = rows.pop(split)
            frames = read_frames(table, path)
            clips = clip_index(frames.source, n_frames, stride_of(split, n_frames))
            if not len(clips):
                raise UserError(f"{path}: no frames in table {split!r}; {PICKLE_REMEDY}")
            test = None
            if split == "test":
                test = read_test_frames(table, path, frames.source, frames.image_size)
            writer.add(split, frames.pose_2d, frames.pose_3d, clips, test)
            counts[split] = len(clips)
    return counts
