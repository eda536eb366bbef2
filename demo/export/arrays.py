"""poses.npz and poses.json: the same content, for numpy and for everything else.

The names are those of demo.poses.Poses, with the 2D keypoints' confidence apart; joint_names and
parents (-1: the root) are the skeleton.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from demo.poses import Poses
from lib.files import write_atomic
from lib.skeleton import H36M


def write_npz(path: Path, poses: Poses) -> None:
    """Raises UserError where it cannot be written."""
    with write_atomic(path) as file:
        np.savez_compressed(
            file,
            persons=poses.persons,
            keypoints_2d=poses.keypoints_2d[..., :2],
            confidence=poses.confidence,
            pose_3d=poses.pose_3d,
            pose_world=poses.pose_world,
            bone_variation=poses.bone_variation,
            fps=poses.fps,
            times=poses.times,
            stretch=poses.stretch,
            size=np.array(poses.size),
            camera_pitch=poses.camera_pitch,
            camera_roll=poses.camera_roll,
            fov=poses.fov,
            joint_names=np.array(H36M.names),
            parents=np.array(H36M.parents),
        )


def write_json(path: Path, poses: Poses) -> None:
    """Written frame by frame: a long video's text is never in memory as a whole.

    Raises UserError where it cannot be written.
    """
    head = {
        "fps": poses.fps,
        "size": list(poses.size),
        "camera_pitch": poses.camera_pitch,
        "camera_roll": poses.camera_roll,
        "fov": poses.fov,
        "joint_names": list(H36M.names),
        "parents": list(H36M.parents),
        "persons": poses.persons.tolist(),
        "bone_variation": poses.bone_variation.tolist(),
        "times": np.round(poses.times, 6).tolist(),
        "stretch": poses.stretch.tolist(),
    }
    with write_atomic(path, "w") as file:
        file.write(json.dumps(head)[:-1])
        for name, values, digits in (
            ("keypoints_2d", poses.keypoints_2d[..., :2], 2),
            ("confidence", poses.confidence, 3),
            ("pose_3d", poses.pose_3d, 1),
            ("pose_world", poses.pose_world, 1),
        ):
            file.write(f',\n"{name}": [')
            for person, frames in enumerate(values):
                file.write(",\n[" if person else "[")
                for piece in _joined(frames, digits):
                    file.write(piece)
                file.write("]")
            file.write("]")
        file.write("}\n")


def _joined(frames: np.ndarray, digits: int) -> Iterator[str]:
    for index, frame in enumerate(frames):
        rounded = np.round(frame.astype(np.float64), digits)
        yield (",\n" if index else "\n") + json.dumps(rounded.tolist(), separators=(",", ":"))
