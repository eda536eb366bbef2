"""MPI-INF-3DHP's protocol: hand-worked scores, and loops of the tests' own."""

import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from data.benchmarks import BENCHMARKS
from data.windows import windows_around
from lib.batch import Batch, SharedFrames
from lib.config import load_config
from lib.errors import UserError
from lib.evaluation.frames import TestFrames, blend_weights
from lib.evaluation.mpi_inf_3dhp import blended, evaluate_mpi_inf_3dhp
from lib.evaluation.predict import predict_batch, predict_test
from lib.evaluation.protocol import TestSet
from lib.skeleton import MPI_INF_3DHP
from model.build import assemble, build_bone_aware, build_lifter
from tests.test_metrics import best_rotation_error, loop_mpjpe

ROOT = 14


def frames_of(mm, video, valid=None, activity=None, size=(2048, 2048)):
    """Ground truth (N, 17, 3); video and activity: (N,) numbers."""
    count = len(mm)
    activity = np.zeros(count, int) if activity is None else np.asarray(activity)
    return TestFrames(
        actions=["1 stand/walk", "2 exercise"],
        videos=["TS1", "TS2"],
        action=activity,
        video=np.asarray(video),
        factor=np.ones(count),
        pose_3d_mm=mm,
        image_size=np.full((count, 2), size),
        valid=valid,
    )


def test_pck_auc_and_mpjve_by_hand():
    """Two frames; every joint but the root is 0 mm away, but for three joints of the first."""
    mm = np.zeros((2, 17, 3))
    pred = np.zeros((2, 1, 17, 3))
    pred[0, 0, [0, 13, 16], 0] = np.array([150.0, 147.0, 1000.0]) / 1024
    report = evaluate_mpi_inf_3dhp(pred, np.array([[0], [1]]), frames_of(mm, [0, 0]), MPI_INF_3DHP)
    # Joint 16 is none of the 14, 150 mm is not below 150 mm.
    assert report.averages["pck"] == pytest.approx(100 * (13 / 14 + 1) / 2)
    # Below thresholds 5 .. 150: 0 mm 30 of 31, 147 mm only 150, 150 mm none.
    assert report.averages["auc"] == pytest.approx(
        100 * ((12 * 30 + 1 + 0) / (14 * 31) + 30 / 31) / 2
    )
    assert report.averages["mpjpe"] == pytest.approx((150 + 147 + 1000) / 17 / 2)
    assert report.averages["mpjve"] == pytest.approx((150 + 147 + 1000) / 17)
    assert report.per_joint["head"] == pytest.approx(500)
    perfect = evaluate_mpi_inf_3dhp(
        0 * pred, np.array([[0], [1]]), frames_of(mm, [0, 0]), MPI_INF_3DHP
    )
    assert perfect.averages["auc"] == pytest.approx(100 * 30 / 31)  # 96.77, the most there is


def by_loops(frames, chosen):
    """frames: [(video, activity, pred, target)] in mm, joint by joint; chosen(video, activity)."""
    scores = {name: [] for name in ("mpjpe", "p_mpjpe", "n_mpjpe", "pck", "auc", "mpjve")}
    for number, (video, activity, pred, target) in enumerate(frames):
        if not chosen(video, activity):
            continue
        errors = [math.dist(p, t) for p, t in zip(pred, target, strict=True)]
        scores["mpjpe"].append(sum(errors) / 17)
        scores["p_mpjpe"].append(best_rotation_error(pred, target))
        scale = (pred * target).sum() / (pred * pred).sum()
        scores["n_mpjpe"].append(loop_mpjpe(scale * pred, target))
        scores["pck"].append(100 * sum(e < 150 for e in errors[:14]) / 14)
        below = [sum(e < step for e in errors[:14]) / 14 for step in range(0, 151, 5)]
        scores["auc"].append(100 * sum(below) / 31)
        if number + 1 < len(frames) and frames[number + 1][0] == video:
            _, _, later, true = frames[number + 1]
            scores["mpjve"].append(loop_mpjpe(later - pred, true - target))
    return {name: sum(v) / len(v) for name, v in scores.items() if v}


def same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=tolerance), name


def test_scores_against_loops(rng):
    """Pooled over frames; the second sequence has one valid frame, so no velocity."""
    mm = rng.normal(0, 300, (8, 17, 3))
    mm -= mm[:, ROOT, None]
    valid = np.array([1, 1, 0, 1, 1, 0, 1, 0], bool)
    video, activity = [0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]
    test = frames_of(mm, video, valid, activity, size=(1920, 1080))
    ids = np.flatnonzero(valid)[:, None]
    poses = (mm[ids] + rng.normal(0, 120, (5, 1, 17, 3))) / 960
    report = evaluate_mpi_inf_3dhp(poses, ids, test, MPI_INF_3DHP)
    frames = []
    for pose, frame in zip(poses[:, 0], ids[:, 0], strict=True):
        pred = pose * 960
        pred[ROOT] = 0  # set to 0: the other joints stay where they are
        frames.append((video[frame], activity[frame], pred, mm[frame]))
    same(report.averages, by_loops(frames, lambda v, a: True))
    for number, name in enumerate(("TS1", "TS2")):
        same(report.per_sequence[name], by_loops(frames, lambda v, a, n=number: v == n))
    for number, name in enumerate(("1 stand/walk", "2 exercise")):
        same(report.per_action[name], by_loops(frames, lambda v, a, n=number: a == n))
    assert "mpjve" not in report.per_sequence["TS2"] and report.frames == 5
    assert "–" in next(line for line in report.table().splitlines() if line.startswith("TS2"))
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["frames"] == 5
    assert np.allclose(report.predictions["TS1"], [pred for v, _, pred, _ in frames if v == 0])


