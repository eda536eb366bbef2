"""Its evaluation condition reproduced, its runs continued here, our checkpoints written for it."""

import json
from pathlib import Path

import pytest

from lib.checkpoint import BEST, LATEST
from tests.training import make_data, read_run, run_train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data set, configs of both stages and a trained stage 1."""
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    status, _, errors = run_train(
        "--config", root / "stage1.yaml", "--new-checkpoint", root / "stage1", "--seed", 3
    )
    assert status == 0, errors
    return root


def train(data: Path, folder: Path, *more: object, stage: int = 2) -> None:
    stage1 = ["--stage1-checkpoint", data / "stage1" / BEST] if stage == 2 else []
    status, _, errors = run_train(
        *("--config", data / f"stage{stage}.yaml", "--new-checkpoint", folder, *stage1, *more)
    )
    assert status == 0, errors


# --- Stage 1's DropPath while training and scoring stage 2 --------------------------------------


def score(folder: Path, *more: object) -> float:
    report = folder / "report.json"
    status, _, errors = run_train(
        *("--eval-only", "--checkpoint", folder, "--checkpoint-file", LATEST),
        *("--report", report, *more),
    )
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
