"""Training by command, and the evaluation of what it wrote."""

import json
import os
import shutil
import warnings
from contextlib import redirect_stdout
from io import StringIO

import pytest
import torch

import train_firststage
import train_twostage
from lib.checkpoint import BEST, LATEST, load_checkpoint
from lib.errors import UserError
from model.ops import resolve_backend
from tests.commands import command, one_sentence

CPU = torch.device("cpu")


def test_both_stages_then_evaluation_of_the_second_alone(place, tmp_path, train_py, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, error = train_py(
        "--config", place / "first.yaml", "--new-checkpoint", "one", "--set", "epochs=1",
        stage=1,
        output="checkpoint/stage1",
    )  # fmt: skip
    assert status == 0, error
    status, _, error = train_py(
        "--config", place / "tiny.yaml", "--new-checkpoint", "two",
        "--stage1-checkpoint", f"one/{BEST}",
        stage=2,
        output="checkpoint/stage2",
    )  # fmt: skip
    assert status == 0, error
    assert {BEST, LATEST, "history.jsonl"} <= set(os.listdir("two"))
    (line,) = (tmp_path / "two" / "history.jsonl").read_text().splitlines()
    trained = json.loads(line)
    shutil.rmtree("one")
    # It carries its stage 1 and its config: it evaluates alone, to the number of its history.
    status, _, error = train_py("--eval-only", "--checkpoint", "two", "--report", "r.json")
    assert status == 0, error
    found = json.loads((tmp_path / "r.json").read_text())
    for name in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
        assert found[name] == pytest.approx(trained[f"test/{name}"], rel=1e-6)
    # A second run must not write over the first.
    before = {name: (tmp_path / "two" / name).read_bytes() for name in (BEST, LATEST)}
    message = one_sentence(
        train_py(
            "--config", place / "tiny.yaml", "--new-checkpoint", "two",
            "--stage1-checkpoint", place / "stage1" / BEST,
        )
    )  # fmt: skip
    assert "two: " in message
    assert "--resume" in message
    assert before == {name: (tmp_path / "two" / name).read_bytes() for name in (BEST, LATEST)}


@pytest.mark.parametrize(
    ("script", "config"), [("train_firststage", "first"), ("train_twostage", "large")]
)
def test_the_released_scripts_have_a_default_config(script, config):
    status, _, error = command(f"{script}.py", "--set", "chanel=1")
    assert status == 2
    assert error.startswith(f"error: configs/h36m/{config}.yaml: no key 'chanel'")


def test_the_default_config_comes_last(place, tmp_path, train_py, monkeypatch):
    """What the user names, else the checkpoint's own, else the script's default."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "default.yaml").write_text((place / "tiny.yaml").read_text() + "lambda_a: 0.5\n")
    door = {"stage": 2, "output": "checkpoint/stage2", "default_config": "default.yaml"}
    stage1 = ("--stage1-checkpoint", place / "stage1" / BEST)

    def trained_with(folder, *arguments):
        status, _, error = train_py("--new-checkpoint", folder, *stage1, *arguments, **door)
        assert status == 0, error
        return load_checkpoint(tmp_path / folder / BEST).config["lambda_a"]

    named = ("--config", place / "tiny.yaml", "--set", "lambda_a=0.25")
    assert trained_with("named", *named) == 0.25
    assert trained_with("default") == 0.5
    assert trained_with("own", "--checkpoint", "named") == 0.25
    assert trained_with("released", "--checkpoint", place / "stage2") == 0.5


def test_a_command_leaves_nothing_behind_for_the_next_one(place, tmp_path, monkeypatch):
    """main(argv) twice in one process: each prints to its own stdout, with its own backend."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)
    told = []
    for more in (["--scan-backend", "sequential"], []):
        stage1 = ["--config", place / "first.yaml", "--checkpoint", place / "stage1"]
        with redirect_stdout(StringIO()) as out:
            arguments = ["--eval-only", *stage1, "--set", "batch_size=2", *more]
            assert train_firststage.main([str(argument) for argument in arguments]) == 0
        told.append([line for line in out.getvalue().splitlines() if "scan backend" in line])
    (first,), (second,) = told
    assert first == "scan backend sequential (asked for)"
    assert second.startswith(f"scan backend {resolve_backend('auto', CPU, torch.float32)[0]} ")
    with pytest.raises(UserError, match="stage 1"):
        train_twostage.main(["--eval-only", *map(str, stage1)])


def test_the_log_file_of_a_run_gets_its_own_lines_only(place, tmp_path, train_py):
    for name in ("one", "two"):
        run = ("--config", place / "first.yaml", "--new-checkpoint", tmp_path / name)
        status, _, error = train_py(*run, "--set", "epochs=1", "--use-log")
        assert status == 0, error
    log = (tmp_path / "one" / "train.log").read_text()
    assert log.count("epoch 1/1") == 1
