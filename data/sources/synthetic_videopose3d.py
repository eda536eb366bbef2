"""Invented motion in the layout of VideoPose3D's files, filmed where Human3.6M's cameras stand.

OpenCV turns, projects and distorts, so that these files check data/sources/videopose3d.py, which
does it by itself.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from data.bodies import random_body
from data.cameras import image_and_depth
from data.detector_noise import detect
from data.sources.h36m_cameras import CAMERAS, DISTORTION, PLACEMENTS, Placement
from data.sources.synthetic import ACTIONS, perform, rest_pose
from data.sources.videopose3d import DETECTIONS, JOINTS, POSES, RECORDED_JOINTS, SUBJECTS
from lib.camera import H36M_CAMERAS
from lib.files import write_atomic
from lib.skeleton import H36M

GROUND_TRUTH = "data_2d_h36m_gt.npz"
FILES = (POSES, DETECTIONS, GROUND_TRUTH)
TAKES = ("", " 1")  # Human3.6M has each action twice: "Walking" and "Walking 1"


def write(folder: Path, *, num_frames: int, seed: int) -> int:
    """Write FILES: all subjects, each doing every action twice. Returns the number of frames.

    The detections go on for some frames after the motion, as published ones do. Raises UserError.
    """
    content: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in FILES}
    for number, subject in enumerate((*SUBJECTS["train"], *SUBJECTS["test"])):
        body_rng, *rngs = np.random.default_rng([seed, number]).spawn(1 + 2 * len(ACTIONS))
        offsets = rest_pose() * random_body(body_rng)[:, None]
        for name in FILES:
            content[name][subject] = {}
        takes = [(action, action + take) for action in ACTIONS for take in TAKES]
        for rng, (action, title) in zip(rngs, takes, strict=True):
            longer = num_frames + int(rng.integers(3))
            motion = perform(rng, action, offsets, longer)
            motion[..., :2] -= motion[..., :2].mean((0, 1))
            recorded = np.zeros((num_frames, RECORDED_JOINTS, 3), np.float32)
            recorded[:, JOINTS] = motion[:num_frames] / 1000.0
            views = [_film(rng, motion, PLACEMENTS[subject][camera], camera) for camera in CAMERAS]
            content[POSES][subject][title] = recorded
            content[GROUND_TRUTH][subject][title] = [exact[:num_frames] for exact, _ in views]
            content[DETECTIONS][subject][title] = [detected for _, detected in views]
    for name, table in content.items():
        _write(folder / name, table)
    return num_frames * len(content[POSES]) * 2 * len(ACTIONS) * len(CAMERAS)


def _film(
    rng: np.random.Generator, motion: np.ndarray, placement: Placement, camera: str
) -> tuple[np.ndarray, np.ndarray]:
    """World points (T, J, 3) in mm -> where they are seen and where they are detected (T, J, 2)."""
    w, *axis = placement.quaternion
    turned = 2 * np.arctan2(np.linalg.norm(axis), w) * np.array(axis) / np.linalg.norm(axis)
    to_camera = cv2.Rodrigues(-turned)[0]
    shift = -to_camera @ np.array(placement.position)
    lens = H36M_CAMERAS[camera]
    matrix = np.diag([*lens.focal, 1.0])
    matrix[:2, 2] = lens.center
    k1, k2, k3, p1, p2 = DISTORTION[camera]
    points, _ = cv2.projectPoints(
        motion.reshape(-1, 3), -turned, shift, matrix, np.array([k1, k2, p1, p2, k3])
    )
    exact = points.reshape(*motion.shape[:2], 2)
    image, factor = image_and_depth(motion @ to_camera.T + shift, lens)
    detected, _ = detect(rng, image, factor)
    return exact.astype(np.float32), (exact + detected - image[..., :2]).astype(np.float32)


def _write(path: Path, table: dict[str, dict[str, Any]]) -> None:
    with write_atomic(path) as file:
        if path.name == POSES:
            np.savez_compressed(file, positions_3d=np.array(table, dtype=object))
            return
        sides = [
            [joint for joint, side in enumerate(H36M.sides) if side == name]
            for name in ("left", "right")
        ]
        metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": sides}
        np.savez_compressed(
            file,
            positions_2d=np.array(table, dtype=object),
            metadata=np.array(metadata, dtype=object),
        )
