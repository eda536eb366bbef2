"""The demo's Python API: keypoints in, poses out."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from demo.people import People
from demo.pipeline import VideoLifter
from demo.poses import bone_lengths, bone_variation
from demo.smoothing import smooth_track
from demo.tracks import tracks_of
from demo.world import AVERAGE_HEIGHT, FOCAL_PER_WIDTH, millimetres_per_unit
from lib.checkpoint import BEST, save_checkpoint
from lib.config import make_config
from lib.errors import UserError
from lib.files import PROJECT_ROOT
from lib.keypoints import H36M_17
from lib.skeleton import H36M
from model.build import build_bone_aware, build_lifter
from tests.demo_samples import Known, in_camera, in_picture, standing, walking


@pytest.fixture(scope="module")
def lifter(checkpoint) -> VideoLifter:
    return VideoLifter.from_checkpoint(checkpoint.parent, device="cpu")


@pytest.mark.parametrize("frames", [1, 5, 9, 18, 61])
def test_poses_of_any_length(lifter, frames):
    poses = lifter.lift_keypoints(walking(frames, 2), (640, 480), 25.0)
    assert poses.pose_3d.shape == poses.pose_world.shape == (2, frames, 17, 3)
    assert np.isfinite(poses.pose_world).all() and (poses.pose_3d[:, :, 0] == 0).all()
    assert poses.confidence.min() > 0


def test_legs_that_are_never_seen_hang_straight_down():
    keypoints = walking(4)[0]
    knee, ankle = H36M.index("left_knee"), H36M.index("left_ankle")
    keypoints[:, [knee, ankle]] = 0
    people = People.of_array(keypoints[None], H36M_17).filmed(25.0, (640, 480))
    (track,) = (one.joints for one in tracks_of(people))
    hip = keypoints[:, H36M.index("left_hip")]
    np.testing.assert_array_equal(track[:, ankle, 0], hip[:, 0])
    assert (track[:, ankle, 1] > track[:, knee, 1]).all() and (track[:, knee, 1] > hip[:, 1]).all()
    assert (track[:, [knee, ankle], 2] == 0).all()
    others = [joint for joint in range(17) if joint not in (knee, ankle)]
    np.testing.assert_array_equal(track[:, others], keypoints[:, others])


def test_one_scale_for_the_whole_video(lifter):
    """The ratio of mm to the model's units is the same in every frame."""
    keypoints = walking(20)
    poses = lifter.lift_keypoints(keypoints, (640, 480), 25.0, camera_pitch=0.0)
    raw = lifter.lift_keypoints(keypoints, (640, 480), 25.0, camera_pitch=30.0)
    np.testing.assert_array_equal(poses.pose_3d, raw.pose_3d)
    assert (poses.camera_pitch, raw.camera_pitch) == (0.0, 30.0)


def test_bones_have_one_length_unless_left_free(lifter):
    people = People.of_array(walking(30), H36M_17).filmed(25.0, (640, 480))
    constant, free = (
        lifter.lift_people(people, constant_bones=fixed, camera_pitch=0.0)
        for fixed in (True, False)
    )
    lengths = bone_lengths(constant.pose_world[0])
    assert (lengths.std(axis=0) / lengths.mean(axis=0)).max() < 1e-4
    assert bone_variation(free.pose_3d[0]) == pytest.approx(constant.bone_variation[0])
    assert constant.bone_variation[0] > 0.001


def test_unseen_frames_keep_their_place(lifter):
    keypoints = walking(12)
    keypoints[:, :3] = 0
    poses = lifter.lift_keypoints(keypoints, (640, 480), 25.0)
    assert poses.num_frames == 12
    assert (poses.confidence[0, :3] == 0).all() and (poses.confidence[0, 3:] > 0).all()
    with pytest.raises(UserError, match="nothing can be lifted"):
        lifter.lift_keypoints(np.zeros((5, 17, 3)), (640, 480), 25.0)
    with pytest.raises(UserError, match="wants"):
        lifter.lift_keypoints(np.zeros((5, 26, 3)), (640, 480), 25.0)


