"""Keypoint layouts: hand-worked joints, mirror symmetry, and the detections of a real video."""

import numpy as np
import pytest

from lib.errors import UserError
from lib.keypoints import BLAZEPOSE_33, BODY_25, COCO_17, HALPE_26, LAYOUTS, find_layout
from lib.skeleton import H36M
from tests.skips import SHARED, needs_shared

MEDIA = SHARED / "media" / "keypoints_video_juggle.npz"


def test_sizes_are_the_published_ones():
    sizes = {name: layout.in_files for name, layout in LAYOUTS.items()}
    known = {"h36m17": 17, "coco17": 17, "halpe26": 26, "body25": 25, "blazepose33": 33}
    assert sizes == known | {"coco18": 18, "halpe136": 136, "wholebody133": 133}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_moving_a_person_moves_the_joints(layout):
    """Weights sum to 1 in x and in y, so a shift of all keypoints is the same shift of joints."""
    keypoints = np.random.default_rng(0).random((4, layout.num_keypoints, 3))
    shift = np.array([5.0, -3.0, 0.0])
    np.testing.assert_allclose(
        layout.to_h36m(keypoints + shift), layout.to_h36m(keypoints) + shift, atol=1e-5
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_mirroring_before_or_after_is_the_same(layout):
    keypoints = np.random.default_rng(1).random((3, layout.num_keypoints, 3))
    mirrored = keypoints[:, list(layout.mirror)] * [-1, 1, 1]
    expected = layout.to_h36m(keypoints)[:, list(H36M.flip_order)] * [-1, 1, 1]
    np.testing.assert_allclose(layout.to_h36m(mirrored), expected, atol=1e-6)


def test_coco_trunk_by_hand():
    """Shoulders at (±10, 0), hips at (±6, 60), nose (3, -30), eyes (±2, -36), ears (±6, -34)."""
    points = np.zeros((17, 3))
    points[[0, 1, 2, 3, 4]] = [
        [3, -30, 0.9], [2, -36, 0.1], [-2, -36, 0.2], [6, -34, 0.3], [-6, -34, 0.4]
    ]  # fmt: skip
    points[[5, 6]] = [[10, 0, 0.8], [-10, 0, 0.6]]
    points[[11, 12]] = [[6, 60, 0.4], [-6, 60, 0.2]]
    joints = dict(zip(H36M.names, COCO_17.to_h36m(points), strict=True))
    np.testing.assert_allclose(joints["pelvis"], [0, 60, 0.3], atol=1e-6)
    # thorax: a third of the way from (0, 0) to the nose, then 2/3 of (-36 + 30) less in y
    np.testing.assert_allclose(joints["thorax"], [1, -10 + 4, 0.7], atol=1e-6)
    # spine x: 0 + 2 (0 - mean(0, 1)); y: half way between hips and shoulders
    np.testing.assert_allclose(joints["spine"], [-1, 30, 0.5], atol=1e-6)
    np.testing.assert_allclose(joints["neck"], [2.25, -22.5, 0.9], atol=1e-6)
    np.testing.assert_allclose(joints["head"], [0, -72 + 30, 0.25], atol=1e-6)


def test_halpe_and_body25_take_the_detected_trunk():
    for layout, pelvis, neck in ((HALPE_26, "hip", "neck"), (BODY_25, "mid_hip", "neck")):
        points = np.zeros((layout.num_keypoints, 3))
        points[layout.names.index(pelvis)] = [10, 20, 0.5]
        points[layout.names.index(neck)] = [30, 40, 0.25]
        joints = dict(zip(H36M.names, layout.to_h36m(points), strict=True))
        np.testing.assert_allclose(joints["pelvis"], [10, 20, 0.5])
        np.testing.assert_allclose(joints["thorax"], [30, 40, 0.25])
        np.testing.assert_allclose(joints["spine"], [20, 30, 0.25])


def test_limbs_keep_their_side():
    for layout in LAYOUTS.values():
        points = np.zeros((layout.num_keypoints, 3))
        points[layout.names.index("left_wrist")] = [7, 8, 1]
        joints = layout.to_h36m(points)
        np.testing.assert_allclose(joints[H36M.index("left_wrist")], [7, 8, 1])
        assert not joints[H36M.index("right_wrist")].any()


@needs_shared(MEDIA)
def test_blazepose_as_in_the_sample_detections():
    with np.load(MEDIA, allow_pickle=False) as sample:
        keypoints, expected = sample["kp33"][..., [0, 1, 3]], sample["h36m17"]
    np.testing.assert_allclose(BLAZEPOSE_33.to_h36m(keypoints), expected, atol=1e-3)


def test_unknown_layout_is_told_with_the_likely_one():
    with pytest.raises(UserError, match="did you mean 'coco17'"):
        find_layout("coco-17")
