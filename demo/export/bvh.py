"""BVH: a skeleton with constant bone lengths, moved by joint angles; opens in Blender.

A joint turns all its children alike, but the bones that leave the pelvis and the thorax each have
a direction of their own. So where a joint has several children, each gets a joint of length 0
first, with the fork's name and its own: `thorax_left_shoulder` then is what animators call the
collar. Units are metres, axes x right, y up, z towards the camera.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from demo.poses import Poses, fit_bones, fixed_lengths, unit
from lib.files import write_atomic
from lib.skeleton import H36M

METRES = 0.001  # per mm
# What the last joints end in, in metres and axes of the rest pose: crown, hands, toes.
END_SITES = {
    "head": (0, 0.10, 0),
    "left_wrist": (0.10, 0, 0),
    "right_wrist": (-0.10, 0, 0),
    **{f"{side}_ankle": (0, -0.06, 0.14) for side in ("left", "right")},
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


def _children(joint: int) -> list[int]:
    return [child for child, parent in enumerate(H36M.parents) if parent == joint]


def write_everybody(path: Path, poses: Poses) -> str:
    """One person into `path`, several into files with their numbers; returns the files' names."""
    paths = [path]
    if len(poses.persons) > 1:
        paths = [path.with_name(f"{path.stem}_{number}{path.suffix}") for number in poses.persons]
    for place, pose in zip(paths, poses.pose_world, strict=True):
        write_bvh(place, pose, poses.fps)
    return ", ".join(place.name for place in paths)


def write_bvh(path: Path, pose_world: np.ndarray, fps: float) -> None:
    """One person's poses (F, 17, 3), world mm. Raises UserError where it cannot be written.

    Joint positions computed from the file's angles are those of `fit_bones(pose_world)`.
    """
    lengths = fixed_lengths(pose_world) * METRES
    # World (x right, y away, z up) -> BVH (x right, y up, z towards the viewer).
    points = fit_bones(pose_world.astype(np.float64))[..., [0, 2, 1]] * METRES * [1, 1, -1]
    angles = joint_angles(points)
    with write_atomic(path, "w") as file:
        file.write("HIERARCHY\n")
        for line in _hierarchy(0, lengths, 0):
            file.write(line + "\n")
        file.write(f"MOTION\nFrames: {len(points)}\nFrame Time: {1 / fps:.8f}\n")
        for root, frame in zip(points[:, 0], angles, strict=True):
            numbers = np.concatenate([root, frame.ravel()])
            file.write(" ".join(f"{number:.5f}" for number in numbers) + "\n")


def _hierarchy(joint: int, lengths: np.ndarray, depth: int) -> Iterator[str]:
    """The lines of a joint and all below it."""
    name = H36M.names[joint]
    offset = np.zeros(3) if joint == 0 else lengths[joint - 1] * np.array(REST[name], float)
    yield from _open(name, offset, depth, root=joint == 0)
    children = _children(joint)
    for child in children:
        if len(children) > 1:
            yield from _open(f"{name}_{H36M.names[child]}", np.zeros(3), depth + 1)
            yield from _hierarchy(child, lengths, depth + 2)
            yield "  " * (depth + 1) + "}"
        else:
            yield from _hierarchy(child, lengths, depth + 1)
    if not children:
        indent = "  " * (depth + 1)
        yield f"{indent}End Site"
        yield f"{indent}{{"
        yield f"{indent}  OFFSET {_numbers(np.array(END_SITES[name]))}"
        yield f"{indent}}}"
    yield "  " * depth + "}"


def _open(name: str, offset: np.ndarray, depth: int, root: bool = False) -> Iterator[str]:
    indent = "  " * depth
    yield f"{indent}{'ROOT' if root else 'JOINT'} {name}"
    yield f"{indent}{{"
    yield f"{indent}  OFFSET {_numbers(offset)}"
    places = "6 Xposition Yposition Zposition" if root else "3"
    yield f"{indent}  CHANNELS {places} Zrotation Xrotation Yrotation"


