"""Bodies: how long a person's bones are, and any motion on any body.

World: millimetres, z up, floor at 0. T frames, J = 17 joints, K = 16 bones in H36M's order.
"""

import numpy as np

from lib.arrays import Floats
from lib.skeleton import H36M

CHILDREN, PARENTS = list(H36M.bone_children), list(H36M.bone_parents)


def _bones_to(*joints: str) -> list[int]:
    """The numbers of the bones that end in these joints."""
    return [CHILDREN.index(H36M.index(joint)) for joint in joints]


def _levels() -> list[tuple[list[int], list[int], list[int]]]:
    """(bones, their parents, their children), those nearer to the root first."""
    depth = [0] * H36M.num_joints
    for parent, child in H36M.bones:  # parents come before their children
        depth[child] = depth[parent] + 1
    levels = []
    for level in range(1, max(depth) + 1):
        bones = [bone for bone, child in enumerate(CHILDREN) if depth[child] == level]
        levels.append((bones, [PARENTS[b] for b in bones], [CHILDREN[b] for b in bones]))
    return levels


_LEVELS = _levels()
LEGS = ("left_knee", "right_knee", "left_ankle", "right_ankle")
_LEG_BONES = _bones_to(*LEGS)


def bones_of(motion: Floats) -> Floats:
    """(T, J, 3) joints -> (T, K, 3) bones, each from its parent to its child."""
    bones: Floats = motion[:, CHILDREN] - motion[:, PARENTS]
    return bones


def joined(root: Floats, bones: Floats) -> Floats:
    """The inverse of bones_of(): the root (T, 3) and bones (T, K, 3) -> joints (T, J, 3)."""
    pose = np.empty((len(root), H36M.num_joints, 3), np.result_type(root, bones))
    pose[:, H36M.root] = root
    for numbers, parents, children in _LEVELS:
        pose[:, children] = pose[:, parents] + bones[:, numbers]
    return pose


# --- A factor for each bone: bodies around the one that was captured --------------------------

STATURE = (0.9, 1.1)
# Bones that grow and shrink together, besides the whole body: long legs do not mean long arms.
PROPORTION = (0.92, 1.08)
BONE_GROUPS = (
    ("left_hip", "right_hip"),
    LEGS,
    ("spine", "thorax"),
    ("neck", "head"),
    ("left_shoulder", "right_shoulder"),
    ("left_elbow", "right_elbow", "left_wrist", "right_wrist"),
)


def random_body(rng: np.random.Generator) -> Floats:
    """(J,) the factor of each joint's bone to its parent; the same on the left and the right."""
    factors = np.full(H36M.num_joints, rng.uniform(*STATURE))
    for group in BONE_GROUPS:
        factors[[H36M.index(name) for name in group]] *= rng.uniform(*PROPORTION)
    return factors


def scale_bones(motion: Floats, factors: Floats) -> Floats:
    """The same joint angles (T, J, 3) on another body; factors (J,), one for each joint's bone.

    Steps grow with the legs, so that feet still stand where they stood, and the lowest point of
    the motion stays where it was.
    """
    root = motion[:, H36M.root] * factors[H36M.index(LEGS[0])]
    scaled = joined(root, factors[CHILDREN][:, None] * bones_of(motion))
    scaled[..., 2] += motion[..., 2].min() - scaled[..., 2].min()
    return scaled


# --- Lengths of bones: bodies as people have them, whoever was captured -----------------------

# Mean length of the bone to a joint, mm, and how much it varies on its own (standard deviation, as
# a share). A rig's hips and thorax lie elsewhere than a detector's: the means are between both.
MEAN_LENGTH = {
    "hip": (102.0, 0.14),
    "knee": (412.0, 0.05),
    "ankle": (408.0, 0.05),
    "spine": (270.0, 0.04),
    "thorax": (298.0, 0.04),
    "neck": (140.0, 0.10),
    "head": (134.0, 0.09),
    "shoulder": (178.0, 0.09),
    "elbow": (282.0, 0.05),
    "wrist": (258.0, 0.07),
}
# What varies together, besides the whole body: standard deviation, and the bones to which joints.
SHARED_SPREAD = (
    (0.08, ("hip", "spine", "thorax", "shoulder")),
    (0.08, ("neck", "head")),
    (0.08, ("knee", "ankle")),
    (0.07, ("elbow", "wrist")),
)
BODY_SIZE = (0.85, 1.12)  # children of ten to tall adults
MOST_UNUSUAL = 2.2  # standard deviations, where the distributions are cut off

