"""BVH: a skeleton with constant bone lengths, moved by joint angles; opens in Blender.

The joints are those of demo.export.rig: metres, x right, y up, z towards the camera.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from demo.export.rig import RIG, Figure, tip
from lib.files import write_atomic


def write_bvh(path: Path, pose_world: np.ndarray, fps: float) -> None:
    """One person's poses (F, 17, 3), world mm, at an even rate.

    Joint positions computed from the file's angles are those of `fit_bones(pose_world)`. Raises
    UserError where it cannot be written.
    """
    figure = Figure.of(pose_world)
    angles = _angles_zxy(figure.turns)
    with write_atomic(path, "w") as file:
        file.write("HIERARCHY\n")
        for line in _hierarchy(figure.offsets):
            file.write(line + "\n")
        file.write(f"MOTION\nFrames: {len(angles)}\nFrame Time: {1 / fps:.8f}\n")
        for root, frame in zip(figure.root, angles, strict=True):
            numbers = np.concatenate([root, frame.ravel()])
            file.write(" ".join(f"{number:.5f}" for number in numbers) + "\n")


def _hierarchy(offsets: np.ndarray) -> Iterator[str]:
    opened: list[int] = []  # the joints whose brace is open
    for number, joint in enumerate(RIG):
        while opened and opened[-1] != joint.parent:
            opened.pop()
            yield "  " * len(opened) + "}"
        indent = "  " * len(opened)
        root = joint.parent < 0
        # The root's offset would be added to its position by some readers.
        offset = np.zeros(3) if root else offsets[number]
        yield f"{indent}{'ROOT' if root else 'JOINT'} {joint.name}"
        yield f"{indent}{{"
        yield f"{indent}  OFFSET {_numbers(offset)}"
        places = "6 Xposition Yposition Zposition" if root else "3"
        yield f"{indent}  CHANNELS {places} Zrotation Xrotation Yrotation"
        opened.append(number)
        end = tip(joint)
        if end is not None:
            yield f"{indent}  End Site"
            yield f"{indent}  {{"
            yield f"{indent}    OFFSET {_numbers(np.array(end))}"
            yield f"{indent}  }}"
    while opened:
        opened.pop()
        yield "  " * len(opened) + "}"


def _numbers(vector: np.ndarray) -> str:
    return " ".join(f"{number:.6f}" for number in vector)


def _angles_zxy(rotations: np.ndarray) -> np.ndarray:
    """(F, ..., 3, 3) = Rz Rx Ry -> (F, ..., 3) degrees, without jumps of 360° between frames."""
    x = np.arcsin(np.clip(rotations[..., 2, 1], -1, 1))
    z = np.arctan2(-rotations[..., 0, 1], rotations[..., 1, 1])
    y = np.arctan2(-rotations[..., 2, 0], rotations[..., 2, 2])
    # Looking straight along the middle axis, only the sum of the other two means something.
    locked = np.abs(rotations[..., 2, 1]) > 1 - 1e-9
    z = np.where(locked, np.arctan2(rotations[..., 1, 0], rotations[..., 0, 0]), z)
    y = np.where(locked, 0.0, y)
    return np.rad2deg(np.unwrap(np.stack([z, x, y], axis=-1), axis=0))
