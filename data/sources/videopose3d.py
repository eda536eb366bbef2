"""Human3.6M as VideoPose3D published it: 3D poses in the world and detections, in two .npz files.

`data_3d_h36m.npz`, positions_3d[subject][action]: (n, 32, 3) metres, z up.
`data_2d_h36m_*.npz`, positions_2d[subject][action]: for each of the four cameras (m, 17, 2) pixels,
m at least n; more frames than n are cut off. Both are pickled dicts inside an .npz.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data.safe_pickle import load_npz
from data.sequences import SPLITS, Sequences, Video
from data.sources.h36m_cameras import CAMERAS, PLACEMENTS, project
from lib.arrays import Floats
from lib.camera import H36M_CAMERAS, H36M_FPS
from lib.cli import logger
from lib.errors import UserError
from lib.files import find_path, listing
from lib.skeleton import H36M

POSES = "data_3d_h36m.npz"
DETECTIONS = "data_2d_h36m_cpn_ft_h36m_dbb.npz"
SUBJECTS = {"train": ("S1", "S5", "S6", "S7", "S8"), "test": ("S9", "S11")}
LEFT_OUT = ("S11", "Directions")  # its recording is damaged; VideoPose3D's file has not got it
RECORDED_JOINTS = 32
# Human3.6M's 17 among the 32.
JOINTS = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
REMEDY = (
    "get it again (README, Data), or make one with data/preprocess/synthetic.py --format"
    " videopose3d"
)
LARGEST = 50.0  # metres: a person farther away was measured in another unit

# The check of the cameras looks at every so many frames. A detector's median error is a few pixels;
# the same pose seen by another camera lies tens or hundreds of pixels away.
CHECKED_EVERY = 25
NEAR, FAR = 50.0, 100.0

Table = dict[str, dict[str, Any]]  # subject -> action -> its arrays


@dataclass(frozen=True)
class Take:
    """An action of a subject: world (n, 32, 3) metres; pixels: four arrays (m >= n, 17, 2+)."""

    subject: str
    action: str
    world: Floats
    pixels: Sequence[Floats]

    @property
    def name(self) -> str:
        return f"{self.subject} {self.action!r}"

    def in_camera(self, camera: str, every: int = 1) -> Floats:
        """(n / every, 17, 3) metres in the camera's axes."""
        world = 1000.0 * self.world[::every, JOINTS].astype(np.float64)
        return PLACEMENTS[self.subject][camera].to_camera(world) / 1000.0


def read(
    path: str | os.PathLike[str], splits: Sequence[str] = SPLITS
) -> Iterator[tuple[str, Sequences]]:
    """Yields (split, its videos), so that the caller can free one split before the next.

    path: the file of detections; that of the 3D poses lies beside it. Raises UserError.
    """
    detections = find_path(path)
    poses = detections.parent / POSES
    for file in (detections, poses):
        if not file.is_file():
            there = listing(file.parent, "data_*d_h36m*.npz")
            raise UserError(f"{file}: no such file (there: {there}); {REMEDY}")
    world, pixels = read_table(poses, "positions_3d"), read_table(detections, "positions_2d")
    return _read_splits(world, pixels, poses, detections, splits)


def _read_splits(
    world: Table, pixels: Table, poses: Path, detections: Path, splits: Sequence[str]
) -> Iterator[tuple[str, Sequences]]:
    for split in splits:
        takes = [
            take
            for subject in _present(world, split, poses)
            for take in _takes(subject, world.pop(subject), pixels, poses, detections)
        ]
        if not takes:
            raise UserError(f"{poses}: no action of the {split} split inside; {REMEDY}")
        _check_cameras(takes, detections)
        yield split, _sequences(takes, with_truth=split == "test")


def read_table(path: Path, name: str) -> Table:
    """positions_3d or positions_2d, checked to be a table of subjects and actions."""
    content = load_npz(path, [name], ["metadata"], REMEDY)
    table = content[name]
    if not isinstance(table, dict) or not all(isinstance(v, dict) for v in table.values()):
        raise UserError(f"{path}: {name!r} is no table of subjects and actions; {REMEDY}")
    _check_layout(content.get("metadata"), path)
    return table


def _check_layout(metadata: Any, path: Path) -> None:
    """The file may say which joints it has: the number, and which of them mirror each other."""
    if not isinstance(metadata, Mapping):
        return
    sides = [[j for j, side in enumerate(H36M.sides) if side == name] for name in ("left", "right")]
    symmetry = metadata.get("keypoints_symmetry", sides)
    try:
        found = [sorted(int(joint) for joint in side) for side in symmetry]
        joints = int(metadata.get("num_joints", H36M.num_joints))
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: its metadata cannot be read; {REMEDY}") from error
    if joints != H36M.num_joints or found != sides:
        layout = metadata.get("layout_name", "another layout")
        raise UserError(
            f"{path}: {joints} keypoints of {layout!r}, not Human3.6M's 17 joints; use a detector's"
            " file that was fine-tuned on Human3.6M (cpn_ft_h36m_dbb), or gt"
        )


def _present(world: Table, split: str, path: Path) -> list[str]:
    """The subjects of a split that the file has; a split without some of them is told."""
    present = [subject for subject in SUBJECTS[split] if subject in world]
    missing = [subject for subject in SUBJECTS[split] if subject not in world]
    if not present:
        raise UserError(
            f"{path}: none of the subjects {', '.join(missing)} of the {split} split inside;"
            f" {REMEDY}"
        )
    if missing:
        logger.warning(
            "warning: %s: no subject %s: the %s split is not the protocol's",
            path,
            ", ".join(missing),
            split,
        )
    return present