def _numbers(vector: np.ndarray) -> str:
    return " ".join(f"{number:.6f}" for number in vector)


# --- Angles ---------------------------------------------------------------------------------


def joint_angles(points: np.ndarray) -> np.ndarray:
    """Joint positions (F, 17, 3) in BVH axes -> (F, file's joints, 3) degrees about Z, X, Y.

    Each bone turns the short way from where its parent's turn would leave it, so nothing twists
    about its own axis without need.
    """
    pelvis = _frame_of(
        across=points[:, H36M.index("left_hip")] - points[:, H36M.index("right_hip")],
        up=points[:, H36M.index("spine")] - points[:, 0],
    )
    turns = list(_turns(0, points, np.broadcast_to(np.eye(3), pelvis.shape), pelvis))
    return np.stack([_angles_zxy(turn) for turn in turns], axis=1)


def _turns(
    joint: int, points: np.ndarray, above: np.ndarray, own: np.ndarray | None = None
) -> Iterator[np.ndarray]:
    """The rotations (F, 3, 3) of a joint and all below it, in the order of `_hierarchy`.

    above: (F, 3, 3), the rotation by the joints above; own: the joint's rotation, for a joint
    whose bones do not determine it.
    """
    children = _children(joint)
    own = np.broadcast_to(np.eye(3), above.shape) if own is None else own
    if len(children) == 1:
        own = _swing(joint, children[0], points, above)
    yield own
    for child in children:
        if len(children) == 1:
            yield from _turns(child, points, above @ own)
        else:
            swing = _swing(joint, child, points, above @ own)
            yield swing
            yield from _turns(child, points, above @ own @ swing)


def _swing(joint: int, child: int, points: np.ndarray, above: np.ndarray) -> np.ndarray:
    """The shortest turn (F, 3, 3) that brings a bone from its rest to where it points."""
    bone = unit(points[:, child] - points[:, joint])
    rest = np.array(REST[H36M.names[child]], dtype=np.float64)
    return _shortest_turn(rest, np.einsum("fji,fj->fi", above, bone))


def _frame_of(across: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(F, 3) x axis and rough y axis -> (F, 3, 3) rotations with the axes as columns."""
    x = unit(across)
    z = unit(np.cross(x, up))
    return np.stack([x, np.cross(z, x), z], axis=-1)


def _shortest_turn(start: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Rotations (F, 3, 3) that take the unit vector start (3,) to the unit vectors ends (F, 3)."""
    cos = ends @ start
    axis = np.cross(start, ends)  # length: the sine
    # Opposite to the start any axis across it will do: take one that depends on `start` alone.
    across = np.cross(start, [1.0, 0, 0] if abs(start[0]) < 0.9 else [0, 1.0, 0])
    half_turn = 2 * np.outer(across, across) / (across @ across) - np.eye(3)
    skew = np.zeros((len(ends), 3, 3))
    skew[:, [2, 0, 1], [1, 2, 0]], skew[:, [1, 2, 0], [2, 0, 1]] = axis, -axis
    turn = np.eye(3) + skew + skew @ skew / np.maximum(1 + cos, 1e-9)[:, None, None]
    return np.where((cos < -1 + 1e-9)[:, None, None], half_turn, turn)


def _angles_zxy(rotations: np.ndarray) -> np.ndarray:
    """(F, 3, 3) = Rz Rx Ry -> (F, 3) degrees, without jumps of 360° from frame to frame."""
    x = np.arcsin(np.clip(rotations[:, 2, 1], -1, 1))
    z = np.arctan2(-rotations[:, 0, 1], rotations[:, 1, 1])
    y = np.arctan2(-rotations[:, 2, 0], rotations[:, 2, 2])
    # Looking straight along the middle axis, only the sum of the other two means something.
    locked = np.abs(rotations[:, 2, 1]) > 1 - 1e-9
    z = np.where(locked, np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0]), z)
    y = np.where(locked, 0.0, y)
    return np.rad2deg(np.unwrap(np.stack([z, x, y], axis=-1), axis=0))
