"""The kinematic trees: joints, bones, mirror order, adjacency and colours, each said once."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Skeleton:
    """A kinematic tree. Bones, mirror order, adjacency and colours are all derived from it.

    Bones are listed by their child joint, so in a tree with its root at joint 0 (Human3.6M)
    bone k joins joint k + 1 to its parent.
    """

    names: tuple[str, ...]
    parents: tuple[int, ...]  # -1 marks the root

    @classmethod
    def of_names(cls, names: Sequence[str], parents: Sequence[str]) -> "Skeleton":
        """parents: the name of each joint's parent, '' for the root. Raises ValueError."""
        numbers = {"": -1, **{name: number for number, name in enumerate(names)}}
        if len(names) != len(parents) or not set(parents) <= set(numbers):
            raise ValueError("joints and their parents do not fit together")
        return cls.checked(names, [numbers[parent] for parent in parents])

    @classmethod
    def checked(cls, names: Sequence[str], parents: Sequence[int]) -> "Skeleton":
        """A skeleton that somebody described. Raises ValueError, which says what is wrong."""
        if len(names) < 2 or len(names) != len(parents):
            raise ValueError("a skeleton needs two joints at least, and a parent for each")
        twice = [name for name in names if list(names).count(name) > 1]
        if twice:
            raise ValueError(f"two joints are called {twice[0]!r}")
        if sum(parent == -1 for parent in parents) != 1:
            raise ValueError("one joint must have the parent -1, the root")
        for joint, parent in enumerate(parents):
            if not -1 <= parent < len(names):
                raise ValueError(f"the parent of {names[joint]!r} is {parent}, which is no joint")
            above, steps = parent, 0
            while above != -1 and steps <= len(names):
                above, steps = parents[above], steps + 1
            if above != -1:
                raise ValueError(f"{names[joint]!r} does not hang from the root but in a ring")
        skeleton = cls(tuple(names), tuple(parents))
        try:
            mirrored = (*skeleton.flip_order, -1)  # of the root's parent, -1, too
        except ValueError as error:
            raise ValueError(
                "each joint called left_… needs its right_…, and the other way round"
            ) from error
        for joint, parent in enumerate(parents):
            if parents[mirrored[joint]] != mirrored[parent]:
                raise ValueError(f"{names[joint]!r} and its mirror image hang from other joints")
        return skeleton

    @property
    def parent_names(self) -> tuple[str, ...]:
        return tuple("" if parent < 0 else self.names[parent] for parent in self.parents)

    @property
    def num_joints(self) -> int:
        return len(self.names)

    @cached_property
    def root(self) -> int:
        return self.parents.index(-1)

    @cached_property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(parent, child) joint indices, one pair for each joint but the root."""
        return tuple((parent, joint) for joint, parent in enumerate(self.parents) if parent >= 0)

    @cached_property
    def bone_parents(self) -> tuple[int, ...]:
        return tuple(parent for parent, _ in self.bones)

    @cached_property
    def bone_children(self) -> tuple[int, ...]:
        return tuple(child for _, child in self.bones)

    @cached_property
    def flip_order(self) -> tuple[int, ...]:
        """Where each joint's mirror image is found: pose[..., flip_order, :] swaps the sides."""
        other = {"left": "right", "right": "left"}
        order = []
        for name in self.names:
            side, _, rest = name.partition("_")
            order.append(self.index(f"{other[side]}_{rest}") if side in other else self.index(name))
        return tuple(order)

    @cached_property
    def sides(self) -> tuple[str, ...]:
        """'left', 'right' or 'middle' of each joint."""
        prefixes = (name.partition("_")[0] for name in self.names)
        return tuple(side if side in ("left", "right") else "middle" for side in prefixes)

    @cached_property
    def colors(self) -> tuple[tuple[int, int, int], ...]:
        """RGB colour of each joint, and of the bone that ends there."""
        return tuple(SIDE_COLORS[side] for side in self.sides)

    def index(self, name: str) -> int:
        return self.names.index(name)

    def adjacency(self, reverse_joints: bool = False) -> NDArray[np.float64]:
        """(J, J) float64, 1 where two joints share a bone, without self loops.

        reverse_joints: in the order j -> J - 1 - j, as the backward direction sees the joints.
        """
        matrix = np.zeros((self.num_joints, self.num_joints))
        for parent, child in self.bones:
            matrix[parent, child] = matrix[child, parent] = 1.0
        return matrix[::-1, ::-1].copy() if reverse_joints else matrix

    @cached_property
    def bone_pairs(self) -> tuple[tuple[int, int], ...]:
        """All pairs of bones that share a joint."""
        return tuple(
            (a, b)
            for a, b in combinations(range(len(self.bones)), 2)
            if set(self.bones[a]) & set(self.bones[b])
        )


BODY_HALVES = ("upper", "lower")


def body_half(joint: str) -> str | None:
    """'lower' for hips, knees and ankles, 'upper' for the rest; None for the root, always at 0."""
    if joint == "pelvis":
        return None
    return "lower" if joint.endswith(("hip", "knee", "ankle")) else "upper"


# Warm for the right, cool for the left side of the body.
SIDE_COLORS = {"left": (46, 134, 222), "right": (229, 80, 57), "middle": (80, 88, 98)}

H36M = Skeleton(
    names=(
        "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
        "spine", "thorax", "neck", "head",
        "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow", "right_wrist",
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
)  # fmt: skip

MPI_INF_3DHP = Skeleton(
    names=(
        "head_top", "neck",
        "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow", "left_wrist",
        "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
        "pelvis", "spine", "head",
    ),
    parents=(1, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
)  # fmt: skip
