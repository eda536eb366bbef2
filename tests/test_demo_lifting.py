"""Lifting tracks of any length, and standing the result in a room."""

import numpy as np
import pytest

from demo.lifting import blend_weights, bridge_confidence, clip_frames, lift_even, reflected
from demo.poses import bone_lengths
from demo.world import (
    REFERENCE_MM,
    estimate_pitch,
    floor_height,
    millimetres_per_unit,
    places,
    to_room,
)
from lib.camera import camera_to_world
from lib.skeleton import H36M
from tests.demo_samples import in_camera, standing


class Stub:
    """A lifter whose pose of a frame is that frame's own keypoints, offset by the clip's number."""

    def __init__(self, n_frames: int, offset: float = 0.0) -> None:
        self.n_frames, self.offset, self.seen = n_frames, offset, []

    def lift(self, clips: np.ndarray) -> np.ndarray:
        assert clips.shape[1:] == (self.n_frames, 17, 3)
        self.seen.append(clips)
        return clips + self.offset * np.arange(len(clips))[:, None, None, None]


def seconds(frames: int) -> np.ndarray:
    return np.arange(frames) / 25


def track(frames: int) -> np.ndarray:
    """(F, 17, 3), the root at 0, smooth in time."""
    t = np.arange(frames)[:, None, None] / 25
    phase = np.arange(51).reshape(17, 3)
    pose = np.sin(t + phase).astype(np.float32)
    return pose - pose[:, :1]


@pytest.mark.parametrize("n_frames", [27, 81])
@pytest.mark.parametrize("times", [1 / 27, 0.4, 1, 1.01, 2, 7.3])
def test_every_frame_keeps_its_own_time(n_frames, times):
    """No stretching: lifted by a stub that copies, a track of any length comes back as it was."""
    pose = track(max(1, round(times * n_frames)))
    np.testing.assert_allclose(lift_even(Stub(n_frames), pose), pose, atol=1e-6)


def test_a_short_track_is_continued_by_reflection():
    assert reflected(np.arange(-4, 9), 4).tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert reflected(np.arange(-2, 3), 1).tolist() == [0, 0, 0, 0, 0]
    stub = Stub(9)
    lift_even(stub, track(4))
    expected = track(4)[[2, 1, 0, 1, 2, 3, 2, 1, 0]]
    np.testing.assert_array_equal(stub.seen[0][0], expected)


def test_clips_cover_every_frame_and_none_beyond():
    for length in (27, 28, 44, 45, 54, 1000):
        frames = clip_frames(length, 27)
        assert set(frames.ravel()) == set(range(length))
        assert (np.diff(frames, axis=1) == 1).all()
        # Overlapping by half: each border of a clip lies in the middle of another.
        assert (np.diff(frames[:, 0]) <= 14).all()


def test_nothing_jumps_where_a_clip_ends():
    """Where clips disagree, the result bends at their borders no more than between them."""

    class Disagreeing(Stub):
        def lift(self, clips):
            poses = np.zeros_like(clips)
            number = np.arange(len(clips))[:, None, None, None]
            poses[:, :, 1:] = np.where(number % 2, 1, -1)
            return poses

    length = 27 + 14 * 12
    lifted = lift_even(Disagreeing(27), track(length))[:, 5, 0]
    assert lifted.min() < -0.9 and lifted.max() > 0.9
    bends = np.abs(np.diff(lifted, 2))  # of frames 1, 2, ...
    clips = clip_frames(length, 27)
    borders = np.concatenate([clips[1:, 0], clips[:-1, -1] + 1])
    at_border = np.isin(np.arange(1, length - 1), [borders - 1, borders])
    assert bends[at_border].max() < bends[~at_border].max()


def test_weights_are_largest_in_the_middle_and_never_zero():
    weights = blend_weights(27)
    assert weights.argmax() == 13 and weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1], rtol=1e-9)
    assert blend_weights(1) == 1


