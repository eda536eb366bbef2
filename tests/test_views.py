"""Clips that are rendered anew: functions of (seed, epoch, clip), true to the motion they show."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from data import views
from data.bodies import bones_of
from data.cameras import IMAGE
from data.loader import ClipLoader
from data.motions import UNIT_MM, Motion
from data.sources.synthetic import ACTIONS, perform, rest_pose
from data.views import RenderedClips, Rendering
from lib.processes import Processes
from lib.skeleton import H36M

T = 9
PLAIN = Rendering(
    mixed_bodies=0.0, limb_rotations=0.0, missing_joints=0.0, exact_keypoints=1.0, fixed=False
)


def recordings(num_frames=60):
    for number, action in enumerate(ACTIONS):
        motion = perform(np.random.default_rng(number), action, rest_pose(), num_frames)
        frames = np.rint(motion / UNIT_MM).astype(np.int16)
        yield Motion(action, f"person{number}", 1.0, frames)


@pytest.fixture(scope="module")
def clips() -> RenderedClips:
    return RenderedClips(list(recordings()), T, Rendering())


def same(one, other) -> bool:
    return torch.equal(one.pose_2d, other.pose_2d) and torch.equal(one.pose_3d, other.pose_3d)


# --- What a clip depends on ---


def test_a_clip_does_not_depend_on_what_is_asked_for_beside_it(clips):
    together = clips.draw(range(len(clips)), seed=1, epoch=2)
    assert together.pose_2d.shape == together.pose_3d.shape == (len(clips), T, 17, 3)
    assert together.pose_2d.dtype == torch.float32
    order = np.random.default_rng(0).permutation(len(clips)).tolist()
    for start in range(0, len(order), 7):
        some = order[start : start + 7]
        other = RenderedClips(clips.motions, T, clips.rendering).draw(some, seed=1, epoch=2)
        assert other.clips == some
        assert torch.equal(other.pose_2d, together.pose_2d[some])
        assert torch.equal(other.pose_3d, together.pose_3d[some])


def test_another_seed_epoch_or_clip_is_another_view(clips):
    one = clips.draw([3], seed=1, epoch=2)
    for clip, seed, epoch in ((3, 2, 2), (3, 1, 3), (4, 1, 2)):
        assert not same(one, clips.draw([clip], seed=seed, epoch=epoch))


def test_fixed_views_are_those_of_the_first_epoch(clips):
    fixed = RenderedClips(clips.motions, T, replace(clips.rendering, fixed=True))
    for epoch in (0, 5):
        assert same(fixed.draw([1, 2], seed=4, epoch=epoch), clips.draw([1, 2], seed=4, epoch=0))


def loader(clips, **settings) -> ClipLoader:
    return ClipLoader(clips, 8, skeleton=H36M, seed=3, flip=True, **settings)


def test_workers_processes_and_a_resumed_epoch_give_the_same_batches(clips):
    whole = list(loader(clips).batches(epoch=4))
    assert sorted(clip for batch in whole for clip in batch.clips) == list(range(len(clips)))
    with_workers = list(loader(clips, workers=2).batches(epoch=4))
    rest = list(loader(clips).batches(epoch=4, start_step=3))
    world = [list(loader(clips, processes=Processes(r, 3)).batches(epoch=4)) for r in range(3)]
    assert len(with_workers) == len(whole) and len(rest) == len(whole) - 3
    assert all(same(*pair) for pair in zip(whole, with_workers, strict=True))
    assert all(same(*pair) for pair in zip(whole[3:], rest, strict=True))
    for number, batch in enumerate(whole):
        for name in ("pose_2d", "pose_3d"):
            parts = torch.cat([getattr(part[number], name) for part in world])
            assert torch.equal(parts, getattr(batch, name))
    assert not any(same(*pair) for pair in zip(whole, loader(clips).batches(5), strict=True))


# --- What a clip shows ---


def test_each_recording_gives_as_many_clips_as_fit_into_its_share():
    many, few = (replace(m, share=s) for m, s in zip(recordings(270), (1.0, 0.25), strict=False))
    short = replace(many, frames=many.frames[:4])
    lengths = [len(RenderedClips([motion], 27, PLAIN)) for motion in (many, few, short)]
    assert lengths == [10, 2, 1]  # round(2.5) is 2; everybody has one at least


def test_an_epoch_may_have_several_clips_of_the_same_motion(clips):
    """All of a recording's parts equally often, and no two clips alike."""
    several = RenderedClips(clips.motions, T, replace(PLAIN, per_epoch=3))
    assert len(several) == 3 * len(clips)
    assert sorted(several._parts) == sorted(3 * clips._parts)
    poses = several.draw(range(len(several)), seed=0, epoch=0).pose_3d
    assert len({pose.numpy().tobytes() for pose in poses}) == len(several)


