"""Invented motion in both layouts of MPI-INF-3DHP: the files as published, and the two .npz."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.bodies import random_body
from data.cameras import View
from data.sources.mpi_inf_3dhp import (
    ACTIVITIES,
    CAMERAS,
    FRAME_TABLE,
    TEST,
    TEST_TABLE,
    TRAIN,
    TRAIN_SIZE,
)
from data.sources.mpi_inf_3dhp_raw import (
    ANNOTATION,
    CHOSEN,
    RAW_JOINTS,
    TEST_ANNOTATION,
    optional_package,
)
from data.sources.synthetic import perform, rest_pose
from lib.camera import Camera
from lib.files import write_atomic
from lib.skeleton import H36M, MPI_INF_3DHP

RAW, RAW_TEST = "mpi_inf_3dhp", "mpi_inf_3dhp_test_set"
ALL_CAMERAS = 14
VALID_SHARE = 0.8
# One of data/sources/synthetic.py for each of ACTIVITIES.
ACTION_OF = ("walk", "squat", "sit", "squat", "sit", "jump", "wave")
# Where Human3.6M's joints have other names; the rest have the same.
OTHER_NAMES = {"head_top": "head", "neck": "thorax", "head": "neck"}
SAME_JOINTS = [H36M.index(OTHER_NAMES.get(name, name)) for name in MPI_INF_3DHP.names]


@dataclass(frozen=True)
class Filmed:
    """pixels: (n, 17, 2); points: (n, 17, 3) mm in the camera's axes."""

    pixels: np.ndarray
    points: np.ndarray


def write(folder: Path, *, num_frames: int, seed: int) -> int:
    """Write the .npz files and the folder RAW with the same content; returns their frames.

    Raises UserError, before anything is written if a package is missing.
    """
    scipy_io, h5py = (optional_package(name, folder / RAW) for name in ("scipy.io", "h5py"))
    train: dict[str, Any] = {}
    test: dict[str, Any] = {}
    for number, (subject, sequence) in enumerate(FRAME_TABLE):
        rng = np.random.default_rng([seed, 0, number])
        motion = _perform(rng, int(rng.integers(len(ACTIVITIES))), num_frames)
        views = [_film(rng, motion, TRAIN_SIZE, camera) for camera in range(ALL_CAMERAS)]
        fps = FRAME_TABLE[subject, sequence][1]
        train[f"{subject} {sequence}"] = [{str(c): _entry(views[c]) for c in CAMERAS}, fps]
        with write_atomic(folder / RAW / subject / sequence / ANNOTATION) as file:
            cells = {
                "annot2": _cells(_raw(view.pixels) for view in views),
                "univ_annot3": _cells(_raw(view.points) for view in views),
                "cameras": np.arange(ALL_CAMERAS)[None],
            }
            scipy_io.savemat(file, cells, do_compression=True)
    for number, (name, (size, _)) in enumerate(TEST_TABLE.items()):
        rng = np.random.default_rng([seed, 1, number])
        activity = number % len(ACTIVITIES)
        view = _film(rng, _perform(rng, activity, num_frames), size, 0)
        valid = rng.random(num_frames) < VALID_SHARE
        valid[num_frames // 2] = True
        test[name] = {**_entry(view), "valid": valid.astype(np.float64)}
        with (
            write_atomic(folder / RAW / RAW_TEST / name / TEST_ANNOTATION) as file,
            h5py.File(file, "w") as data,
        ):
            data["annot2"], data["univ_annot3"] = view.pixels[:, None], view.points[:, None]
            data["valid_frame"] = valid[:, None].astype(np.float64)
            data["activity_annotation"] = np.full((num_frames, 1), activity + 1.0)
    for path, table in ((TRAIN, train), (TEST, test)):
        with write_atomic(folder / path) as file:
            np.savez_compressed(file, data=np.array(table, dtype=object))
    return num_frames * (len(train) * len(CAMERAS) + len(test))


def _perform(rng: np.random.Generator, activity: int, num_frames: int) -> np.ndarray:
    """World joints (n, 17, 3) in mm, in MPI-INF-3DHP's order."""
    offsets = rest_pose() * random_body(rng)[:, None]
    return perform(rng, ACTION_OF[activity], offsets, num_frames)[:, SAME_JOINTS]


def _film(
    rng: np.random.Generator, motion: np.ndarray, size: tuple[int, int], camera: int
) -> Filmed:
    """From a point far enough away to see nearly all of it."""
    low, high = motion.min((0, 1)), motion.max((0, 1))
    angle = 2 * np.pi * (camera + rng.random()) / ALL_CAMERAS
    distance = 4000.0 + np.linalg.norm(high - low)
    offset = distance * np.array([np.cos(angle), np.sin(angle), rng.uniform(0, 0.2)])
    focal = 0.75 * size[0]
    lens = Camera(str(camera), size, (focal, focal), (size[0] / 2, size[1] / 2))
    points = View(lens, (low + high) / 2 + offset, (low + high) / 2).to_camera(motion)
    return Filmed(lens.project(points), points)


def _entry(view: Filmed) -> dict[str, np.ndarray]:
    return {"data_2d": view.pixels, "data_3d": view.points}


def _raw(joints: np.ndarray) -> np.ndarray:
    """(n, 17, D) -> (n, 28 · D); the joints that nobody uses lie at the first one."""
    raw = np.repeat(joints[:, :1], RAW_JOINTS, axis=1)
    raw[:, CHOSEN] = joints
    return raw.reshape(len(raw), -1)


def _cells(arrays: Iterator[np.ndarray]) -> np.ndarray:
    """A MATLAB cell column."""
    rows = list(arrays)
    column = np.empty((len(rows), 1), dtype=object)
    for number, row in enumerate(rows):
        column[number, 0] = row
    return column
