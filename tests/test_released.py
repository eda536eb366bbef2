"""Its evaluation condition reproduced, its runs continued here, our checkpoints written for it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from lib import to_released
from lib.checkpoint import BEST, LATEST, load_checkpoint
from lib.config import load_config
from lib.released import (
    accuracy_with_root,
    accuracy_without_root,
    translate_released,
    translate_to_released,
)
from model.build import load_mdtf
from tests import reference
from tests.samples import released_checkpoint, released_pair
from tests.training import differences, read_run, run_command, run_train


def train(data: Path, folder: Path, *more: object, stage: int = 2) -> None:
    stage1 = ["--stage1-checkpoint", data / "stage1" / BEST] if stage == 2 else []
    status, _, errors = run_train(
        "--config", data / f"stage{stage}.yaml", "--new-checkpoint", folder, *stage1, *more
    )  # fmt: skip
    assert status == 0, errors


# --- Stage 1's DropPath while training and scoring stage 2 --------------------------------------


def score(folder: Path, *more: object) -> float:
    report = folder / "report.json"
    status, _, errors = run_train(
        "--eval-only", "--checkpoint", folder, "--checkpoint-file", LATEST,
        "--report", report, *more,
    )  # fmt: skip
    assert status == 0, errors
    return json.loads(report.read_text())["mpjpe"]


def test_the_papers_condition_is_noise_that_follows_from_the_seed(data, tmp_path):
    noisy = ("--set", "stage1_drop_path=true")
    train(data, tmp_path / "clean", "--seed", 5)
    train(data, tmp_path / "noisy", "--seed", 5, *noisy)
    (clean, clean_history), (trained, history) = (
        read_run(tmp_path / name) for name in ("clean", "noisy")
    )
    # The training saw other bins, with the same frozen weights.
    assert clean["bone_aware"].keys() == trained["bone_aware"].keys()
    assert history[0]["train/total"] != clean_history[0]["train/total"]
    # The same numbers twice, and those that the training printed after its last epoch.
    folder = tmp_path / "noisy"
    assert score(folder, "--seed", 5) == score(folder, "--seed", 5) == history[-1]["test/mpjpe"]
    # Another seed is other noise, and without it one number whatever the seed.
    assert score(folder, "--seed", 6) != score(folder, "--seed", 5)
    off = ("--set", "stage1_drop_path=false")
    assert score(folder, *off, "--seed", 5) == score(folder, *off, "--seed", 6)
    # It may be asked of any checkpoint.
    plain = tmp_path / "clean"
    assert score(plain, *noisy) != score(plain) == clean_history[-1]["test/mpjpe"]


# --- Our checkpoints under released names -----------------------------------------------------


def export(*arguments: object) -> str:
    status, out, errors = run_command(to_released.main, list(arguments))
    assert status == 0, errors
    return out


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory) -> Path:
    """One epoch of each stage, without DropPath: st_depth 1 has rate 0 only."""
    folder = tmp_path_factory.mktemp("runs")
    for stage in (1, 2):
        more = ("--set", "st_depth=1", "--set", "epochs=1", "--seed", 5)
        train(data, folder / f"stage{stage}", *more, stage=stage)
    return folder


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_what_is_written_for_the_released_code_reads_back_bit_for_bit(data, runs, tmp_path, prefix):
    second, first = tmp_path / "second.pth.tr", tmp_path / "new" / "first.pth.tr"
    flags = [] if prefix else ["--no-prefix"]
    out = export(runs / "stage2", second, "--stage1-output", first, *flags)
    assert "channel: 8, st_depth: 1, d_state: 4, n_frames: 9, if_divide_out: True" in out
    ours = torch.load(runs / "stage2" / BEST, weights_only=True)
    for path, part, shapes in (
        (second, "model", reference.lifter_shapes(8, 1, 9, states=4)),
        (first, "bone_aware", reference.bone_aware_shapes(8, 2, states=4)),
    ):
        raw = torch.load(path, weights_only=True)
        # The released names with the shapes that its model gives them.
        assert {name: tuple(v.shape) for name, v in raw["model"].items()} == {
            prefix + name: shape for name, shape in shapes.items()
        }
        assert not differences(load_checkpoint(path).model, dict(ours[part]))
    assert raw.keys() == {"model"}
    raw = torch.load(second, weights_only=True)
    assert (raw["epoch"], raw["lr"], raw["min_mpjpe"]) == (1, 0.002, ours["min_mpjpe"])
    assert "optimizer" not in raw  # a best checkpoint has none
    # And it runs: the same poses as from our own file.
    clip = torch.randn(1, 9, 17, 3)
    config = load_config(data / "stage2.yaml", ["st_depth=1"])
    with torch.no_grad():
        poses = [load_mdtf(second, config, first)(clip), load_mdtf(runs / "stage2" / BEST)(clip)]
    assert torch.equal(*poses)


def test_full_size_models_have_the_published_names_in_their_order(parity_folder):
    for name in ("bam", "tiny", "large"):
        lines = (parity_folder / f"state_dict_{name}.txt").read_text().splitlines()
        published = [line.split("\t")[0] for line in lines]
        ours = translate_released(dict.fromkeys(published, torch.zeros(1)))
        in_disorder = dict(sorted(ours.items()))
        assert list(translate_to_released(in_disorder)) == published


def test_a_stage_1_is_written_with_its_optimizer_and_the_released_accuracy(runs, tmp_path):
    """The released accuracy counts the root slot, always right, as a seventeenth bone."""
    path = tmp_path / "first.pth.tr"
    export(runs / "stage1", path, "--checkpoint-file", LATEST)
    raw = torch.load(path, weights_only=True)
    _, history = read_run(runs / "stage1")
    assert raw["max_accuracy"] == pytest.approx(history[0]["test/accuracy_released"], rel=1e-9)
    # Its optimizer loads into an AdamW over the same tensors in the released order.
    tensors = [torch.nn.Parameter(v) for n, v in raw["model"].items()]
    optimizer = torch.optim.AdamW(tensors, lr=1.0)
    optimizer.load_state_dict(raw["optimizer"])
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.002, 0.01)
    for tensor in tensors:
        assert optimizer.state[tensor]["exp_avg"].shape == tensor.shape
        assert optimizer.state[tensor]["step"] == 6  # 48 clips in batches of 8


NOT_RELEASED = {"bone_branch": False, "bone_slots": "child", "graph": "none", "fusion": "mean"}
NOT_RELEASED |= {"input": "person", "output": "residual", "d_conv": 3}
NOT_RELEASED |= {"bins": 9, "bone_angle": "expectation", "bone_confidence": True}
# Of the optimizer alone.
NOT_RELEASED |= {"weight_decay_on": "matrices", "schedule": "cosine", "warmup": 0.5}
NOT_RELEASED |= {"optimizer": "muon", "train_bone_aware": True}


@pytest.mark.parametrize("key", NOT_RELEASED)
def test_what_the_released_layout_cannot_hold_is_said(runs, tmp_path, key):
    raw = torch.load(runs / "stage2" / LATEST, weights_only=True)
    raw["config"][key] = NOT_RELEASED[key]
    torch.save(raw, tmp_path / LATEST)
    arguments = [tmp_path, tmp_path / "out.pth.tr", "--checkpoint-file", LATEST]
    status, _, errors = run_command(to_released.main, arguments)
    assert status == 2
    start = f"error: {tmp_path / LATEST}: trained with {key} {NOT_RELEASED[key]!r}"
    assert errors.startswith(start)
    assert not (tmp_path / "out.pth.tr").exists()


def test_a_stage_1_that_the_released_layout_cannot_hold_is_said(runs, tmp_path):
    raw = torch.load(runs / "stage2" / BEST, weights_only=True)
    raw["bone_aware_forms"]["input"] = "person"
    torch.save(raw, tmp_path / BEST)
    status, _, errors = run_command(to_released.main, [tmp_path, tmp_path / "out.pth.tr"])
    told = "trained with a stage 1 of input 'person'; the released model has only 'screen'"
    assert (status, errors) == (2, f"error: {tmp_path / BEST}: {told}\n")
    assert not (tmp_path / "out.pth.tr").exists()


def test_what_was_saved_inside_an_epoch_is_said(runs, tmp_path):
    raw = torch.load(runs / "stage2" / LATEST, weights_only=True)
    assert "begins this epoch anew" not in export(runs / "stage2" / LATEST, tmp_path / "whole")
    raw["training"]["position"]["step"] = 3
    torch.save(raw, tmp_path / LATEST)
    told = export(tmp_path / LATEST, tmp_path / "out.pth.tr")
    assert "saved after step 3 of epoch 2: the released code" in told


def test_mistakes_when_writing_for_the_released_code(runs, tmp_path):
    def told(*arguments: object) -> str:
        status, _, errors = run_command(to_released.main, list(arguments))
        assert status == 2
        assert errors.count("\n") == 1
        return errors

    source = runs / "stage2" / BEST
    before = source.read_bytes()
    assert "is read from too" in told(source, source)
    (tmp_path / "there").touch()
    assert "is there already" in told(source, tmp_path / "there")
    assert "name two files" in told(source, tmp_path / "a", "--stage1-output", tmp_path / "a")
    stage1 = ("--stage1-output", tmp_path / "b")
    assert "no stage-1 weights" in told(runs / "stage1", tmp_path / "a", *stage1)
    released = released_checkpoint(tmp_path / "released.pth.tr", released_pair()[1])
    assert "none of our checkpoints" in told(released, tmp_path / "a")
    assert source.read_bytes() == before
    assert not (tmp_path / "a").exists()


# --- Released runs continued ------------------------------------------------------------------


@pytest.mark.parametrize("stage", [1, 2])
def test_a_released_run_goes_on_as_ours_would(data, runs, tmp_path, stage):
    """Our own run and the same run in a released file, both resumed for a second epoch: equal bit
    for bit. Without DropPath, whose random state a released file does not have."""
    released = tmp_path / "released" / LATEST
    export(runs / f"stage{stage}", released, "--checkpoint-file", LATEST)
    raw = torch.load(released, weights_only=True)
    raw["wandb_id"] = "abc123"
    score = "max_accuracy" if stage == 1 else "min_mpjpe"
    raw[score] = np.float64(raw[score])  # as the released code has it
    if stage == 1:  # as older PyTorch has it
        for state in raw["optimizer"]["state"].values():
            state["step"] = int(state["step"])
    else:  # as another tool may have saved it again; the optimizer numbers its states as before
        raw["model"] = dict(sorted(raw["model"].items()))
    torch.save(raw, released)
    ends = {}
    for name, start in (("ours", runs / f"stage{stage}"), ("released", released.parent)):
        more = ("--resume", "--checkpoint", start, "--set", "st_depth=1", "--seed", 5)
        train(data, tmp_path / name, *more, stage=stage)
        ends[name] = read_run(tmp_path / name)
    (ours, our_history), (theirs, their_history) = ends["ours"], ends["released"]
    for key in ("model", "epoch", "stage", "config"):
        assert not differences(theirs[key], ours[key], key)
    optimizer = theirs["training"]["optimizer"]
    assert not differences(optimizer, ours["training"]["optimizer"])
    assert {state["step"].item() for state in optimizer["state"].values()} == {12}
    position, expected = theirs["training"]["position"], ours["training"]["position"]
    assert position.pop("best") == pytest.approx(expected.pop("best"), rel=1e-9)
    assert position == expected
    assert their_history == our_history[1:]  # the first epoch's line is not in a released file
    assert our_history[1]["lr"] == 0.002 * 0.9
    assert theirs["training"]["wandb_id"] == "abc123"
    if stage == 2:
        assert not differences(theirs["bone_aware"], ours["bone_aware"])


def test_a_run_that_goes_on_may_have_another_dt_init(data, runs, tmp_path):
    """It only says how weights begin; the shipped ones began before there was such a key."""
    start = ("--resume", "--checkpoint", runs / "stage1", "--set", "st_depth=1")
    for value in ("released", "mamba"):
        train(data, tmp_path / value, *start, "--set", f"dt_init={value}", stage=1)
    released, mamba = (read_run(tmp_path / name)[0]["model"] for name in ("released", "mamba"))
    assert not differences(released, mamba)


def test_a_released_run_that_goes_on_in_its_own_folder_keeps_its_files(data, runs, tmp_path):
    folder = tmp_path / "run"
    for name in (LATEST, BEST):
        export(runs / "stage2", folder / name, "--checkpoint-file", LATEST)
    before = {name: (folder / name).read_bytes() for name in (LATEST, BEST)}
    train(data, folder, "--resume", "--checkpoint", folder, "--set", "st_depth=1")
    assert load_checkpoint(folder / LATEST).epoch == 2
    for name, content in before.items():
        assert (folder / f"released_{name}").read_bytes() == content


def test_a_best_score_of_the_released_run_is_only_beaten_by_a_better_one(data, runs, tmp_path):
    path = tmp_path / "released" / LATEST
    export(runs / "stage2", path, "--checkpoint-file", LATEST)
    raw = torch.load(path, weights_only=True)
    for best, is_beaten in ((1e-3, False), (1e9, True)):
        torch.save({**raw, "min_mpjpe": best}, path)
        folder = tmp_path / str(best)
        more = ("--resume", "--checkpoint", path, "--set", "st_depth=1")
        train(data, folder, *more)
        assert (folder / BEST).is_file() == is_beaten
        position = read_run(folder)[0]["training"]["position"]
        assert (position["best"] == best) != is_beaten


def test_the_best_accuracy_of_a_released_stage_1_is_over_the_bones(data, runs, tmp_path):
    """10 of 16 bones right are 11 of 17 slots with the root. A score that is not beaten stays."""
    assert accuracy_without_root(11 / 17) == pytest.approx(10 / 16)
    assert accuracy_with_root(10 / 16) == pytest.approx(11 / 17)
    path = tmp_path / "released" / LATEST
    export(runs / "stage1", path, "--checkpoint-file", LATEST)
    torch.save({**torch.load(path, weights_only=True), "max_accuracy": 16.5 / 17}, path)
    folder = tmp_path / "run"
    train(data, folder, "--resume", "--checkpoint", path, "--set", "st_depth=1", stage=1)
    position = read_run(folder)[0]["training"]["position"]
    assert position["best"] == pytest.approx(15.5 / 16)


RESUME_MISTAKES = {
    "no config": ([], {}, "--config FILE is missing"),
    "weight decay": (["--set", "weight_decay=0.1"], {}, "weight_decay is 0.1"),
    "decay": (["--set", "weight_decay_on=matrices"], {}, "weight_decay_on is 'matrices'"),
    "optimizer": (["--set", "optimizer=muon"], {}, "optimizer is 'muon'"),
    "schedule": (["--set", "schedule=cosine"], {}, "schedule is 'cosine'"),
    "no optimizer": ([], {"optimizer": None}, "no training state"),
    "empty": ([], {"optimizer": {"state": {}, "param_groups": []}}, "does not fit its weights"),
    "numbers": ([], {"optimizer": {"state": {0: {}}}}, "does not fit its weights"),
}


@pytest.mark.parametrize("mistake", RESUME_MISTAKES)
def test_released_runs_that_cannot_go_on(data, runs, tmp_path, mistake):
    arguments, changes, part = RESUME_MISTAKES[mistake]
    path = tmp_path / "released" / LATEST
    export(runs / "stage2", path, "--checkpoint-file", LATEST)
    torch.save({**torch.load(path, weights_only=True), **changes}, path)
    before = path.read_bytes()
    config = [] if mistake == "no config" else ["--config", data / "stage2.yaml"]
    status, _, errors = run_train(
        *config, "--resume", "--checkpoint", path.parent, "--new-checkpoint", tmp_path / "new",
        "--stage1-checkpoint", data / "stage1" / BEST, "--set", "st_depth=1", *arguments,
    )  # fmt: skip
    assert status == 2
    assert errors.count("\n") == 1
    assert part in errors
    assert path.read_bytes() == before


def test_moments_of_another_tensor_are_refused(data, runs, tmp_path):
    """Parameters are numbered: two of them exchanged must not pass where their shapes tell."""
    path = tmp_path / LATEST
    export(runs / "stage2", path, "--checkpoint-file", LATEST)
    raw = torch.load(path, weights_only=True)
    states = raw["optimizer"]["state"]
    states[0], states[1] = states[1], states[0]
    torch.save(raw, path)
    status, _, errors = run_train(
        "--config", data / "stage2.yaml", "--resume", "--checkpoint", path,
        "--new-checkpoint", tmp_path / "new", "--set", "st_depth=1",
        "--stage1-checkpoint", data / "stage1" / BEST,
    )  # fmt: skip
    assert status == 2
    assert "does not fit its weights (spatial_position)" in errors


def test_another_learning_rate_than_the_configs_is_told(data, runs, tmp_path, caplog):
    path = tmp_path / "released" / LATEST
    export(runs / "stage2", path, "--checkpoint-file", LATEST)
    for rate, is_told in ((0.002, False), (0.0018, True)):
        raw = torch.load(path, weights_only=True)
        torch.save({**raw, "lr": rate}, path)
        folder = tmp_path / f"{rate}"
        status, _, errors = run_train(
            "--config", data / "stage2.yaml", "--resume", "--checkpoint", path,
            "--new-checkpoint", folder, "--set", "st_depth=1",
            "--stage1-checkpoint", data / "stage1" / BEST,
        )  # fmt: skip
        assert status == 0, errors
        assert ("its last learning rate is 0.0018" in caplog.text) == is_told
        assert read_run(folder)[1][0]["lr"] == 0.002 * 0.9
