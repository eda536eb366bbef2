"""The benchmark of paths: what it measures, and true poses of real motion before its cameras."""

import numpy as np
import pytest

from data.sources.mocap import Clip, read_mocap
from demo.path import FEET
from tests.benchmarks.path import CONDITIONS, SIZE, film, main, scores, true_height
from tests.mocap_files import write_mocap
from tests.skips import SHARED, needs_shared
from tests.training import run_command

MOCAP = SHARED / "mocap" / "mocap17_accad.npz"
(EXACT,) = [condition for condition in CONDITIONS if condition.exact]


def walked(metres: float = 4.0) -> Clip:
    """Feet that stand in turns, a second each, and a body that goes on evenly; 2 s on one spot."""
    motion = np.zeros((300, 17, 3))
    motion[:, :, 2] = 1000 + 40 * np.arange(17)
    motion[:, :, 0] += 1000 * metres * np.clip(np.arange(300)[:, None] / 200, 0, 1)
    for side, foot in enumerate(FEET):
        second = (np.arange(300) + 50 * side) // 100
        motion[:, foot] = np.stack([500.0 * second, 0 * second, 80 + 0 * second], axis=-1)
    return Clip("walk", "cmu03", "walk", "train", motion)


def test_the_scores_by_hand():
    filmed = film(walked(), 50.0)
    assert np.isfinite(filmed.keypoints).all() and true_height(filmed) > 0
    pixels = filmed.camera[..., :2] / filmed.camera[..., 2:]
    focal = SIZE[0] / 2 / np.tan(np.deg2rad(filmed.fov / 2))
    assert (np.abs(pixels * focal) <= np.array(SIZE) / 2).all()
    same = scores(filmed, filmed.world + np.array([7.0, 8, 0]), filmed.pitch)
    assert same.off == pytest.approx(0, abs=1e-9) and same.pitch == 0
    assert len(same.slides) and same.slides.max() < 1e-9 and len(same.jumps) == 0
    # Twice as far from the middle of the way: off by the distance from it, 1 m on average before
    # the last second, in which all is at the end.
    middle = filmed.world[:, :1].mean(axis=0)
    double = filmed.world + (filmed.world[:, :1] - middle) * [1, 1, 0]
    x = 4000 * np.clip(np.arange(300) / 200, 0, 1)
    assert scores(filmed, double, 0.0).off == pytest.approx(np.abs(x - x.mean()).mean(), rel=1e-6)
    assert scores(filmed, double, 0.0).share == pytest.approx(
        100 * np.abs(x - x.mean()).mean() / 4000, rel=0.02
    )
    # Feet that go with a body that goes 20 mm from frame to frame.
    slide = filmed.world + np.array([20.0, 0, 0]) * np.arange(300)[:, None, None]
    np.testing.assert_allclose(scores(filmed, slide, 0.0).slides, 20)


@needs_shared(MOCAP)
def test_true_poses_of_real_people_go_where_they_went():
    walks, jumps = ("Walk_turn_left_45", "Walk_turn_around"), ("Run_to_jump_to_walk",)
    clips = {clip.name.removeprefix("accad_m2_"): clip for clip in read_mocap(MOCAP)}
    for name in walks + jumps:
        found = EXACT.of(None, film(clips[name], 25.0))
        assert found.share < 2.5 and found.pitch < 2, name
        if name in walks:
            assert found.slides.mean() < 2 and not len(found.jumps), name
        else:
            assert found.jumps.max() > 400 and np.abs(np.diff(found.jumps)).max() < 30, name


def test_the_command_prints_all_conditions(tmp_path):
    folder = write_mocap(tmp_path / "mocap", num_frames=60)
    status, output, errors = run_command(main, ["--mocap", folder, "--every", 100])
    assert status == 0, errors
    for condition in CONDITIONS:
        assert condition.name in output
    status, output, errors = run_command(main, ["--mocap", tmp_path])
    assert status == 2 and "no .npz files there" in errors
