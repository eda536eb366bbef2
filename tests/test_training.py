"""The training loop: a run is a function of its seed and config, also when it is resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from lib.checkpoint import BEST, BEST_EMA, LATEST
from lib.files import PROJECT_ROOT
from lib.skeleton import H36M
from lib.training.fit import Fit
from lib.training.optim import make_optimizer
from model.lifter import Lifter
from tests.training import (
    assert_same_end,
    differences,
    fork_train,
    read_run,
    run_train,
    stage2_flags,
    wait_for,
)


def test_one_seed_gives_one_result_and_another_seed_another(data, tmp_path, uninterrupted):
    run_train(*stage2_flags(data, tmp_path / "again"))
    assert_same_end(tmp_path / "again", uninterrupted)
    other = stage2_flags(data, tmp_path / "other")
    other[other.index("--seed") + 1] = 6
    run_train(*other)
    assert differences(read_run(tmp_path / "other")[0]["model"], uninterrupted[0]["model"])


@pytest.mark.parametrize("stage", [1, 2])
def test_resumed_between_epochs_equals_uninterrupted(data, tmp_path, stage):
    """One epoch, then --resume to two; the second part may go to another folder."""
    common = ["--config", data / f"stage{stage}.yaml"]
    if stage == 2:
        common += ["--stage1-checkpoint", data / "stage1" / BEST]
    run_train(*common, "--new-checkpoint", tmp_path / "whole", "--seed", 5)
    run_train(*common, "--new-checkpoint", tmp_path / "half", "--seed", 5, "--set", "epochs=1")
    status, _, errors = run_train(
        "--config", data / f"stage{stage}.yaml", "--resume", "--checkpoint", tmp_path / "half",
        "--new-checkpoint", tmp_path / "rest",
    )  # fmt: skip
    assert status == 0, errors
    assert_same_end(tmp_path / "rest", read_run(tmp_path / "whole"))
    assert (tmp_path / "rest" / BEST).is_file()


def test_a_killed_process_that_loads_data_ends_the_run_with_one_sentence(data, tmp_path):
    """As the system does when it wants memory."""
    arguments = ["--config", data / "stage1.yaml", "--new-checkpoint", tmp_path / "run"]
    arguments += ["--set", "epochs=10000", "--num-cpus", "2"]
    command = [sys.executable, str(PROJECT_ROOT / "train_firststage.py"), *map(str, arguments)]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, **pipes)
    find_workers, workers = ["pgrep", "-P", str(process.pid), "-f", "train_firststage"], []
    history = tmp_path / "run" / "history.jsonl"
    try:
        while not (history.exists() and history.read_text()) and process.poll() is None:
            time.sleep(0.1)  # until then, the children may be of a command
        while not workers and process.poll() is None:
            workers = subprocess.run(find_workers, capture_output=True, text=True).stdout.split()
        os.kill(int(workers[0]), signal.SIGKILL)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 2
    (line,) = [line.rpartition("\r")[2] for line in errors.splitlines() if "error" in line]
    assert line.startswith("error: a process that loads data was killed")
    assert "Traceback" not in errors and "--num-cpus" in line


@pytest.mark.parametrize("works", [True, False])
def test_a_compiled_model_trains_as_it_would_uncompiled(
    data, tmp_path, uninterrupted, monkeypatch, caplog, works
):
    """Captured by torch.compile and run as it is (backend "eager"): the same bit for bit."""
    backend, compile_with = "eager" if works else lambda graph, inputs: 1 / 0, torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compile_with(model, backend=backend))
    torch._dynamo.reset()
    status, _, errors = run_train(*stage2_flags(data, tmp_path / "run", "--compile"))
    assert status == 0, errors
    assert ("torch.compile fails here" in caplog.text) != works
    assert_same_end(tmp_path / "run", uninterrupted)


@pytest.mark.slow
def test_a_model_compiled_by_inductor_trains_alike(data, tmp_path, caplog):
    """torch.compile as users have it, with a C++ compiler; stage 1, where most is left to it."""
    small = ["--config", data / "stage1.yaml", "--set", "st_depth=1", "--set", "epochs=1"]
    run_train(*small, "--new-checkpoint", tmp_path / "plain")
    torch._dynamo.reset()
    status, _, errors = run_train(*small, "--new-checkpoint", tmp_path / "run", "--compile")
    assert status == 0, errors
    assert "torch.compile fails here" not in caplog.text
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    (plain, told_plain), (run, told) = read_run(tmp_path / "plain"), read_run(tmp_path / "run")
    assert told == [pytest.approx(line, rel=1e-4) for line in told_plain]
    for name, value in plain["model"].items():
        torch.testing.assert_close(run["model"][name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_data_loading_workers_change_nothing(data, tmp_path, uninterrupted):
    status, _, errors = run_train(*stage2_flags(data, tmp_path / "run", "--num-cpus", 3))
    assert status == 0, errors
    assert_same_end(tmp_path / "run", uninterrupted)


def test_a_run_with_log_and_tensorboard_can_be_repeated_from_its_folder(
    data, tmp_path, uninterrupted
):
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder, "--use-log", "--use-tensorboard"))
    session = json.loads((folder / "run.json").read_text())["sessions"][0]
    assert {"command", "seed", "versions", "git_revision"} <= session.keys()
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["channel"] == 8
    assert (folder / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert "epoch 2/2" in (folder / "train.log").read_text()
    assert list((folder / "tensorboard").glob("events*"))
    again = stage2_flags(data, tmp_path / "again")
    again[again.index("--config") + 1] = folder / "config.yaml"
    run_train(*again)
    assert_same_end(tmp_path / "again", uninterrupted)


def test_a_folder_with_a_run_is_not_overwritten_and_not_shared(data, tmp_path):
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder, "--set", "epochs=1"))
    before = (folder / LATEST).read_bytes()
    status, _, errors = run_train(*stage2_flags(data, folder))
    assert status == 2
    assert "--resume" in errors
    assert (folder / LATEST).read_bytes() == before

    pid = fork_train(*stage2_flags(data, tmp_path / "busy", "--set", "epochs=500"))
    while not (tmp_path / "busy" / "config.yaml").exists():
        time.sleep(0.005)
    status, _, errors = run_train(*stage2_flags(data, tmp_path / "busy"))
    os.kill(pid, signal.SIGKILL)
    wait_for(pid)
    assert status == 2
    assert "another run is writing there" in errors


def test_a_batch_in_parts_takes_the_same_step(data, tmp_path, uninterrupted):
    """accumulate only saves memory; without BatchNorm (no graph) not even rounding is large."""
    plain = ["--set", "graph=none", "--set", "epochs=1"]
    run_train(*stage2_flags(data, tmp_path / "whole", *plain))
    run_train(*stage2_flags(data, tmp_path / "parts", *plain, "--set", "accumulate=3"))
    whole, parts = (read_run(tmp_path / name)[0]["model"] for name in ("whole", "parts"))
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-3, atol=2e-5)


def test_moving_average_is_evaluated_and_saved_beside_the_weights(data, tmp_path):
    folder = tmp_path / "run"
    status, _, errors = run_train(*stage2_flags(data, folder, "--set", "ema_decay=0.5"))
    assert status == 0, errors
    checkpoint, history = read_run(folder)
    assert "ema/mpjpe" in history[-1]
    average = checkpoint["training"]["ema"]["lifter.embed.weight"]
    assert not torch.equal(average, checkpoint["model"]["embed.weight"])
    status, _, errors = run_train(
        "--eval-only", "--checkpoint", folder, "--checkpoint-file", BEST_EMA,
        "--report", tmp_path / "report.json",
    )  # fmt: skip
    assert status == 0, errors
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["mpjpe"] == pytest.approx(min(line["ema/mpjpe"] for line in history), rel=1e-6)
    saved = torch.load(folder / BEST_EMA, weights_only=True)
    assert saved["min_mpjpe"] == pytest.approx(report["mpjpe"], rel=1e-6)


def test_the_moving_average_follows_every_step(data, tmp_path, monkeypatch):
    """From the first weights on: average <- 0.8 · average + 0.2 · weights, by hand."""
    seen, step = [], Fit._step

    def noted(fit, batch):
        weight = fit.stage.model.lifter.embed.weight
        if not seen:
            seen.append(weight.detach().clone())
        step(fit, batch)
        seen.append(weight.detach().clone())

    monkeypatch.setattr(Fit, "_step", noted)
    more = ("--set", "ema_decay=0.8", "--set", "epochs=1")
    run_train(*stage2_flags(data, tmp_path / "run", *more))
    average, *weights = seen
    assert len(weights) == 6
    for weight in weights:
        average = 0.8 * average + 0.2 * weight
    saved = read_run(tmp_path / "run")[0]["training"]["ema"]["lifter.embed.weight"]
    torch.testing.assert_close(saved, average, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_reduced_precision_trains(data, tmp_path, precision):
    folder = tmp_path / "run"
    status, _, errors = run_train(
        *stage2_flags(data, folder, "--precision", precision, "--set", "epochs=3")
    )
    assert status == 0, errors
    _, history = read_run(folder)
    assert history[-1]["train/total"] < history[0]["train/total"]


def test_bad_numbers_stop_before_the_step_and_keep_the_checkpoint(data, tmp_path):
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder, "--set", "epochs=1"))
    before = (folder / LATEST).read_bytes()
    checkpoint = torch.load(folder / LATEST, weights_only=True)
    checkpoint["model"]["head.1.bias"][0] = float("nan")
    bad = tmp_path / "bad"
    bad.mkdir()
    torch.save(checkpoint, bad / LATEST)
    status, _, errors = run_train("--config", data / "stage2.yaml", "--resume", "--checkpoint", bad)
    assert status == 2
    assert "epoch 2, step 1" in errors
    assert "nan" in errors
    assert (folder / LATEST).read_bytes() == before


def test_weight_decay_spares_what_should_not_shrink_if_asked_to():
    """Learning rate 1, decay 0.1, gradients 0: decayed weights shrink to 0.9, others stay."""
    lifter = Lifter(H36M, n_frames=4, channel=8, depth=1)
    before = {name: p.detach().clone() for name, p in lifter.named_parameters()}
    for parameter in lifter.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(lifter, learning_rate=1, weight_decay=0.1, decay_on="matrices").step()
    shrunk = {
        name
        for name, p in lifter.named_parameters()
        if p.abs().sum() and torch.allclose(p, 0.9 * before[name])
    }
    assert "spatial.0.mixer.in_proj.weight" in shrunk
    assert "temporal.0.mlp.fc1.weight" in shrunk
    for name in before.keys() - shrunk:
        assert torch.equal(before[name], dict(lifter.named_parameters())[name])
    for spared in ("A_log", ".D", ".bias", "norm1.weight", "_position"):
        assert not [name for name in shrunk if name.endswith(spared)]


RESUME_MISTAKES = {
    "another config": (["--set", "learning_rate=0.5"], "learning_rate is 0.5"),
    "another width": (["--set", "channel=16"], "channel"),
    "another seed": (["--seed", "6"], "--seed 6"),
    "weights only": (["--checkpoint-file", BEST], "no training state"),
    "no such file": (["--checkpoint-file", "latest.pth.tr"], LATEST),
    "both ways": (["--eval-only"], "--eval-only and --resume"),
    "no cpus": (["--num-cpus", "0"], "--num-cpus: '0' is not a whole number"),
    "no minutes": (["--save-every", "-1"], "--save-every"),
    "no precision": (["--precision", "fp64"], "--precision"),
    "negative seed": (["--seed", "-1"], "--seed: '-1' is not a whole number"),
    "report": (["--report", "x.json"], "--report"),
    "no parts": (["--set", "accumulate=0"], "accumulate"),
    "no average": (["--set", "ema_decay=2"], "ema_decay"),
    "no clipping": (["--set", "grad_clip=-1"], "grad_clip"),
    "folder is a file": (["--new-checkpoint", __file__], "cannot write"),
    "folder in a file": (["--new-checkpoint", f"{__file__}/run"], "cannot write"),
    "unknown flag": (["--resum"], "--resum"),
    "stage 1 of stage 2": (["--config", "configs/h36m/first.yaml"], "stage"),
}


@pytest.fixture(scope="module")
def half_run(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "run"
    run_train(*stage2_flags(data, folder, "--set", "epochs=1"))
    return folder


@pytest.mark.parametrize("mistake", RESUME_MISTAKES)
def test_mistakes_when_resuming_lose_nothing(data, half_run, mistake):
    arguments, part = RESUME_MISTAKES[mistake]
    before = {p.name: p.read_bytes() for p in half_run.glob("*.pth.tr")}
    start = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", half_run]
    status, out, errors = run_train(*start, *arguments)
    assert status == 2, out
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert part in errors
    assert before == {p.name: p.read_bytes() for p in half_run.glob("*.pth.tr")}