def test_time_is_sampled_evenly_between_recorded_frames():
    """A joint that moves 10 units a frame: place 0.5 and step 1.5 of 100 frames, by hand."""
    frames = np.zeros((101, 17, 3), np.int16)
    frames[:, 5, 0] = 10 * np.arange(101)
    clips = RenderedClips([Motion("line", "somebody", 1.0, frames)], T, PLAIN)
    cut = clips._cut(0, 0.5, 1.5)
    start = 0.5 * (100 - 1.5 * 8)
    np.testing.assert_allclose(cut[:, 5, 0], 10 * UNIT_MM * (start + 1.5 * np.arange(T)))
    whole = clips._cut(0, 0.7, 50.0)  # longer than the recording: slowed down until it fits
    np.testing.assert_allclose(whole[:, 5, 0], 10 * UNIT_MM * np.linspace(0, 100, T))
    still = RenderedClips([Motion("one", "somebody", 1.0, frames[7:8])], T, PLAIN)
    np.testing.assert_allclose(still._cut(0, 0.3, 2.0)[:, 5, 0], 70 * UNIT_MM)


def test_the_label_is_the_person_that_was_filmed(monkeypatch):
    """Unprojected with the camera that was drawn: the body's proportions, the motion's bones."""
    film, measure, drawn = views.draw_anywhere, views.draw_lengths, {}

    def filmed(rng, motion):
        drawn["motion"], drawn["view"] = motion, film(rng, motion)
        return drawn["view"]

    def measured(rng):
        drawn["lengths"] = measure(rng)
        return drawn["lengths"]

    monkeypatch.setattr(views, "draw_anywhere", filmed)
    monkeypatch.setattr(views, "draw_lengths", measured)
    clips = RenderedClips(list(recordings()), T, PLAIN)
    for clip in range(0, len(clips), 5):
        pose_2d, pose_3d = clips.render(clip, seed=0, epoch=0)
        np.testing.assert_array_equal(pose_2d[..., :2], pose_3d[..., :2])
        np.testing.assert_array_equal(pose_2d[..., 2], 1)
        assert np.abs(pose_3d[:, 0, 2]).max() == 0
        view = drawn["view"]
        # In units of the root's depth, which the label does not have.
        depth = 1 + pose_3d[..., 2:] * IMAGE / 2 / view.camera.focal[0]
        pixels = (pose_3d[..., :2] + 1) * IMAGE / 2
        points = (pixels - view.camera.center) / view.camera.focal * depth
        bones = bones_of(np.concatenate([points, depth], axis=-1) @ view.rotation)
        lengths = np.linalg.norm(bones, axis=-1, keepdims=True)
        share = drawn["lengths"] / drawn["lengths"].sum()
        np.testing.assert_allclose(
            lengths[..., 0] / lengths.sum(1), share[None].repeat(T, 0), atol=1e-4
        )
        filmed_bones = bones_of(drawn["motion"]) / drawn["lengths"][:, None]
        np.testing.assert_allclose(bones / lengths, filmed_bones, atol=2e-3)


def test_shares_of_clips_are_as_asked_for(clips):
    count, epochs = len(clips), 2
    for key, seen in (
        ("exact_keypoints", lambda b: (b.pose_2d[..., 2] == 1).all(2).all(1)),
        ("missing_joints", lambda b: (b.pose_2d[..., 2] == 0).any(2).any(1)),
    ):
        for share in (0.0, 0.5, 1.0):
            rendering = replace(PLAIN, **{"exact_keypoints": 0.0, key: share})
            drawn = RenderedClips(clips.motions, T, rendering)
            found = [seen(drawn.draw(range(count), seed=0, epoch=e)).float() for e in range(epochs)]
            # Of clips that lose joints, some lose them for no frame at all.
            low = 0.8 * share if key == "missing_joints" else share
            spread = 4 * (share * (1 - share) / (epochs * count)) ** 0.5
            assert low - spread <= torch.cat(found).mean() <= share + spread


def test_slow_videos_show_more_of_a_motion():
    """Frames are 1 / fps apart: at 15 frames a second, steps are longer than at 60."""
    motions = [m for m in recordings(300) if m.name == "walk"]
    steps = []
    for fps in (15.0, 60.0):
        drawn = RenderedClips(motions, T, replace(PLAIN, frame_rates=(fps, fps)))
        poses = drawn.draw(range(len(drawn)), seed=0, epoch=0).pose_3d
        steps.append((poses[:, 1:, 3, :2] - poses[:, :-1, 3, :2]).norm(dim=-1).mean())
    assert steps[0] > 2.5 * steps[1]
