"""MPI-INF-3DHP through the commands: released configs and checkpoints, training, refusals."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import scipy.io
import torch
from torch import nn

from data.benchmarks import BENCHMARKS
from data.preprocess import mpi_inf_3dhp, synthetic, visualize
from lib.checkpoint import BEST, save_checkpoint
from lib.config import load_config
from lib.errors import UserError
from lib.files import PROJECT_ROOT
from lib.skeleton import MPI_INF_3DHP
from lib.training.stages import BoneStage
from model.build import build_bone_aware, build_lifter
from tests import reference
from tests.commands import SIZE
from tests.samples import released_checkpoint, released_pair
from tests.test_mpi_protocol import Windows, by_loops, same
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
