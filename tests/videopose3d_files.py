"""VideoPose3D's two files by a writer of the tests' own, and what must come of them.

Nothing here is the project's: quaternions turn points by Hamilton's product, joints are picked by
their names in the 32-joint skeleton.
"""

from pathlib import Path

import numpy as np

# The 32 joints as recorded; those without a name repeat others.
RECORDED = [
    "pelvis", "right_hip", "right_knee", "right_ankle", "", "",
    "left_hip", "left_knee", "left_ankle", "", "", "",
    "spine", "thorax", "neck", "head", "",
    "left_shoulder", "left_elbow", "left_wrist", "", "", "", "", "",
    "right_shoulder", "right_elbow", "right_wrist", "", "", "", "",
]  # fmt: skip
SUBJECTS = ["S1", "S5", "S6", "S7", "S8", "S9", "S11"]
CAMERA_NAMES = ["54138969", "55011271", "58860488", "60457274"]
H36M_NAMES = [
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "spine", "thorax", "neck", "head", "left_shoulder", "left_elbow", "left_wrist",
    "right_shoulder", "right_elbow", "right_wrist",
]  # fmt: skip
SIZES = [(1000, 1002), (1000, 1000), (1000, 1000), (1000, 1002)]
# Frames of each action: names as published, with and without a number.
ACTIONS = {"Directions": 11, "Directions 1": 7, "WalkDog": 9, "Walking 1": 14}


def product(p, q):
    """Hamilton's product of quaternions (..., 4), w first."""
    (a, b, c, d), (e, f, g, h) = np.moveaxis(p, -1, 0), np.moveaxis(q, -1, 0)
    parts = (
        a * e - b * f - c * g - d * h,
        a * f + b * e + c * h - d * g,
        a * g - b * h + c * e + d * f,
        a * h + b * g - c * f + d * e,
    )
    return np.stack(np.broadcast_arrays(*parts), -1)


def turned_back(points, quaternion):
    """q* p q: (..., 3) by the inverse of the rotation."""
    q = np.array(quaternion)
    pure = np.concatenate([np.zeros_like(points[..., :1]), points], -1)
    return product(product(q * [1, -1, -1, -1], pure), q)[..., 1:]


def make_content(rng, actions=ACTIONS):
    """positions_3d and positions_2d: a random person near the middle, random detections."""
    world, pixels = {}, {}
    for subject in SUBJECTS:
        world[subject], pixels[subject] = {}, {}
        for action, frames in actions.items():
            if (subject, action) != ("S11", "Directions"):
                place = rng.normal([0, 0, 1], [0.5, 0.5, 0.1])
                joints = place + rng.normal(0, 0.3, (frames, 32, 3))
                world[subject][action] = joints.astype(np.float32)
            extra = [0, 1, 2, 3]  # frames that a detector saw after the motion's end
            pixels[subject][action] = [
                rng.uniform(0, 1000, (frames + more, 17, 2)).astype(np.float32) for more in extra
            ]
    return world, pixels


def write_content(folder: Path, world, pixels, name="data_2d_h36m_cpn_ft_h36m_dbb.npz", **metadata):
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "data_3d_h36m.npz", positions_3d=np.array(world, dtype=object))
    described = {
        "layout_name": "h36m",
        "num_joints": 17,
        "keypoints_symmetry": [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]],
        **metadata,
    }
    np.savez_compressed(
        folder / name,
        positions_2d=np.array(pixels, dtype=object),
        metadata=np.array(described, dtype=object),
    )
    return folder / name


def expected_frames(world, pixels, placements, subjects):
    """Frame by frame: normalised 2D with confidence 1, and 3D in metres from the root; videos."""
    pose_2d, pose_3d, videos = [], [], []
    joints = [RECORDED.index(name) for name in H36M_NAMES]
    for subject in subjects:
        for action, recorded in world[subject].items():
            for number, (camera, (w, h)) in enumerate(zip(CAMERA_NAMES, SIZES, strict=True)):
                quaternion, position = placements[subject][camera]
                seen = turned_back(
                    recorded[:, joints].astype(float) - np.array(position) / 1000, quaternion
                )
                found = pixels[subject][action][number][: len(recorded)].astype(float)
                x, y = found[..., 0] / w * 2 - 1, found[..., 1] / w * 2 - h / w
                pose_2d.append(np.stack([x, y, np.ones_like(x)], -1))
                pose_3d.append(seen - seen[:, :1])
                videos.append((subject, action, camera, len(recorded)))
    return np.concatenate(pose_2d), np.concatenate(pose_3d), videos