_KINDS = list(MEAN_LENGTH)
_KIND_OF_BONE = [_KINDS.index(H36M.names[child].split("_")[-1]) for child in CHILDREN]
_MEAN, _OWN_SPREAD = np.array(list(MEAN_LENGTH.values())).T
_GROUP_OF_KIND = [
    next(number for number, (_, joints) in enumerate(SHARED_SPREAD) if kind in joints)
    for kind in _KINDS
]
_GROUP_SPREAD = np.array([spread for spread, _ in SHARED_SPREAD])


def draw_lengths(rng: np.random.Generator) -> Floats:
    """(K,) the bone lengths of a random person in mm; the same on the left and the right."""
    size = rng.uniform(*BODY_SIZE)
    unusual = rng.standard_normal(len(SHARED_SPREAD) + len(_KINDS))
    unusual = np.clip(unusual, -MOST_UNUSUAL, MOST_UNUSUAL)
    of_group, own = np.split(unusual, [len(SHARED_SPREAD)])
    together = (1 + _GROUP_SPREAD * of_group)[_GROUP_OF_KIND]
    lengths: Floats = (size * _MEAN * together * (1 + _OWN_SPREAD * own))[_KIND_OF_BONE]
    return lengths


def with_lengths(root: Floats, bones: Floats, lengths: Floats) -> Floats:
    """The same bone directions on a body of these lengths (K,): joints (T, J, 3).

    root: (T, 3) the pelvis' path, bones: (T, K, 3). Steps grow with the legs, so that feet still
    stand where they stood; the caller puts the person on the floor.
    """
    own = np.maximum(np.sqrt(np.einsum("tkc,tkc->tk", bones, bones)), 1e-6)
    step = lengths[_LEG_BONES].sum() / own[:, _LEG_BONES].mean(0).sum()
    return joined(root * step, bones * (lengths / own)[..., None])


# --- Other motions ----------------------------------------------------------------------------

# Joints at which random turns are made: the bone to each, and all that hangs on it, turns about
# the bone's other end. The factor says how far, compared with the others.
TURNS = {
    "left_knee": 1.0,
    "right_knee": 1.0,
    "left_ankle": 0.4,
    "right_ankle": 0.4,
    "spine": 0.4,
    "neck": 1.0,
    "left_elbow": 1.0,
    "right_elbow": 1.0,
    "left_wrist": 1.0,
    "right_wrist": 1.0,
}


def _below(joint: str) -> list[int]:
    """The bones that turn when the bone to a joint does: that bone and all that hang on it."""
    inside = {H36M.index(joint)}
    for parent, child in H36M.bones:
        if parent in inside:
            inside.add(child)
    return [bone for bone, child in enumerate(CHILDREN) if child in inside]


_TURNS = [(H36M.index(joint), _below(joint), share) for joint, share in TURNS.items()]
_TURN_SHARES = np.array(list(TURNS.values()))
_UPPER_BODY = _below("spine")
_LEFT_HIP, _RIGHT_HIP = _bones_to("left_hip", "right_hip")


def rotations(axes: Floats, angles: Floats) -> Floats:
    """(N, 3, 3) rotations about the axes (N, 3), of any length, by angles (N,): Rodrigues."""
    x, y, z = (axes / np.linalg.norm(axes, axis=-1, keepdims=True)).T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(-1, 3, 3)
    sine, cosine = np.sin(angles)[:, None, None], np.cos(angles)[:, None, None]
    turned: Floats = np.eye(3) + sine * cross + (1 - cosine) * (cross @ cross)
    return turned


def turn_limbs(rng: np.random.Generator, bones: Floats, spread: float) -> Floats:
    """The bones (T, K, 3) with limbs, trunk and head turned by random angles, constant in time.

    spread: the angles' standard deviation in radians where TURNS has 1.
    """
    axes = rng.standard_normal((len(_TURNS), 3))
    angles = rng.standard_normal(len(_TURNS)) * spread * _TURN_SHARES
    turned = bones.copy()
    for (_, below, _), rotation in zip(_TURNS, rotations(axes, angles), strict=True):
        turned[:, below] = turned[:, below] @ rotation.T
    return turned


def _heading(bones: Floats) -> float:
    """Where the hips' line points on average, seen from above, in radians."""
    across = (bones[:, _LEFT_HIP, :2] - bones[:, _RIGHT_HIP, :2]).mean(0)
    return float(np.arctan2(across[1], across[0]))


def mix(lower: Floats, upper: Floats) -> Floats:
    """Bones (T, K, 3) of somebody whose legs move as in one motion and all else as in another.

    The upper motion is turned about the vertical until both face alike.
    """
    turn = rotations(np.array([[0.0, 0.0, 1.0]]), np.array([_heading(lower) - _heading(upper)]))
    mixed = lower.copy()
    mixed[:, _UPPER_BODY] = upper[:, _UPPER_BODY] @ turn[0].T
    return mixed
