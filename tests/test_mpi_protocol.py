"""MPI-INF-3DHP's protocol: hand-worked scores, loops of the tests' own, and the commands."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import torch
from torch import nn

from data.benchmarks import BENCHMARKS
from data.preprocess import mpi_inf_3dhp, synthetic, visualize
from data.windows import windows_around
from lib.batch import Batch, SharedFrames
from lib.checkpoint import BEST, save_checkpoint
from lib.config import load_config
from lib.errors import UserError
from lib.evaluation.frames import TestFrames, blend_weights
from lib.evaluation.mpi_inf_3dhp import blended, evaluate_mpi_inf_3dhp
from lib.evaluation.predict import predict_batch, predict_test
from lib.evaluation.protocol import TestSet
from lib.files import PROJECT_ROOT
from lib.skeleton import MPI_INF_3DHP
from lib.training.stages import BoneStage
from model.build import assemble, build_bone_aware, build_lifter
from tests import reference
from tests.commands import SIZE
from tests.samples import released_checkpoint, released_pair
from tests.test_metrics import best_rotation_error, loop_mpjpe
from tests.training import run_command, run_train

T, FRAMES = 9, 10
SEED = 5  # of data in which no bin is nearly a tie, see reference.certain_bins
KEPT = ("TS1", "TS5")
ROOT = 14
# Head top and head hang from the neck; right 2-4 and 8-10, left 5-7 and 11-13.
PARENTS = (1, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1)
MIRROR = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 14, 15, 16)
RELEASED = """\
learning_rate: 0.0005
batch_size: 64
weight_decay: 0.01
lr_decay: 0.99
epochs: 120
model_name: MotionMamba
st_depth: 12
channel: 128
d_state: 16
bimamba_type: v2
if_divide_out: True
n_joints: 17
act_layer: gelu
n_frames: 81
expand: 1
out_joints: 17
out_all: 1
data_root: data/motion3d/
stride: 9
num_joints: 17
flip: True
test_augmentation: True
data_augmentation: True
reverse_augmentation: False
test_batch_size: 128
lambda_3d_velocity: 20.0
lambda_scale: 0.5
lambda_lv: 0.0
lambda_lg: 0.0
lambda_a: 0.0
lambda_av: 0.0
"""


# --- Scores -----------------------------------------------------------------------------------


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


# --- Model and config -------------------------------------------------------------------------


def test_parameters_of_large():
    first, large = (load_config(f"configs/mpi/{name}.yaml") for name in ("first", "large"))
    count = [
        sum(p.numel() for p in module.parameters())
        for module in (build_bone_aware(first, MPI_INF_3DHP), build_lifter(large, MPI_INF_3DHP))
    ]
    assert count == [110_526, 4_293_045]


@pytest.mark.parametrize("stage", [1, 2])
def test_released_configs_load(tmp_path, stage):
    """They do not say of which stage they are; the script, or the checkpoint, does."""
    text = RELEASED if stage == 2 else RELEASED.replace("h: 12", "h: 4").replace("128\nd", "64\nd")
    (tmp_path / "mpi.yaml").write_text(text)
    complete = BENCHMARKS["mpi_inf_3dhp"].complete
    with pytest.warns(UserWarning, match="without effect here"):
        config = complete(load_config(tmp_path / "mpi.yaml", stage=stage))
        assert complete(load_config(tmp_path / "mpi.yaml", likely_stage=stage)) == config
    assert (config.stage, config.dataset, config.protocol) == (stage, "mpi_inf_3dhp", "window")
    if stage == 2:
        ours = complete(load_config("configs/mpi/large.yaml"))
        assert config == replace(ours, data_root="data/motion3d/")


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


# --- Commands ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Raw synthetic data as clips of 9 frames, small configs, and released checkpoints."""
    place = tmp_path_factory.mktemp("mpi")
    flags = ("--format", "3dhp", "--frames", FRAMES, "--data-root", place, "--seed", SEED)
    assert run_command(synthetic.main, flags)[0] == 0
    for number in range(2, 9):
        shutil.rmtree(place / "mpi_inf_3dhp" / f"S{number}")
    for folder in (place / "mpi_inf_3dhp" / "mpi_inf_3dhp_test_set").iterdir():
        if folder.name not in KEPT:
            shutil.rmtree(folder)
    raw = ("--raw", place / "mpi_inf_3dhp", "--n-frames", T, "--data-root", place)
    assert run_command(mpi_inf_3dhp.main, raw)[0] == 0
    text = RELEASED.replace("128\nd_state", "16\nd_state").replace("st_depth: 12", "st_depth: 2")
    text = text.replace("n_frames: 81", f"n_frames: {T}").replace("data/motion3d/", f"{place}/")
    (place / "released.yaml").write_text(text.replace("epochs: 120", "epochs: 1"))
    first, second = released_pair(frames=T)
    released_checkpoint(place / "stage1" / BEST, first)
    released_checkpoint(place / "stage2" / BEST, second, prefix="module.")
    return place


