"""The two skeletons, against the lists of their publications written out by hand."""

import itertools

import numpy as np
import pytest

from lib.losses import angle_pairs
from lib.skeleton import H36M, MPI_INF_3DHP

BOTH = pytest.mark.parametrize("skeleton", [H36M, MPI_INF_3DHP], ids=["h36m", "3dhp"])


def test_bone_k_of_h36m_joins_joint_k_plus_1_to_its_parent():
    parents = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15]
    assert list(H36M.bones) == [(parents[joint], joint) for joint in range(1, 17)]
    assert H36M.root == 0


def test_bones_of_3dhp_are_the_published_edges():
    """Head top (0) and head (16) both hang from the neck (1)."""
    chains = ([0, 1], [16, 1], [1, 15], [15, 14], [1, 2, 3, 4], [1, 5, 6, 7])
    chains += ([14, 8, 9, 10], [14, 11, 12, 13])
    edges = {frozenset(pair) for chain in chains for pair in itertools.pairwise(chain)}
    assert {frozenset(bone) for bone in MPI_INF_3DHP.bones} == edges
    assert len(edges) == 16
    assert MPI_INF_3DHP.root == 14


@pytest.mark.parametrize("reverse_joints", [False, True])
def test_adjacency_of_3dhp_is_the_published_one(reverse_joints):
    """Each joint's neighbours as the released 3DHP code lists them."""
    # fmt: off
    neighbours = [
        [1], [0, 2, 5, 15, 16], [1, 3], [2, 4], [3], [1, 6], [5, 7], [6], [9, 14], [8, 10], [9],
        [12, 14], [11, 13], [12], [15, 11, 8], [1, 14], [1],
    ]
    # fmt: on
    expected = np.zeros((17, 17))
    for joint, others in enumerate(neighbours):
        for other in others:
            place = (16 - joint, 16 - other) if reverse_joints else (joint, other)
            expected[place] = 1
    assert (MPI_INF_3DHP.adjacency(reverse_joints) == expected).all()


def test_flip_orders_by_hand():
    assert H36M.flip_order == (0, 4, 5, 6, 1, 2, 3, 7, 8, 9, 10, 14, 15, 16, 11, 12, 13)
    assert MPI_INF_3DHP.flip_order == (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 14, 15, 16)


@BOTH
def test_every_joint_but_the_root_ends_one_bone_and_reaches_the_root(skeleton):
    assert sorted(skeleton.bone_children) == sorted(set(range(17)) - {skeleton.root})
    for joint in range(17):
        steps = 0
        while joint != skeleton.root:
            joint, steps = skeleton.parents[joint], steps + 1
            assert steps < 17


@BOTH
def test_mirroring_twice_is_nothing_and_keeps_the_tree(skeleton):
    order = np.array(skeleton.flip_order)
    assert (order[order] == np.arange(17)).all()
    mirrored = {(order[parent], order[child]) for parent, child in skeleton.bones}
    assert mirrored == set(skeleton.bones)
    for joint, side in enumerate(skeleton.sides):
        assert (order[joint] == joint) == (side == "middle")
        assert {side, skeleton.sides[order[joint]]} in ({"middle"}, {"left", "right"})


@BOTH
def test_adjacency_is_symmetric_without_self_loops_and_reverses(skeleton):
    matrix = skeleton.adjacency()
    assert (matrix == matrix.T).all()
    assert matrix.trace() == 0
    assert matrix.sum() == 32  # 16 bones, seen from both ends
    reversed_matrix = skeleton.adjacency(reverse_joints=True)
    for a in range(17):
        for b in range(17):
            is_bone = (a, b) in skeleton.bones or (b, a) in skeleton.bones
            assert matrix[a, b] == is_bone
            assert reversed_matrix[16 - a, 16 - b] == is_bone


@BOTH
def test_colours_tell_the_sides_apart(skeleton):
    by_side = {}
    for side, color in zip(skeleton.sides, skeleton.colors, strict=True):
        by_side.setdefault(side, set()).add(color)
    assert all(len(colors) == 1 for colors in by_side.values())
    assert len(set.union(*by_side.values())) == 3


def test_angles_are_compared_between_18_pairs_of_bones():
    expected = set()
    for a in range(16):
        for b in range(a + 1, 16):
            if set(H36M.bones[a]) & set(H36M.bones[b]) and (a, b) != (8, 10):
                expected.add((a, b))
    assert len(expected) == 18
    assert set(angle_pairs(H36M)) == expected
    assert len(angle_pairs(H36M)) == 18