def _takes(
    subject: str, actions: dict[str, Any], table: Table, poses: Path, detections: Path
) -> Iterator[Take]:
    if subject not in table:
        raise UserError(f"{detections}: no subject {subject}, which {poses.name} has; {REMEDY}")
    for action, world in actions.items():
        if (subject, action) == LEFT_OUT:
            continue
        name = f"{subject} {action!r}"
        if action not in table[subject]:
            raise UserError(f"{detections}: no {name}, which {poses.name} has; {REMEDY}")
        cameras = table[subject][action]
        is_list = isinstance(cameras, list | tuple) or np.ndim(cameras) > 0
        if not is_list or len(cameras) != len(CAMERAS):
            count = len(cameras) if is_list else "no"
            raise UserError(
                f"{detections}: {name} has {count} cameras, not the four {', '.join(CAMERAS)}"
            )
        array = _numbers(world, (RECORDED_JOINTS, 3), f"{poses}: {name}")
        pixels = [
            _numbers(found, (H36M.num_joints, 2), f"{detections}: {name}, camera {camera}")
            for camera, found in zip(CAMERAS, cameras, strict=True)
        ]
        for camera, found in zip(CAMERAS, pixels, strict=True):
            if len(found) < len(array):
                raise UserError(
                    f"{detections}: {name}, camera {camera}: {len(found)} frames, fewer than the"
                    f" {len(array)} of {poses.name}; {REMEDY}"
                )
        if np.abs(array).max() > LARGEST:
            raise UserError(
                f"{poses}: {name}: a joint is {np.abs(array).max():,.0f} m away; the poses must be"
                " in metres"
            )
        yield Take(subject, str(action), array, pixels)


def _numbers(array: Any, shape: tuple[int, int], where: str) -> Floats:
    """An array (frames, *shape); of 2D poses more than x and y are let in and not used."""
    try:
        array = np.asarray(array)
    except ValueError as error:
        raise UserError(f"{where}: rows of different lengths; {REMEDY}") from error
    columns = (2, 3) if shape[1] == 2 else (3,)
    fits = array.ndim == 3 and len(array) and array.shape[1] == shape[0]
    if not fits or array.shape[2] not in columns:
        raise UserError(
            f"{where}: an array of shape {array.shape}, not (frames, {shape[0]}, {shape[1]})"
        )
    if array.dtype.kind not in "fiu":
        raise UserError(f"{where}: holds {array.dtype}, not numbers")
    finite = np.isfinite(array).all((1, 2))
    if not finite.all():
        raise UserError(f"{where}: not finite at frame {int(finite.argmin())}; {REMEDY}")
    return array


def _check_cameras(takes: Sequence[Take], path: Path) -> None:
    """Project the poses of each subject into each camera: the detections must lie near."""
    for subject in dict.fromkeys(take.subject for take in takes):
        mine = [take for take in takes if take.subject == subject]
        apart = np.array(
            [[_distance(mine, number, camera) for camera in CAMERAS] for number in range(4)]
        )
        for number, camera in enumerate(CAMERAS):
            best = int(apart[number].argmin())
            found, nearest = apart[number, number], apart[number, best]
            if nearest < NEAR and found > 4 * nearest + 10:
                raise UserError(
                    f"{path}: {subject}: the detections of camera {camera} lie {found:,.0f} pixels"
                    f" from the poses seen by it, and {nearest:,.0f} from those seen by"
                    f" {CAMERAS[best]}; the order must be {', '.join(CAMERAS)}"
                )
            if found > FAR:
                logger.warning(
                    "warning: %s: %s: the detections of camera %s lie %.0f pixels (median) from the"
                    " projected poses: are joints, frames and cameras those of the 3D file?",
                    path,
                    subject,
                    camera,
                    found,
                )


def _distance(takes: Sequence[Take], number: int, camera: str) -> float:
    """Median distance in pixels of camera `number`'s detections from the poses seen by `camera`."""
    distances = []
    for take in takes:
        points = take.in_camera(camera, CHECKED_EVERY)
        pixels = take.pixels[number][: len(take.world) : CHECKED_EVERY, :, :2]
        in_front = points[..., 2] > 0.1
        apart = project(points[in_front], camera) - pixels[in_front]
        distances.append(np.linalg.norm(apart, axis=-1))
    return float(np.median(np.concatenate(distances) if distances else np.inf))


def _sequences(takes: Sequence[Take], *, with_truth: bool) -> Sequences:
    """Every take in every camera. joint_3d: metres from the root, in the camera's axes."""
    videos = [
        Video(
            name=f"{take.subject} {take.action} {camera}",
            camera=H36M_CAMERAS[camera],
            action=take.action.split(" ")[0],
            subject=take.subject,
            fps=H36M_FPS,
            frames=len(take.world),
        )
        for take in takes
        for camera in CAMERAS
    ]
    count = sum(video.frames for video in videos)
    joint_2d = np.empty((count, H36M.num_joints, 2), np.float32)
    joint_3d = np.empty((count, H36M.num_joints, 3), np.float32)
    end = 0
    for take in takes:
        for number, camera in enumerate(CAMERAS):
            rows = slice(end, end + len(take.world))
            end = rows.stop
            joint_2d[rows] = take.pixels[number][: len(take.world), :, :2]
            points = take.in_camera(camera)
            joint_3d[rows] = points - points[:, H36M.root, None]
    confidence = np.broadcast_to(np.float32(1), joint_2d.shape[:2])
    sequences = Sequences(videos, joint_2d, confidence, joint_3d)
    if not with_truth:
        return sequences
    # One unit of the label is a metre; half the image's width is one unit of the screen.
    factor = 2000.0 / sequences.image_size[:, 0]
    return Sequences(videos, joint_2d, confidence, joint_3d, factor, 1000 * joint_3d)
