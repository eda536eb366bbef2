"""Cameras that are tilted sideways: told by people who stand, and put right."""

import numpy as np
import pytest

from demo.tilt import estimate_tilt, turned
from lib.skeleton import H36M
from tests.demo_samples import Known, in_camera, in_picture, standing

UPPER = [H36M.index(name) for name in ("spine", "thorax", "neck", "head")]


def by_complex_numbers(points: np.ndarray, degrees: float) -> np.ndarray:
    """Clockwise on the screen, where y goes down: a turn by a positive angle."""
    result = points.copy()
    there = (points[..., 0] + 1j * points[..., 1]) * np.exp(1j * np.deg2rad(degrees))
    result[..., 0], result[..., 1] = there.real, there.imag
    return result


def tilt_of(*poses: np.ndarray, fps: float = 25.0) -> float:
    return estimate_tilt(poses, [np.arange(len(pose)) / fps for pose in poses])


def test_what_is_turned_clockwise_leans_to_the_right(rng):
    points = rng.normal(size=(4, 17, 3))
    np.testing.assert_allclose(turned(points, 30), by_complex_numbers(points, 30), atol=1e-12)
    np.testing.assert_allclose(turned(np.array([0.0, -1]), 90), [1, 0], atol=1e-12)
    np.testing.assert_array_equal(turned(points, 0), points)


@pytest.mark.parametrize("tilt", [-40, -12, 9, 25])
@pytest.mark.parametrize("turn", [0, 90, 150])
def test_a_tilt_is_told_by_people_who_stand(tilt, turn):
    pose = turned(in_camera(standing(turn=turn), 15), tilt)
    assert tilt_of(pose) == pytest.approx(tilt, abs=2)


def test_people_who_lean_lie_or_stand_for_a_moment_only_tilt_nothing():
    pose = in_camera(standing(), 10)
    assert tilt_of(pose) == tilt_of() == 0
    assert tilt_of(turned(pose, 6)) == 0  # as people do
    assert tilt_of(turned(pose, 90)) == 0  # who lies
    assert tilt_of(turned(pose, 20)[:10]) == 0  # 0.4 s
    assert tilt_of(turned(pose, 20)[:10], turned(pose, 20)[:10]) == pytest.approx(20, abs=2)
    bent = pose.copy()
    bent[:, UPPER] = turned(pose, 24)[:, UPPER]
    assert tilt_of(bent) == 0  # the trunk alone
    assert tilt_of(turned(pose, 25), pose, pose) == 0  # one of three


@pytest.mark.parametrize("fov", [55.0, None])
def test_poses_of_a_tilted_picture_are_those_of_a_level_one(fov):
    """What differs is where they are in the camera's axes: turned as the picture is."""
    level = in_picture(300, 350, 25)
    keypoints = level.copy()
    middle = np.array([320, 240])
    keypoints[..., :2] = by_complex_numbers(level[..., :2] - middle, 20) + middle
    lift = Known().lift_keypoints
    expected = lift(level, (640, 480), 25.0, camera_pitch=0.0, fov=fov)
    told = lift(keypoints, (640, 480), 25.0, camera_pitch=0.0, camera_roll=20.0, fov=fov)
    assert (expected.camera_roll, told.camera_roll) == (0, 20)
    np.testing.assert_allclose(told.pose_world, expected.pose_world, atol=0.5)
    np.testing.assert_allclose(told.pose_3d, by_complex_numbers(expected.pose_3d, 20), atol=0.5)
    np.testing.assert_allclose(told.keypoints_2d[0], keypoints, atol=1e-3)
    found = lift(keypoints, (640, 480), 25.0, camera_pitch=0.0, fov=fov)
    assert found.camera_roll == pytest.approx(20, abs=1)
    np.testing.assert_allclose(found.pose_world, expected.pose_world, atol=40)
    asked = lift(keypoints, (640, 480), 25.0, camera_pitch=0.0, camera_roll=0.0, fov=fov)
    assert asked.camera_roll == 0
    assert np.abs(asked.pose_world - expected.pose_world).max() > 200
