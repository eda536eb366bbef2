"""People in videos of several calibrated cameras: who is who, and where their joints truly are.

C cameras, F frames, J = 33 keypoints of BlazePose.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from demo.images import in_order
from demo.timeline import averaged
from lib.errors import UserError
from lib.files import listing
from lib.keypoints import BLAZEPOSE_33
from tests.benchmarks.rig import Calibrated, Points, read_qualisys, triangulate, turned
from tests.benchmarks.seen import Seen

LIMBS = [
    BLAZEPOSE_33.names.index(f"{side}_{part}")
    for side in ("left", "right")
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
]
LIMIT = 20.0  # pixels: a camera that misses by more may be left out
FAR = 60.0  # pixels that cameras miss the same person by, at most
MIRRORED = 0.6  # of the miss is left where left and right were exchanged
STEADY_SECONDS = 0.025  # of the truth's average: motion to 6 Hz is kept


@dataclass(frozen=True)
class Folder:
    """A scene's cameras and videos. Raises UserError where something is missing."""

    path: Path

    @property
    def videos(self) -> list[Path]:
        found = in_order(list((self.path / "videos").glob("*.mp4")))
        if len(found) < 3:
            there = (
                listing(self.path / "videos") if (self.path / "videos").is_dir() else "no folder"
            )
            raise UserError(f"{self.path}/videos: three videos or more are needed ({there})")
        return found

    def cameras(self) -> list[Calibrated]:
        """Of the videos, in their order."""
        files = list((self.path / "calibration").glob("*.qca.txt"))
        if len(files) != 1:
            raise UserError(f"{self.path}/calibration: one .qca.txt file is needed")
        by_name = {camera.name: camera for camera in read_qualisys(files[0])}
        names = [video.stem for video in self.videos]
        missing = [name for name in names if name not in by_name]
        if missing:
            raise UserError(f"{files[0]}: no camera is called {', '.join(missing)}")
        return [by_name[name] for name in names]


@dataclass(frozen=True)
class Scene:
    """A person seen by C cameras. keypoints: (C, F, J, 3)."""

    cameras: list[Calibrated]
    keypoints: np.ndarray

    def truth(self, left_out: int | None = None) -> Points:
        """(F, J) points from all cameras but one."""
        chosen = [index for index in range(len(self.cameras)) if index != left_out]
        seen = self.keypoints[chosen].astype(np.float64)
        cameras = [self.cameras[index] for index in chosen]
        return triangulate(cameras, seen[..., :2], seen[..., 2] ** 2, LIMIT)


def miss_of(cameras: Sequence[Calibrated], keypoints: np.ndarray) -> np.ndarray:
    """(C, F, J, 3) -> (F,) pixels: how badly the cameras agree about the limbs."""
    limbs = keypoints[:, :, LIMBS].astype(np.float64)
    found = triangulate(cameras, limbs[..., :2], limbs[..., 2] ** 2)
    return np.median(np.minimum(found.miss, 10 * FAR), axis=-1)


def matched(cameras: Sequence[Calibrated], views: Sequence[Seen]) -> list[tuple[int, ...]]:
    """The rows of those whom all cameras see, the best agreement first."""
    choices = {
        rows: float(np.median(miss_of(cameras, _keypoints(views, rows)[:, ::10])))
        for rows in product(*(range(len(view.keypoints)) for view in views))
    }
    people: list[tuple[int, ...]] = []
    for rows in sorted(choices, key=lambda rows: choices[rows]):
        known = any(a == b for other in people for a, b in zip(rows, other, strict=True))
        if choices[rows] <= FAR and not known:
            people.append(rows)
    return people


def _keypoints(views: Sequence[Seen], rows: Sequence[int]) -> np.ndarray:
    return np.stack([view.keypoints[row] for view, row in zip(views, rows, strict=True)])