def kept_sequences(place):
    table = np.load(place / "data_test_3dhp.npz", allow_pickle=True)["data"].item()
    return {name: table[name] for name in KEPT}


def reference_poses(monkeypatch, windows):
    """Flip-averaged by tests/reference.py on this skeleton; (B, T, 17, 3)."""
    monkeypatch.setattr(reference, "PARENTS", PARENTS)
    monkeypatch.setattr(reference, "MIRROR", MIRROR)
    states, clips = released_pair(frames=T), torch.from_numpy(windows).float()
    turned = reference.mirrored(reference.mdtf(*states, reference.mirrored(clips)))
    return ((reference.mdtf(*states, clips) + turned) / 2).numpy()


def test_a_released_checkpoint_evaluates_to_the_protocols_numbers(place, tmp_path, monkeypatch):
    """From the .npz of the same data, by loops; both protocols and the file for MATLAB."""
    status, out, error = run_train(
        "--eval-only", "--config", place / "released.yaml", "--checkpoint", place / "stage2",
        "--stage1-checkpoint", place / "stage1", "--report", tmp_path / "r.json",
        "--save-predictions", tmp_path / "p.mat", "--set", "protocol=both",
    )  # fmt: skip
    assert status == 0, error
    report = json.loads((tmp_path / "r.json").read_text())
    assert "protocol window: " in out and "protocol dense: " in out
    saved = scipy.io.loadmat(tmp_path / "p.mat")
    table = kept_sequences(place)
    window, dense = [], []
    for name, entry in table.items():
        width, height = (1920, 1080) if name in ("TS5", "TS6") else (2048, 2048)
        screen = np.ones((FRAMES, 17, 3))
        screen[..., :2] = entry["data_2d"] / width * 2 - [1, height / width]
        mm = entry["data_3d"] - entry["data_3d"][:, ROOT, None]
        valid = np.flatnonzero(entry["valid"])
        ids = np.clip(valid[:, None] + np.arange(T) - T // 2, 0, FRAMES - 1)
        centres = reference_poses(monkeypatch, screen[ids])[:, T // 2] * width / 2
        # Two clips: the first and the last 9 of 10 frames.
        clips = reference_poses(monkeypatch, np.stack([screen[:T], screen[-T:]])) * width / 2
        for poses in (centres, clips):
            poses[..., ROOT, :] = 0
        assert saved[name].shape == (3, 17, 1, len(valid))
        assert np.abs(saved[name][:, :, 0] - centres.transpose(2, 1, 0)).max() < 0.01
        weight = np.sin(np.pi * (np.arange(T) + 0.5) / T) ** 2
        for pose, frame in zip(centres, valid, strict=True):
            window.append((name, None, pose, mm[frame]))
            parts = [(0, frame), (1, frame - (FRAMES - T))]
            held = [(clip, at) for clip, at in parts if 0 <= at < T]
            total = sum(weight[at] * clips[clip, at] for clip, at in held)
            dense.append((name, None, total / sum(weight[at] for _, at in held), mm[frame]))
    for found, frames in ((report, window), (report["other_protocols"]["dense"], dense)):
        expected = by_loops(frames, lambda v, a: True)
        same({name: found[name] for name in expected}, expected, 0.01)
        assert found["frames"] == len(frames)
        for name in table:
            same(found["per_sequence"][name], by_loops(frames, lambda v, a, n=name: v == n), 0.01)
    assert report["protocol"] == "window"
    assert report["other_protocols"]["dense"]["protocol"] == "dense"
    assert set(report["per_action"]) == {"1 stand/walk", "5 on the floor"}


def small(place, stage):
    """A config of ours: configs/mpi, smaller."""
    text = (PROJECT_ROOT / f"configs/mpi/{'first' if stage == 1 else 'tiny'}.yaml").read_text()
    for old, new in SIZE.items():
        text = text.replace(old, new)
    for old, new in (("n_frames: 81", f"n_frames: {T}"), ("3DHP-81", f"3DHP-{T}")):
        text = text.replace(old, new)
    text = text.replace("data/motion3d", str(place)).replace("epochs: 90", "epochs: 1")
    path = place / f"{stage}.yaml"
    path.write_text(text.replace("epochs: 120", "epochs: 1"))
    return path


def test_both_stages_train_resume_and_evaluate(place, tmp_path):
    """Stage 1 counts each valid frame once; the best score is that of the window protocol."""
    run = ("--config", small(place, 1), "--new-checkpoint", tmp_path / "1")
    assert run_train(*run)[0] == 0
    flags = ("--eval-only", "--checkpoint", tmp_path / "1", "--report", tmp_path / "r.json")
    table = kept_sequences(place)
    valid = sum(int(entry["valid"].sum()) for entry in table.values())
    for protocol in ("window", "dense"):
        status, _, error = run_train(*flags, "--set", f"protocol={protocol}")
        assert status == 0, error
        report = json.loads((tmp_path / "r.json").read_text())
        assert (report["frames"], report["protocol"]) == (valid, protocol)
        assert np.sum(report["confusion"]) == 16 * valid
    second = ("--config", small(place, 2), "--stage1-checkpoint", tmp_path / "1")
    assert run_train(*second, "--new-checkpoint", tmp_path / "2")[0] == 0
    resumed = ("--resume", "--checkpoint", tmp_path / "2", "--set", "epochs=2", *second)
    status, _, error = run_train(*resumed)
    assert status == 0, error
    lines = [json.loads(line) for line in (tmp_path / "2" / "history.jsonl").open()]
    status, _, error = run_train(
        "--eval-only", "--checkpoint", tmp_path / "2", "--report", tmp_path / "r.json"
    )
    assert status == 0, error
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["mpjpe"] == pytest.approx(min(line["test/mpjpe"] for line in lines), abs=1e-3)
    assert len(lines) == 2 and (tmp_path / "2" / "curves.png").is_file()


def refused(*arguments):
    status, _, error = run_train(*arguments)
    assert (status, error.count("error: ")) == (2, 1)
    return error


def test_another_skeleton_or_protocol_is_refused(place, data, tmp_path):
    evaluation = ("--eval-only", "--config", place / "released.yaml")
    ours = ("--checkpoint", data / "stage1")  # trained on Human3.6M's joints
    sizes = ("--set", "channel=8", "--set", "d_state=4", "--set", "stage=1")
    assert "trained on the joints of h36m" in refused(*evaluation, *ours, *sizes)
    released = ("--checkpoint", place / "stage2")
    stage1 = ("--stage1-checkpoint", data / "stage1")
    assert "stage 1 was trained on the joints of h36m" in refused(*evaluation, *released, *stage1)
    stage1 = ("--stage1-checkpoint", place / "stage1")
    for key, message in (
        ("protocol=windows", "scored by window, dense, both; did you mean 'window'"),
        ("root_rel=false", "relative to the root"),
        ("use_proj_as_2d=true", "no projections"),
    ):
        told = refused(*evaluation, *released, *stage1, "--set", key)
        assert message in told


def test_a_checkpoint_of_other_units_is_not_scored(uninterrupted, tmp_path):
    """Human3.6M's labels are pixels, those of VideoPose3D's files metres, on the same joints."""
    flags = ("--eval-only", "--checkpoint", tmp_path, "--set", "dataset=h36m_videopose3d")
    save_checkpoint(tmp_path / BEST, uninterrupted[0])
    assert "whose unit is not that of h36m_videopose3d" in refused(*flags)


def test_clips_of_another_data_set_are_refused(place, data, tmp_path):
    """Both have 17 joints; the folder says whose they are."""
    folder = f"subset_list=[MPI-INF-3DHP-{T}]"
    flags = ("--eval-only", "--checkpoint", data / "stage1", "--set", folder)
    told = refused(*flags, "--set", f"data_root={place}", "--set", "stage=1")
    assert f"MPI-INF-3DHP-{T}: clips of mpi_inf_3dhp, not of h36m" in told
    output = tmp_path / "film.gif"
    status, _, error = run_command(
        visualize.main,
        (place / f"MPI-INF-3DHP-{T}", "--dataset", "h36m", "--sequence", 0, "--output", output),
    )
    assert status == 2 and "clips of mpi_inf_3dhp, not of h36m" in error


def test_stage_1_without_a_valid_frame_is_told():
    stage = BoneStage(
        nn.Identity(), MPI_INF_3DHP, Windows(np.zeros((2, 3), int)), 1, torch.device("cpu"),
        "window", np.zeros((2, 3), bool),
    )  # fmt: skip
    with pytest.raises(UserError, match="none of the test frames is valid"):
        stage.evaluate(nn.Identity())


def test_where_predictions_cannot_be_saved(place, tmp_path, data):
    evaluation = ("--eval-only", "--config", place / "released.yaml", "--checkpoint")
    of_stage1 = (*evaluation, place / "stage1", "--save-predictions", tmp_path / "a.mat")
    assert "is for stage 2 on mpi_inf_3dhp" in refused(*of_stage1)
    assert "must end in .mat" in refused(*evaluation, place, "--save-predictions", "a.npz")
    training = ("--config", place / "released.yaml", "--new-checkpoint", tmp_path / "run")
    assert "belongs to --eval-only" in refused(*training, "--save-predictions", "a.mat")
    shutil.copytree(place / "stage2", tmp_path / "s2")
    (tmp_path / "s2" / BEST).rename(tmp_path / "s2" / "w.mat")
    own = ("--save-predictions", tmp_path / "s2" / "w.mat")
    assert "would be overwritten" in refused(*evaluation, tmp_path / "s2" / "w.mat", *own)
