"""Bodies of different size: random bone lengths, and motions carried over to them."""

import numpy as np

from lib.skeleton import H36M

STATURE = (0.9, 1.1)
# Bones that grow and shrink together, besides the whole body: arms are not as long as legs are.
PROPORTION = (0.92, 1.08)
BONE_GROUPS = (
    ("left_hip", "right_hip"),
    ("left_knee", "right_knee", "left_ankle", "right_ankle"),
    ("spine", "thorax"),
    ("neck", "head"),
    ("left_shoulder", "right_shoulder"),
    ("left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)
LEGS = BONE_GROUPS[1]


def random_body(rng: np.random.Generator) -> np.ndarray:
    """(J,) the factor of each joint's bone to its parent; the same on the left and the right."""
    factors = np.full(H36M.num_joints, rng.uniform(*STATURE))
    for group in BONE_GROUPS:
        factors[[H36M.index(name) for name in group]] *= rng.uniform(*PROPORTION)
    return factors


def scale_bones(motion: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The same joint angles (T, J, 3) on another body; factors (J,), one for each joint's bone.

    Steps grow with the legs, so that feet still stand where they stood, and the lowest point of
    the motion stays where it was.
    """
    scaled = np.empty_like(motion)
    scaled[:, H36M.root] = motion[:, H36M.root] * factors[H36M.index(LEGS[0])]
    for parent, child in H36M.bones:  # parents come before their children
        bone = motion[:, child] - motion[:, parent]
        scaled[:, child] = scaled[:, parent] + factors[child] * bone
    scaled[..., 2] += motion[..., 2].min() - scaled[..., 2].min()
    return scaled