def with_sides_mended(cameras: Sequence[Calibrated], keypoints: np.ndarray) -> np.ndarray:
    """(C, F, J, 3): left and right are exchanged in those frames of a camera in which the cameras
    agree much better then.
    """
    best, mended = MIRRORED * miss_of(cameras, keypoints), keypoints
    for camera in range(len(cameras)):
        changed = keypoints.copy()
        changed[camera] = keypoints[camera][:, list(BLAZEPOSE_33.mirror)]
        miss = miss_of(cameras, changed)
        mended = np.where((miss < best)[None, :, None, None], changed, mended)
        best = np.minimum(best, miss)
    return mended


def scenes(cameras: list[Calibrated], views: Sequence[Seen]) -> dict[tuple[int, ...], Scene]:
    """Of each person, by their rows in the views. Raises UserError."""
    people = {rows: _keypoints(views, rows) for rows in matched(cameras, views)}
    if not people:
        raise UserError("the cameras see nobody in common; is the calibration of these videos?")
    aligned = cameras
    for _ in range(2):
        mended = {rows: with_sides_mended(aligned, person) for rows, person in people.items()}
        limbs = [one[:, ::2, LIMBS].reshape(len(cameras), -1, 3) for one in mended.values()]
        points = np.concatenate(limbs, axis=1).astype(np.float64)
        aligned = turned(cameras, points[..., :2], points[..., 2] ** 2)
    return {rows: Scene(aligned, with_sides_mended(aligned, one)) for rows, one in people.items()}


def joints_of(points: np.ndarray) -> np.ndarray:
    """(..., 33, 3) in space -> (..., 17, 3), as the detector's 2D becomes Human3.6M's joints."""
    return np.stack([np.einsum("...jd,j->...d", points, x) for x, _, _ in BLAZEPOSE_33.joints], -2)


@dataclass(frozen=True)
class Truth:
    """What a camera should find. joints: (F, 17, 3) mm in the world; sure: (F,) whether they are to
    be trusted, and the camera sees the person; times: (F,) seconds.
    """

    camera: Calibrated
    joints: np.ndarray
    sure: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, scene: Scene, camera: int, times: np.ndarray) -> "Truth":
        found = scene.truth(camera)
        good = np.isfinite(found.places).all(axis=-1)
        places = found.places.copy()
        for joint in range(places.shape[1]):
            known = np.flatnonzero(good[:, joint])
            for axis in range(3):
                values = places[known, joint, axis]
                places[:, joint, axis] = np.interp(times, times[known], values)
        sure = (found.miss[:, LIMBS] < 2 * LIMIT).all(axis=1) & good.all(axis=1)
        sure &= scene.keypoints[camera, :, :, 2].any(axis=-1)
        steady_places = averaged(joints_of(places), times, STEADY_SECONDS)
        return cls(scene.cameras[camera], steady_places, sure, times)

    @property
    def pose(self) -> np.ndarray:
        """(F, 17, 3) in the camera's axes, root at 0."""
        own = self.camera.to_camera(self.joints)
        return own - own[:, :1]


def check(name: str, cameras: Sequence[Calibrated], scene: Scene) -> dict[str, object]:
    """How well the truth is known: pixels that the cameras miss its joints by, and mm between the
    limbs from all cameras and from all but one.
    """
    found, count = scene.truth(), len(cameras)
    apart = [
        np.linalg.norm(scene.truth(camera).places - found.places, axis=-1)[:, LIMBS]
        for camera in range(count)
    ]
    turns = [
        np.rad2deg(np.linalg.norm(cv2.Rodrigues(new.rotation @ old.rotation.T)[0]))
        for new, old in zip(scene.cameras, cameras, strict=True)
    ]
    return {
        "who": name,
        "frames": len(found.places),
        "miss px": round(float(np.median(found.miss)), 1),
        "limbs px": round(float(np.median(found.miss[:, LIMBS])), 1),
        "without a camera, limbs mm": round(float(np.nanmedian(apart)), 1),
        "cameras turned °": " ".join(f"{turn:.2f}" for turn in turns),
    }
