"""What cameras and the detector see of a motion: geometry by independent formulas."""

import numpy as np
import pytest

from data.bodies import random_body
from data.cameras import CAMERAS, MIN_DEPTH, View, image_and_depth
from data.detector_noise import detect, hidden
from data.filming import draw_view, film, video_of
from data.sources.synthetic import perform, pose_body, rest_pose
from lib.camera import Camera
from lib.errors import UserError
from lib.skeleton import H36M

JOINT = {name: index for index, name in enumerate(H36M.names)}


def motion(action, seed=0, num_frames=300):
    """A motion on a random body."""
    rng = np.random.default_rng(seed)
    return perform(rng, action, rest_pose() * random_body(rng)[:, None], num_frames)


# --- Cameras ---


def test_projection_agrees_with_homogeneous_matrices():
    world = motion("walk")
    view = draw_view(np.random.default_rng(0), world, CAMERAS[0], heading=40)
    image, factor = image_and_depth(view.to_camera(world), view.camera)

    (fx, fy), (cx, cy) = view.camera.focal, view.camera.center
    forward = (view.target - view.position) / np.linalg.norm(view.target - view.position)
    right = np.array([forward[1], -forward[0], 0]) / np.hypot(forward[0], forward[1])
    extrinsic = np.eye(4)
    extrinsic[:3, :3] = right, -np.cross(right, forward), forward
    extrinsic[:3, 3] = -extrinsic[:3, :3] @ view.position
    matrix = np.array([[fx, 0, cx, 0], [0, fy, cy, 0], [0, 0, 1, 0]]) @ extrinsic
    assert np.linalg.det(extrinsic) == pytest.approx(1)
    homogeneous = np.concatenate([world, np.ones((*world.shape[:2], 1))], -1) @ matrix.T
    depth = homogeneous[..., 2]
    np.testing.assert_allclose(image[..., :2], homogeneous[..., :2] / depth[..., None], rtol=1e-9)
    np.testing.assert_allclose(factor, depth[:, 0] / ((fx + fy) / 2), rtol=1e-9)
    np.testing.assert_allclose(
        image[..., 2] * factor[:, None], depth - depth[:, :1], rtol=1e-9, atol=1e-7
    )


def test_seen_from_the_front_the_left_hand_is_on_the_right():
    """And up is up, and what is nearer has the smaller depth."""
    pose = pose_body(rest_pose(), {"pelvis": np.eye(3)}, 1)  # faces along x
    pose[..., 2] += 975
    middle = np.array([0.0, 0.0, 1000.0])
    for distance, sign in ((5000.0, 1), (-5000.0, -1)):  # from the front, from behind
        view = View(CAMERAS[1], np.array([distance, 0, 1500]), middle)
        image, _ = image_and_depth(view.to_camera(pose), view.camera)
        x, y, z = image[0].T
        assert sign * (x[JOINT["left_wrist"]] - x[JOINT["right_wrist"]]) > 50
        assert y[JOINT["head"]] + 300 < y[JOINT["left_ankle"]]
        assert sign * (z[JOINT["head"]] - z[JOINT["neck"]]) > 0  # the nose is at the front


def test_a_mirrored_person_gives_the_mirrored_picture_with_sides_swapped():
    camera = Camera("ideal", (1000, 1000), (1145.0, 1145.0), (500.0, 500.0))
    world = motion("walk")
    view = View(camera, np.array([4000.0, -2000.0, 1500.0]), np.array([0.0, 0.0, 900.0]))
    mirrored_view = View(camera, view.position * [1, -1, 1], view.target * [1, -1, 1])
    mirrored = world[:, list(H36M.flip_order)] * [1, -1, 1]
    image, factor = image_and_depth(view.to_camera(world), camera)
    other, other_factor = image_and_depth(mirrored_view.to_camera(mirrored), camera)
    np.testing.assert_allclose(other_factor, factor)
    expected = image[:, list(H36M.flip_order)] * [-1, 1, 1] + [1000, 0, 0]
    np.testing.assert_allclose(other, expected, atol=1e-7)


def test_who_walks_out_of_the_picture_is_filmed_in_parts_that_miss_nothing():
    world = motion("squat", num_frames=240)
    world = world + np.linspace(0, 1, 240)[:, None, None] * [12_000, 0, 0]
    windows = list(film(np.random.default_rng(0), world, 2))
    assert len(windows) > 2
    np.testing.assert_array_equal(np.concatenate([window for window, _ in windows]), world)
    for window, views in windows:
        assert len(views) == 2
        assert all(view.sees(window) for _, view in views)


