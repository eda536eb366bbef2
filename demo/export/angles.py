"""NAME_angles.csv: joint angles in degrees, a row for each person and frame.

ANGLES says what each means and which direction is positive; docs/video.md has the same table.
Two frames belong to the body: the pelvis's (right: from the left hip to the right one; up: towards
the spine) and the chest's (right: from shoulder to shoulder; up: from the spine to the thorax);
up is made perpendicular to right, and forward to both.
"""

from pathlib import Path

import numpy as np

from demo.poses import Poses, unit
from lib.files import write_atomic
from lib.skeleton import H36M

# Of a limb; the columns are left_… and right_….
LIMB_ANGLES = {
    "hip_flexion": "thigh in the pelvis's frame: forward +, backward -; 0 hangs down",
    "hip_abduction": "thigh in the pelvis's frame: away from the body's middle +, across it -",
    "knee_flexion": "between the lines of thigh and shin: 0 straight, bent +",
    "shoulder_elevation": "upper arm from the chest's down: 0 hangs, 90 level, 180 overhead",
    "shoulder_plane": "where the raised arm points: 0 to the side, 90 forward, -90 backward;"
    " means nothing while the elevation is near 0 or 180",
    "elbow_flexion": "between the lines of upper arm and forearm: 0 straight, bent +",
}
BODY_ANGLES = {
    "pelvis_heading": "where the pelvis faces, seen from above: 0 to the camera, to the person's"
    " left +; goes on beyond 360",
    "pelvis_obliquity": "line of the hips against the floor: right hip higher +",
    "trunk_forward_lean": "pelvis to thorax against the vertical: forward +, backward -",
    "trunk_side_lean": "pelvis to thorax against the vertical: to the right +, to the left -",
    "trunk_twist": "shoulders against hips about the trunk: turned to the left +",
    "head_forward_bend": "thorax to crown in the chest's frame: forward +, backward -",
}
ANGLES = {
    **BODY_ANGLES,
    **{
        f"{side}_{name}": meaning
        for name, meaning in LIMB_ANGLES.items()
        for side in ("left", "right")
    },
}


def write_angles(path: Path, poses: Poses) -> None:
    """Raises UserError where it cannot be written.

    Rows from each person's first sight to the last; seen_joints: how many of the 17 the detector
    found in that frame.
    """
    seen = (poses.confidence > 0).sum(axis=-1)
    with write_atomic(path, "w") as file:
        file.write(",".join(["person", "frame", "time_s", "seen_joints", *ANGLES]) + "\n")
        for row, number in enumerate(poses.persons.tolist()):
            angles = joint_angles(poses.pose_world[row])
            table = np.stack([angles[name] for name in ANGLES], axis=-1)
            for frame in np.flatnonzero(poses.present[row]).tolist():
                head = f"{number},{frame},{poses.times[frame]:.6f},{seen[row, frame]}"
                file.write(head + "".join(f",{value:.2f}" for value in table[frame]) + "\n")


def joint_angles(pose_world: np.ndarray) -> dict[str, np.ndarray]:
    """(F, 17, 3), x right, y away, z up -> each of ANGLES (F,) in degrees."""
    pose = pose_world.astype(np.float64)

    def bone(start: str, end: str) -> np.ndarray:
        return unit(pose[:, H36M.index(end)] - pose[:, H36M.index(start)])

    right, forward, up = _frame(bone("left_hip", "right_hip"), bone("pelvis", "spine"))
    chest = _frame(bone("left_shoulder", "right_shoulder"), bone("spine", "thorax"))
    level = unit(right * [1, 1, 0])
    ahead = np.cross([0, 0, 1], level)
    trunk, head = bone("pelvis", "thorax"), bone("thorax", "head")
    across = bone("left_shoulder", "right_shoulder")
    angles = {
        "pelvis_heading": np.unwrap(np.arctan2(ahead[:, 0], -ahead[:, 1])),
        "pelvis_obliquity": np.arcsin(np.clip(right[:, 2], -1, 1)),
        "trunk_forward_lean": np.arctan2(_dot(trunk, ahead), trunk[:, 2]),
        "trunk_side_lean": np.arcsin(np.clip(_dot(trunk, level), -1, 1)),
        "trunk_twist": np.arctan2(_dot(across, forward), _dot(across, right)),
        "head_forward_bend": np.arctan2(_dot(head, chest[1]), _dot(head, chest[2])),
    }
    for side, outward in (("left", -1), ("right", 1)):
        thigh, shin = bone(f"{side}_hip", f"{side}_knee"), bone(f"{side}_knee", f"{side}_ankle")
        arm = bone(f"{side}_shoulder", f"{side}_elbow")
        forearm = bone(f"{side}_elbow", f"{side}_wrist")
        out = outward * _dot(arm, chest[0])
        limb = {
            "hip_flexion": np.arctan2(_dot(thigh, forward), -_dot(thigh, up)),
            "hip_abduction": np.arcsin(np.clip(outward * _dot(thigh, right), -1, 1)),
            "knee_flexion": _between(thigh, shin),
            "shoulder_elevation": _between(arm, -chest[2]),
            "shoulder_plane": np.arctan2(_dot(arm, chest[1]), out),
            "elbow_flexion": _between(arm, forearm),
        }
        angles |= {f"{side}_{name}": value for name, value in limb.items()}
    return {name: np.rad2deg(angles[name]) for name in ANGLES}


def _frame(right: np.ndarray, up: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right and rough up (F, 3) -> right, forward, up, perpendicular to each other."""
    forward = unit(np.cross(up, right))
    return right, forward, np.cross(right, forward)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(axis=-1)


def _between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(F,) radians from 0 to pi between vectors (F, 3); exact at both ends."""
    return np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), _dot(a, b))