def test_a_frame_in_two_clips_is_blended_by_hand(rng):
    """Frames 0 1 2 3 and 2 3 4 4: the second clip's last place repeats a frame, and counts not."""
    clips = np.array([[0, 1, 2, 3], [2, 3, 4, 4]])
    poses = rng.normal(0, 1, (2, 4, 17, 3))
    found, seen = blended(poses, clips, 6)
    w = [math.sin(math.pi * (k + 0.5) / 4) ** 2 for k in range(4)]
    assert np.allclose(blend_weights(4), w)
    assert np.allclose(found[1], poses[0, 1])
    assert np.allclose(found[2], (w[2] * poses[0, 2] + w[0] * poses[1, 0]) / (w[2] + w[0]))
    assert np.allclose(found[4], poses[1, 2])
    assert seen.tolist() == [True] * 5 + [False]


def test_what_cannot_be_scored_is_told():
    frames = frames_of(np.zeros((1, 17, 3)), [0], np.zeros(1, bool))
    with pytest.raises(UserError, match="none of the test frames is valid"):
        evaluate_mpi_inf_3dhp(np.zeros((0, 1, 17, 3)), np.zeros((0, 1), int), frames, MPI_INF_3DHP)
    with pytest.raises(UserError, match="not finite in 1 of 1"):
        evaluate_mpi_inf_3dhp(
            np.full((1, 1, 17, 3), np.nan), np.zeros((1, 1), int), frames, MPI_INF_3DHP
        )


# --- Windows ---------------------------------------------------------------------------------


def test_frames_that_windows_share_are_computed_once_with_the_same_result():
    """The first spatial block of both stages sees each frame of the batch once."""
    keys = {"channel": 16, "st_depth": 2, "n_frames": 5}
    changes = [f"{key}={value}" for key, value in keys.items()]
    torch.manual_seed(0)
    second = load_config("configs/mpi/tiny.yaml", changes)
    bone_aware = build_bone_aware(load_config("configs/mpi/first.yaml", changes), MPI_INF_3DHP)
    lifter = build_lifter(second, MPI_INF_3DHP)
    model = assemble(second, bone_aware, lifter, MPI_INF_3DHP).eval()
    ids = np.clip(np.arange(6)[:, None] + np.arange(5) - 2, 0, 5)
    windows = torch.randn(6, 17, 3)[torch.from_numpy(ids)]
    shared = SharedFrames.of(ids, "cpu")
    counts = []
    for block in (bone_aware.spatial[0], lifter.spatial[0]):
        block.register_forward_hook(lambda m, i, out: counts.append(out.shape[0] * out.shape[1]))
    with torch.inference_mode():
        found = predict_batch(model, windows, MPI_INF_3DHP, flip=True, shared=shared)
        assert counts == [2 * 6, 2 * 6]
        assert torch.allclose(
            found, predict_batch(model, windows, MPI_INF_3DHP, flip=True), atol=1e-6
        )
    assert counts[2:] == [2 * 30, 2 * 30]
    assert SharedFrames.of(np.arange(30).reshape(6, 5), "cpu") is None
    assert not model.train().shares_frames


class Echo(nn.Module):
    """Predicts the 2D pose itself."""

    def forward(self, pose_2d):
        return pose_2d


class Windows:
    """Windows of random frames, which are made when they are asked for."""

    def __init__(self, ids):
        self.ids, self.frames = ids, torch.randn(int(ids.max()) + 1, 17, 3)
        self.asked = []

    def __len__(self):
        return len(self.ids)

    def __getitems__(self, clips):
        self.asked.append(list(clips))
        pose = self.frames[torch.from_numpy(self.ids[list(clips)])]
        return Batch(pose, pose, list(clips))


def test_windows_are_read_when_their_turn_comes():
    """Never many at once, each once, and what is kept of each is the frame in the middle."""
    frames = frames_of(np.zeros((70, 17, 3)), np.zeros(70, int))
    ids = windows_around(frames.video, frames.is_valid, 81)
    windows = Windows(ids)
    test = TestSet(windows, ids, frames, BENCHMARKS["mpi_inf_3dhp"].protocols[0])
    found = predict_test(
        Echo().eval(), test, range(3, 70), MPI_INF_3DHP, flip=False, batch_size=64, device="cpu"
    )
    assert max(map(len, windows.asked)) <= 16
    assert [clip for clips in windows.asked for clip in clips] == list(range(3, 70))
    assert np.array_equal(found[:, 0], windows.frames[3:].numpy())
