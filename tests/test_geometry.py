"""Bins and bone features at angles one knows, and the mirror image."""

import math

import numpy as np
import pytest
import torch

from lib.geometry import bone_features, bone_vectors, flip_pose, polar_bins
from lib.skeleton import H36M, MPI_INF_3DHP

BOTH = pytest.mark.parametrize("skeleton", [H36M, MPI_INF_3DHP], ids=["h36m", "3dhp"])


def pose_of_bones(vectors, skeleton):
    """A pose (J, 3) whose bone at joint j is vectors[j]."""
    pose, done = torch.zeros(17, 3, dtype=torch.float64), {skeleton.root}
    while len(done) < 17:
        for parent, child in skeleton.bones:
            if parent in done and child not in done:
                pose[child] = pose[parent] + vectors[child]
                done.add(child)
    return pose


def at_angle(degrees, azimuth=0.7):
    polar = math.radians(degrees)
    return torch.tensor(
        [
            math.sin(polar) * math.cos(azimuth),
            math.sin(polar) * math.sin(azimuth),
            math.cos(polar),
        ],
        dtype=torch.float64,
    )


@BOTH
@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(0.01, 0), (29.9, 0), (30.1, 1), (59.9, 1), (89.9, 2), (90.1, 3), (149, 4), (151, 5)],
)
def test_bins_between_the_edges(skeleton, degrees, expected):
    pose = pose_of_bones(at_angle(degrees).expand(17, 3), skeleton)
    bins = polar_bins(pose, skeleton)
    assert bins[skeleton.root] == 0
    assert bins.sum() == 16 * expected
    assert bins.dtype == torch.int64


def test_bins_on_the_edges_by_hand():
    """0° is bin 0; 90° = 3 · 30° begins bin 3; 180° belongs to bin 5, not to a seventh class."""
    vectors = torch.zeros(17, 3, dtype=torch.float64)
    vectors[1] = torch.tensor([0.0, 0.0, 2.0])  # straight away from the camera
    vectors[2] = torch.tensor([3.0, 4.0, 0.0])  # across
    vectors[3] = torch.tensor([0.0, 0.0, -1.0])  # straight towards it
    for dtype in (torch.float32, torch.float64):
        bins = polar_bins(pose_of_bones(vectors, H36M).to(dtype), H36M)
        assert bins[1:4].tolist() == [0, 3, 5]
        # A bone of length 0 has angle atan2(0, 0) = 0.
        assert bins[4:].tolist() == [0] * 13


@BOTH
def test_bins_against_a_loop(skeleton, rng):
    pose = torch.from_numpy(rng.standard_normal((4, 9, 17, 3)))
    bins = polar_bins(pose, skeleton)
    for clip in range(4):
        for frame in range(9):
            for parent, child in skeleton.bones:
                dx, dy, dz = (pose[clip, frame, child] - pose[clip, frame, parent]).tolist()
                degrees = math.degrees(math.acos(dz / math.sqrt(dx**2 + dy**2 + dz**2)))
                assert bins[clip, frame, child] == int(degrees // 30)


@BOTH
@pytest.mark.parametrize("slots", ["released", "child"])
def test_bone_features_against_a_loop(skeleton, slots, rng):
    pose = torch.from_numpy(rng.standard_normal((3, 17, 3)))
    bins = torch.from_numpy(rng.integers(0, 6, (3, 17)))
    features = bone_features(pose, bins, skeleton, slots)
    expected = np.zeros((3, 17, 3))
    for frame in range(3):
        for bone, (parent, child) in enumerate(skeleton.bones):
            dx, dy = (pose[frame, child, :2] - pose[frame, parent, :2]).tolist()
            polar = (2 * bins[frame, child].item() + 1) / 12
            r = math.hypot(dx, dy)
            z = r / math.tan(polar * math.pi)
            slot = bone if slots == "released" else child
            expected[frame, slot] = (
                math.atan2(dy, dx) / math.pi,
                polar,
                math.sqrt(r * r + z * z),
            )
    assert np.allclose(features, expected, atol=1e-12)
    empty = 16 if slots == "released" else skeleton.root
    assert (features[:, empty] == 0).all()


def test_bone_features_by_hand():
    """Right hip 0.3 to the left of the pelvis, bin 2 (75°): length 0.3 / sin 75°."""
    pose = torch.zeros(17, 3)
    pose[1, 0] = -0.3
    bins = torch.full((17,), 2)
    feature = bone_features(pose, bins, H36M, "released")[0]
    assert feature.tolist() == pytest.approx([1.0, 5 / 12, 0.3 / 0.9659258], rel=1e-6)


@pytest.mark.parametrize("slots", ["released", "child"])
def test_bones_of_length_zero_are_finite(slots):
    bins = torch.arange(17) % 6
    features = bone_features(torch.full((17, 3), 0.4), bins, H36M, slots)
    assert torch.isfinite(features).all()
    assert (features[:, 2] == 0).all()


def test_confidence_is_not_read_as_a_coordinate(rng):
    pose = torch.from_numpy(rng.standard_normal((2, 17, 3)))
    other = pose.clone()
    other[..., 2] = 0.1
    bins = torch.ones(2, 17, dtype=torch.int64)
    assert torch.equal(bone_features(pose, bins, H36M), bone_features(other, bins, H36M))


def test_unknown_slots_are_refused():
    with pytest.raises(ValueError, match="slots"):
        bone_features(torch.zeros(17, 3), torch.zeros(17, dtype=torch.int64), H36M, "parent")


@BOTH
def test_the_mirror_image(skeleton, rng):
    pose = torch.from_numpy(rng.standard_normal((2, 5, 17, 3)))
    mirrored = flip_pose(pose, skeleton)
    assert torch.equal(flip_pose(mirrored, skeleton), pose)
    left = skeleton.names.index("left_knee")
    right = skeleton.names.index("right_knee")
    assert torch.equal(mirrored[..., left, 0], -pose[..., right, 0])
    assert torch.equal(mirrored[..., left, 1:], pose[..., right, 1:])
    assert torch.equal(mirrored[..., skeleton.root, 1:], pose[..., skeleton.root, 1:])


@BOTH
def test_mirroring_keeps_polar_angles(skeleton, rng):
    pose = torch.from_numpy(rng.standard_normal((6, 17, 3)))
    bins = polar_bins(flip_pose(pose, skeleton), skeleton)
    assert torch.equal(bins, polar_bins(pose, skeleton)[:, list(skeleton.flip_order)])


def test_bone_vectors_point_from_parent_to_child():
    pose = torch.arange(17.0)[:, None].expand(17, 3)
    lengths = [child - parent for parent, child in MPI_INF_3DHP.bones]
    assert bone_vectors(pose, MPI_INF_3DHP)[:, 0].tolist() == lengths
