"""Invented motion as an .npz of one's own data (data/sources/own.py): an example to start from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from data.bodies import random_body
from data.cameras import image_and_depth
from data.detector_noise import detect
from data.filming import film
from data.sources.synthetic import (
    ACTIONS,
    FIRST_TEST_SUBJECT,
    FIRST_TRAIN_SUBJECT,
    perform,
    rest_pose,
)
from lib.camera import H36M_FPS
from lib.files import write_atomic

FIRST = {"train": FIRST_TRAIN_SUBJECT, "test": FIRST_TEST_SUBJECT}


def write(
    path: Path, subjects: Mapping[str, int], *, num_frames: int, num_cameras: int, seed: int
) -> int:
    """subjects: how many of each split. Returns the number of frames. Raises UserError."""
    arrays: dict[str, Any] = {"skeleton": np.array("h36m17"), "fps": np.array(H36M_FPS)}
    count = 0
    for split, number in subjects.items():
        for subject in range(FIRST[split], FIRST[split] + number):
            body_rng, *rngs = np.random.default_rng([seed, subject]).spawn(1 + len(ACTIONS))
            offsets = rest_pose() * random_body(body_rng)[:, None]
            for action, rng in zip(ACTIONS, rngs, strict=True):
                motion = perform(rng, action, offsets, num_frames)
                for take, (window, views) in enumerate(film(rng, motion, num_cameras)):
                    for camera, view in views:
                        points = view.to_camera(window)
                        image, factor = image_and_depth(points, view.camera)
                        joint_2d, confidence = detect(rng, image, factor)
                        name = f"{split}/s{subject} {action} {take} camera {camera}"
                        seen = np.concatenate([joint_2d, confidence[..., None]], axis=-1)
                        arrays[f"{name}/pose_2d"] = seen.astype(np.float32)
                        arrays[f"{name}/pose_3d"] = points.astype(np.float32)
                        arrays[f"{name}/image_size"] = np.array(view.camera.size)
                        arrays[f"{name}/action"] = np.array(action)
                        count += len(points)
    with write_atomic(path) as file:
        np.savez_compressed(file, **arrays)
    return count