@pytest.mark.parametrize(
    ("point", "seen"),
    [
        ((3000, 0, 1000), True),
        ((3000, 1400, 1000), False),  # the image ends 490 / 1149 of the depth to the side
        ((3000, 0, 2400), False),
        ((MIN_DEPTH - 1, 0, 1000), False),
        ((-3000, 0, 1000), False),  # behind the lens, where the projection falls in the image
    ],
)
def test_a_view_ends_at_the_edges_and_before_the_lens(point, seen):
    view = View(CAMERAS[2], np.array([0.0, 0, 1000]), np.array([1.0, 0, 1000]))
    assert view.sees(np.array([[point]], dtype=float)) == seen


def test_a_giant_is_refused():
    with pytest.raises(UserError, match="unit"):
        list(film(np.random.default_rng(0), 1000 * motion("squat", num_frames=2), 1))


# --- Detector ---


def front_view(pose):
    """2.5D in mm of poses that face the camera: x right, y down, z away."""
    return np.stack([pose[..., 1], -pose[..., 2], -pose[..., 0]], axis=-1)


def test_a_hand_behind_the_back_is_hidden_and_one_before_the_chest_is_not():
    pose = pose_body(rest_pose(), {"pelvis": np.eye(3)}, 2)
    pose[:, JOINT["left_wrist"]] = pose[:, JOINT["spine"]] + [[-200, 0, 30], [200, 0, 30]]
    behind, before = hidden(front_view(pose))
    assert behind[JOINT["left_wrist"]] > 0.95
    assert before[JOINT["left_wrist"]] < 0.01
    assert behind[JOINT["right_wrist"]] < 0.1


def test_fast_joints_are_detected_worse_and_with_heavier_tails():
    rest = front_view(pose_body(rest_pose(), {"pelvis": np.eye(3)}, 1)) / 4.4 + [500, 500, 0]
    image, factor = np.repeat(rest, 4000, axis=0), np.full(4000, 4.4)
    moved = image.copy()
    moved[:, JOINT["left_wrist"], 0] += 60 * np.sin(np.arange(4000) / 3)
    result = {}
    for name, pose in (("still", image), ("fast", moved)):
        joint_2d, confidence = detect(np.random.default_rng(1), pose, factor)
        error = (joint_2d - pose[..., :2])[:, JOINT["left_wrist"]]
        result[name] = (
            error.std(),
            (error**4).mean() / (error**2).mean() ** 2,  # 3 for a normal distribution
            -confidence[:, JOINT["left_wrist"]].mean(),
        )
    for still, fast in zip(result["still"], result["fast"], strict=True):
        assert fast > still
    assert result["still"][1] > 3.2
    assert 1 < result["still"][0] < 8  # pixels, at about 5 m


def test_errors_last_but_confidence_knows():
    """A detector's error is like the frame before; where it is large, confidence is low."""
    world = motion("walk", num_frames=2000)
    view = View(CAMERAS[2], np.array([6000.0, 0, 1500]), world[0, 0])
    image, factor = image_and_depth(view.to_camera(world), view.camera)
    joint_2d, confidence = detect(np.random.default_rng(0), image, factor)
    error = joint_2d - image[..., :2]
    later = np.corrcoef(error[:-1].ravel(), error[1:].ravel())[0, 1]
    assert 0.4 < later < 0.8
    size = np.linalg.norm(error, axis=-1)
    assert np.corrcoef(size.ravel(), confidence.ravel())[0, 1] < -0.4
    assert confidence.min() > 0 and confidence.max() <= 1


def test_a_video_holds_what_the_detector_saw_not_the_truth():
    """And its 3D pose gives the body back: pixels at the root's scale."""
    world = motion("walk", num_frames=200)
    view = View(CAMERAS[0], np.array([5000.0, 0, 1500]), np.array([0.0, 0, 900]))
    video = video_of(np.random.default_rng(0), world, view, "a", "walk", "1")
    image, factor = image_and_depth(view.to_camera(world), view.camera)
    np.testing.assert_allclose(video.joint_3d, image, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(
        video.joint_3d_mm, image * factor[:, None, None], rtol=1e-5, atol=0.1
    )
    error = np.linalg.norm(video.joint_2d - image[..., :2], axis=-1)
    assert 1 < np.median(error) < 30  # pixels
    sure = video.confidence > np.median(video.confidence)
    assert error[sure].mean() < 0.8 * error[~sure].mean()
    (described,) = video.videos
    assert (described.camera, described.action, described.frames) == (CAMERAS[0], "walk", 200)