def test_unseen_joints_are_shown_with_their_neighbours_confidence():
    screen = np.full((6, 17, 3), 0.5)
    screen[:, 3, 2] = [0, 0.2, 0, 0, 0.8, 0]
    screen[:, 4, 2] = 0
    bridged = bridge_confidence(screen)
    np.testing.assert_allclose(bridged[:, 3, 2], [0.2, 0.2, 0.4, 0.6, 0.8, 0.8])
    assert (bridged[:, 4, 2] == 0).all()  # never seen: nothing is known
    bridged[:, 3, 2] = screen[:, 3, 2]
    np.testing.assert_array_equal(bridged, screen)


def test_the_order_of_batches_does_not_matter():
    pose = track(300)
    few, many = (lift_even(Stub(27), pose, clips_at_once=n) for n in (2, 100))
    np.testing.assert_allclose(few, many, atol=1e-6)


# --- The room -------------------------------------------------------------------------------


@pytest.mark.parametrize("pitch", [-10, 0, 12, 35])
@pytest.mark.parametrize("turn", [0, 40, 90, 180])
def test_the_camera_pitch_is_found_from_people_who_stand(pitch, turn):
    pose = in_camera(standing(turn=turn), pitch)
    np.testing.assert_allclose(camera_to_world(pose, pitch), standing(turn=turn), atol=1e-6)
    assert estimate_pitch([pose], [seconds(60)]) == pytest.approx(pitch, abs=2)


def test_someone_who_sits_does_not_tilt_the_room():
    """Half the time bent far forward: only the upright half tells the vertical."""
    pose = standing(frames=80)
    bent = standing(frames=80, lean=70)
    upper = [H36M.index(name) for name in ("spine", "thorax", "neck", "head")]
    mixed = pose.copy()
    mixed[40:, upper] = bent[40:, upper]
    assert estimate_pitch([in_camera(mixed, 10)], [seconds(80)]) == pytest.approx(10, abs=3)


def test_feet_stand_on_the_floor_and_sizes_stay():
    pose = in_camera(standing(), 15)
    world = to_room(pose, 15, seconds(60))
    assert np.abs(world[..., 2].min(axis=1)).max() < 5  # mm
    np.testing.assert_allclose(bone_lengths(world), bone_lengths(pose), rtol=1e-4)
    assert world[:, H36M.index("head"), 2].min() > 1400


def test_a_squat_brings_the_pelvis_down_not_the_feet_up():
    pose = standing(frames=100)
    bend = np.sin(np.linspace(0, np.pi, 100)) * 300
    feet = [H36M.index(f"{side}_ankle") for side in ("left", "right")]
    pose[:, feet, 2] += bend[:, None]  # root-relative: the ankles come nearer to the pelvis
    world = to_room(in_camera(pose, 0), 0, seconds(100))
    drop = world[0, 0, 2] - world[:, 0, 2]
    np.testing.assert_allclose(drop[5:-5], bend[5:-5], atol=25)


def test_the_floor_is_averaged_not_delayed():
    world = np.zeros((50, 17, 3))
    world[..., 2] = 1000 - 4 * np.arange(50)[:, None]
    np.testing.assert_allclose(
        floor_height(world, seconds(50))[12:-12], world[12:-12, 0, 2], atol=1e-6
    )
    assert floor_height(np.ones((1, 17, 3)), seconds(1)) == pytest.approx([1])


def test_one_scale_makes_a_body_of_average_size():
    pose = standing() * 0.001
    scale = millimetres_per_unit(pose)
    assert scale == pytest.approx(1000, rel=1e-6)
    assert sum(REFERENCE_MM.values()) == 2290


def test_someone_half_as_large_stands_twice_as_far_away():
    near = np.full((5, 17, 3), [640.0, 300, 1])
    far = np.full((5, 17, 3), [740.0, 300, 1])
    spots = places([near, far], [2.0, 4.0], (1280, 720))
    assert spots[1, 0] - spots[0, 0] == pytest.approx(400)
    distances = spots[:, 1] + np.mean([1.15 * 1280 * scale for scale in (2, 4)])
    assert distances[1] == pytest.approx(2 * distances[0])


def test_clips_that_disagree_about_the_root_agree_about_the_pose():
    class Wandering(Stub):
        def lift(self, clips):
            return clips + 5.0 * np.arange(len(clips))[:, None, None, None]

    np.testing.assert_allclose(lift_even(Wandering(27), track(100)), track(100), atol=1e-5)
