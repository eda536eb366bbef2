"""A figure of joints that turn: what BVH and glTF both hold, computed once from positions.

A joint turns all its children alike, but the bones that leave the pelvis and the thorax each have
a direction of their own. So where a joint has several children, each gets a joint of length 0
first, with the fork's name and its own: `thorax_left_shoulder` then is what animators call the
collar. Units are metres, axes x right, y up, z towards the camera. F frames, K joints of the rig.
"""

from dataclasses import dataclass

import numpy as np

from demo.poses import fit_bones, fixed_lengths, shortest_turn, unit
from lib.skeleton import H36M

METRES = 0.001  # per mm
# What the last joints end in, in metres and axes of the rest pose: crown, hands, toes.
TIPS = {
    "head": (0.0, 0.10, 0.0),
    "left_wrist": (0.10, 0.0, 0.0),
    "right_wrist": (-0.10, 0.0, 0.0),
    **{f"{side}_ankle": (0.0, -0.06, 0.14) for side in ("left", "right")},
}

# The rest pose: standing, arms to the sides, looking at the camera. Directions x right (the
# person's left), y up, z towards the camera.
_RIGHT, _LEFT, _UP, _DOWN = (-1, 0, 0), (1, 0, 0), (0, 1, 0), (0, -1, 0)
REST = {
    **{f"{side}_{part}": _DOWN for side in ("left", "right") for part in ("knee", "ankle")},
    **{f"left_{part}": _LEFT for part in ("hip", "shoulder", "elbow", "wrist")},
    **{f"right_{part}": _RIGHT for part in ("hip", "shoulder", "elbow", "wrist")},
    **dict.fromkeys(("spine", "thorax", "neck", "head"), _UP),
}


@dataclass(frozen=True)
class RigJoint:
    """parent: in the rig, -1 for the root. at: the joint of H36M where it lies. bone: the joint of
    H36M that its turn points at; None: it keeps its parent's turn (the root has its own)."""

    name: str
    parent: int
    at: int
    bone: int | None


def _rig_joints() -> tuple[RigJoint, ...]:
    joints: list[RigJoint] = []

    def add(joint: int, parent: int) -> None:
        name, number = H36M.names[joint], len(joints)
        children = [child for child, above in enumerate(H36M.parents) if above == joint]
        joints.append(RigJoint(name, parent, joint, children[0] if len(children) == 1 else None))
        if len(children) == 1:
            add(children[0], number)
            return
        for child in children:
            fork = RigJoint(f"{name}_{H36M.names[child]}", number, joint, child)
            joints.append(fork)
            add(child, len(joints) - 1)

    add(H36M.root, -1)
    return tuple(joints)


# Each joint after its parent, and each joint's descendants right after it.
RIG = _rig_joints()


@dataclass(frozen=True)
class Figure:
    """One person as RIG's joints, moved.

    offsets: (K, 3) metres from the parent, in the rest pose; the root's is its height at rest.
    root: (F, 3) metres, where the root is. turns: (F, K, 3, 3) rotations against the parent.
    """

    offsets: np.ndarray
    root: np.ndarray
    turns: np.ndarray

    @classmethod
    def of(cls, pose_world: np.ndarray) -> "Figure":
        """From poses (F, 17, 3), world mm; the joints lie where `fit_bones(pose_world)` says."""
        lengths = fixed_lengths(pose_world) * METRES
        offsets = np.zeros((len(RIG), 3))
        for number, joint in enumerate(RIG[1:], 1):
            if joint.at != RIG[joint.parent].at:
                offsets[number] = lengths[joint.at - 1] * np.array(REST[H36M.names[joint.at]])
        leg = [H36M.index(name) - 1 for name in ("left_knee", "left_ankle")]
        offsets[0, 1] = lengths[leg].sum() - TIPS["left_ankle"][1]
        points = to_y_up(fit_bones(pose_world.astype(np.float64)))
        return cls(offsets, points[:, H36M.root], _turns(points))


def to_y_up(world: np.ndarray) -> np.ndarray:
    """World mm (x right, y away, z up) (..., 3) -> metres, x right, y up, z towards the camera."""
    return world[..., [0, 2, 1]] * np.array([METRES, METRES, -METRES])


def tip(joint: RigJoint) -> tuple[float, float, float] | None:
    """Where a last joint ends, from itself; None for joints that have children."""
    return TIPS.get(joint.name)


# --- Turns ------------------------------------------------------------------------------------


def _turns(points: np.ndarray) -> np.ndarray:
    """Joint positions (F, 17, 3), y up -> (F, K, 3, 3), each against its parent.

    Each bone turns the short way from where its parent's turn would leave it, so nothing twists
    about its own axis without need.
    """
    turns = np.broadcast_to(np.eye(3), (len(points), len(RIG), 3, 3)).copy()
    turns[:, 0] = _frame_of(
        across=points[:, H36M.index("left_hip")] - points[:, H36M.index("right_hip")],
        up=points[:, H36M.index("spine")] - points[:, H36M.root],
    )
    whole = turns.copy()  # against the world
    for number, joint in enumerate(RIG[1:], 1):
        above = whole[:, joint.parent]
        if joint.bone is not None:
            bone = unit(points[:, joint.bone] - points[:, joint.at])
            rest = np.array(REST[H36M.names[joint.bone]], dtype=np.float64)
            turns[:, number] = shortest_turn(rest, np.einsum("fji,fj->fi", above, bone))
        whole[:, number] = above @ turns[:, number]
    return turns


def _frame_of(across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(F, 3) x axis and rough y axis -> (F, 3, 3) rotations with the axes as columns."""
    x = unit(across)
    z = unit(np.cross(x, up))
    return np.stack([x, np.cross(z, x), z], axis=-1)