@pytest.mark.parametrize("part", ["model", "bone_aware"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_told(checkpoint, tmp_path, part, value):
    contents = torch.load(checkpoint, weights_only=True)
    name = next(name for name in contents[part] if name.endswith("mlp.fc1.weight"))
    contents[part][name][0, 0] = value
    save_checkpoint(tmp_path / "best_epoch.pth.tr", contents)
    damaged = VideoLifter.from_checkpoint(tmp_path)
    with pytest.raises(UserError, match="not finite"):
        damaged.lift_keypoints(walking(12), (640, 480), 25.0)


def test_a_checkpoint_lifts_in_the_forms_that_it_carries(tmp_path):
    """All but the published ones: then a person twice as large has the pose twice as large."""
    sizes = {"learning_rate": 1e-3, "batch_size": 1, "epochs": 1, "channel": 16, "st_depth": 2}
    sizes |= {"n_frames": 9, "input": "person", "bins": 9}
    forms = {"output": "residual", "bone_angle": "expectation", "bone_confidence": True}
    first = build_bone_aware(make_config(sizes, "test", 1))
    config = make_config({**sizes, **forms}, "test", 2)
    contents = {"model": build_lifter(config).state_dict(), "config": config.as_dict()}
    parts = {"bone_aware": first.state_dict(), "bone_aware_forms": first.forms()}
    save_checkpoint(tmp_path / BEST, {**contents, **parts})
    lifter = VideoLifter.from_checkpoint(tmp_path, device="cpu")
    clips = np.random.default_rng(0).uniform(-0.5, 0.5, (1, 9, 17, 3)).astype(np.float32)
    zoomed = clips.copy()
    zoomed[..., :2] += clips[..., :2] - clips[..., :1, :2]
    np.testing.assert_allclose(lifter.lift(zoomed), 2 * lifter.lift(clips), rtol=1e-3, atol=1e-4)
    poses = lifter.lift_keypoints(walking(12), (640, 480), 25.0)
    assert np.isfinite(poses.pose_world).all()


@pytest.mark.parametrize(("given", "rate"), [({}, 50.0), ({"frame_rate": 25.0}, 25.0)])
def test_a_checkpoint_lifts_at_its_own_frame_rate(tmp_path, monkeypatch, given, rate):
    """A second of a video: so many frames for the network, whatever the video's rate."""
    sizes = {"learning_rate": 1e-3, "batch_size": 1, "epochs": 1, "channel": 16, "st_depth": 2}
    sizes |= {"n_frames": 9, "dataset": "mocap", "bone_branch": False, **given}
    config = make_config(sizes, "test", 2)
    contents = {"model": build_lifter(config).state_dict(), "config": config.as_dict()}
    save_checkpoint(tmp_path / BEST, contents)
    lifter = VideoLifter.from_checkpoint(tmp_path, device="cpu")
    assert lifter.frame_rate == rate
    lengths = []
    monkeypatch.setattr("demo.lifting.lift_even", lambda _, even: lengths.append(len(even)) or even)
    for fps in (10, 24):
        lifter.lift_keypoints(walking(fps + 1), (640, 480), float(fps))
    assert lengths == [rate + 1, rate + 1]


def test_importing_the_demo_loads_nothing_heavy():
    script = (
        "import sys; import demo; from demo import VideoLifter, Poses;"
        "import demo.vis as vis; heavy = {'torch', 'onnxruntime'} & set(sys.modules);"
        "sys.exit(repr(heavy) if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT_ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# --- What happens around the network, with one whose answer is known ------------------------


def test_a_body_has_the_size_of_an_average_one():
    poses = Known().lift_keypoints(in_picture(300, 320), (640, 480), 25.0)
    for pose in (poses.pose_3d[0], poses.pose_world[0]):
        assert millimetres_per_unit(pose) == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize(
    ("fov", "focal"),
    [(60.0, 0.5 * np.sqrt(3)), (2 * np.rad2deg(np.arctan(0.25)), 2.0), (None, FOCAL_PER_WIDTH)],
)
def test_people_stand_where_they_are_seen(fov, focal):
    """Someone who looks half as large is twice as far away, and as far to the side as seen.

    focal: length over the picture's width; half the width over it is the tangent of half the
    field of view.
    """
    people = np.stack([in_picture(420, 320), in_picture(210, 480)])
    poses = Known().lift_keypoints(people, (640, 480), 25.0, camera_pitch=0.0, fov=fov)
    assert poses.fov == (fov or 0)
    mm_per_pixel = 1 / millimetres_per_unit(standing()) / 420 * np.ptp(standing()[0, :, 2])
    across, away, _ = poses.pose_world[1, 0, 0] - poses.pose_world[0, 0, 0]
    assert across == pytest.approx(160 * 2 * mm_per_pixel, rel=2e-2)
    assert away == pytest.approx(focal * 640 * mm_per_pixel, rel=2e-2)


def test_each_shot_has_a_camera_of_its_own():
    """20 frames by a camera that looks down by 5 degrees, 9 by one that does by 30."""
    lifter = Known()
    poses = [in_camera(standing(50), pitch) / 1000 for pitch in (5, 30)]
    keypoints = np.concatenate([in_picture(300, 320, 20), in_picture(200, 320, 9)])
    people = People.of_array(keypoints[None], H36M_17).filmed(25.0, (640, 480))
    people = replace(people, cuts=np.array([20]))
    for fov in (55.0, None):
        # The second shot is lifted last.
        lifter.lift = lambda clips, left=[*poses]: np.broadcast_to(
            (left.pop(0) if len(left) > 1 else left[0])[: clips.shape[1]], clips.shape
        )
        found = lifter.lift_people(people, fov=fov)
        assert found.camera_pitch == pytest.approx(5, abs=1.5)
        trunk = found.pose_world[0, :, H36M.index("thorax")] - found.pose_world[0, :, 0]
        for shot in (slice(0, 20), slice(20, 29)):
            np.testing.assert_allclose(trunk[shot].mean(axis=0), [0, 0, 490], atol=25)  # upright


def test_people_go_where_they_are_seen_to_go_unless_in_place():
    """From the left to the right, and twice as far at twice the height."""
    keypoints = in_picture(200, 100, frames=40)
    keypoints[..., 0] += 10 * np.arange(40)[:, None]
    mm_per_pixel = millimetres_per_unit(in_picture(200, 0) * [1, 1, 0])
    for height, share in ((None, 1.0), (AVERAGE_HEIGHT, 1.0), (AVERAGE_HEIGHT / 2, 0.5)):
        poses = Known().lift_keypoints(keypoints, (640, 480), 25.0, height=height)
        way = poses.pose_world[0, :, 0] - poses.pose_world[0, 0, 0]
        assert (poses.pose_world[0, 0, 0, :2] == 0).all()
        expected = share * 10 * mm_per_pixel * np.arange(40)
        np.testing.assert_allclose(way[:, 0], expected, rtol=0.02, atol=10)
        assert np.abs(way[:, 1]).max() < 100 * share
    still = Known().lift_keypoints(keypoints, (640, 480), 25.0, fov=None)
    np.testing.assert_array_equal(still.pose_world[0, :, 0, :2], 0)


def test_the_network_is_shown_no_gaps_in_the_range_it_knows():
    keypoints = in_picture(40, 620)  # tiny and at the border
    keypoints[4:6] = 0
    keypoints[7, 3, 2] = 0
    lifter = Known()
    poses = lifter.lift_keypoints(keypoints, (640, 480), 25.0)
    shown = np.concatenate(lifter.seen)
    assert (shown[..., 2] == 1).all()
    assert np.ptp(shown[..., :2], axis=-2).max(axis=-1).min() > 0.59
    assert poses.confidence[0].min(axis=1).tolist() == [1, 1, 1, 1, 0, 0, 1, 0, 1, 1, 1, 1]


def test_the_cameras_pitch_is_estimated_unless_given():
    lifter = Known(in_camera(standing(9), 20) / 1000)
    keypoints = in_picture(300, 320, frames=9)
    found = lifter.lift_keypoints(keypoints, (640, 480), 25.0)
    assert found.camera_pitch == pytest.approx(20, abs=1)
    given = lifter.lift_keypoints(keypoints, (640, 480), 25.0, camera_pitch=20.0, fov=None)
    trunk = given.pose_world[0, :, H36M.index("thorax")] - given.pose_world[0, :, 0]
    np.testing.assert_allclose(trunk.mean(axis=0), [0, 0, 490], atol=20)  # upright
    level = lifter.lift_keypoints(keypoints, (640, 480), 25.0, camera_pitch=0.0, fov=None)
    np.testing.assert_allclose(level.pose_world[..., 0], given.pose_world[..., 0], atol=1e-3)
    assert np.abs(level.pose_world - given.pose_world)[..., 1].max() > 100


def test_smooth_filters_the_keypoints():
    keypoints = in_picture(300, 320)
    keypoints[..., :2] += np.random.default_rng(3).normal(0, 2, (12, 17, 2))
    (found,) = Known().lift_keypoints(keypoints, (640, 480), 25.0, smooth=True).keypoints_2d
    np.testing.assert_array_equal(found, smooth_track(keypoints, np.arange(12) / 25))
    assert np.abs(found - keypoints).max() > 1


def test_a_joint_that_is_never_seen_lies_on_its_mirror_image():
    keypoints = in_picture(300, 320)
    left, right = H36M.index("left_elbow"), H36M.index("right_elbow")
    keypoints[:, left] = 0
    (track,) = Known().lift_keypoints(keypoints, (640, 480), 25.0).keypoints_2d
    np.testing.assert_array_equal(track[:, left, :2], keypoints[:, right, :2])
