"""Several processes of one run: torchrun with gloo on the CPU against a single process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from lib.checkpoint import BEST
from lib.parallel import Processes, batch_share, rand_rows
from tests.training import make_data, read_run, run_train

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A data set of 48 training clips, and its stage 1."""
    root = tmp_path_factory.mktemp("data")
    make_data(root)
    run_train("--config", root / "stage1.yaml", "--new-checkpoint", root / "stage1")
    return root


def flags(data: Path, folder: Path, *more) -> list[str]:
    arguments = [
        *("--config", data / "stage2.yaml", "--new-checkpoint", folder),
        *("--stage1-checkpoint", data / "stage1" / BEST, "--set", "epochs=1", *more),
    ]
    return [str(a) for a in arguments]


def torchrun(script: str, arguments: list[str], **keywords) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--master-port", str(20000 + os.getpid() % 20000), str(ROOT / script), *arguments]
    return subprocess.Popen(
        command,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **keywords,
    )


def test_shares_cover_everything_once():
    for world in (1, 2, 3, 5):
        for count in (0, 1, 4, 17):
            shares = [Processes(rank, world).share(count) for rank in range(world)]
            assert [i for a, b in shares for i in range(a, b)] == list(range(count))


def test_random_rows_of_the_shares_are_those_of_the_whole_batch():
    torch.manual_seed(3)
    whole = rand_rows(12, torch.device("cpu"))
    parts = []
    for start, count in ((0, 1), (1, 3)):
        torch.manual_seed(3)
        with batch_share(start, count, 4):
            parts.append(rand_rows(3 * count, torch.device("cpu")))
    assert torch.equal(torch.cat(parts), whole)


def test_two_processes_train_as_one(data, tmp_path):
    """Batches of 47: the second has one clip, so one process has none; DropPath and BatchNorm on.

    The same loss curve, scores and weights as one process, to float tolerance, and a sharded
    evaluation gives the same table to 1e-6.
    """
    sizes = ["--set", "batch_size=47"]
    status, _, errors = run_train(*flags(data, tmp_path / "one", *sizes))
    assert status == 0, errors
    process = torchrun("train_twostage.py", flags(data, tmp_path / "two", *sizes))
    out, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    assert out.count("epoch 1/1") == 1  # only one process talks

    (one, history_one), (two, history_two) = (read_run(tmp_path / n) for n in ("one", "two"))
    for name, value in history_one[0].items():
        assert history_two[0][name] == pytest.approx(value, rel=1e-4), name
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-3, atol=1e-4, msg=name)

    evaluation = ["--eval-only", "--checkpoint", str(tmp_path / "one"), "--report"]
    run_train(*evaluation, tmp_path / "one.json")
    process = torchrun("train.py", [*evaluation, str(tmp_path / "two.json")])
    _, errors = process.communicate(timeout=200)
    assert process.returncode == 0, errors
    reports = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two")]
    for name in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
        assert reports[1][name] == pytest.approx(reports[0][name], rel=1e-6)
    assert reports[1]["frames"] == reports[0]["frames"]


def test_the_death_of_one_process_ends_all(data, tmp_path):
    folder = tmp_path / "run"
    process = torchrun("train_twostage.py", flags(data, folder, "--set", "epochs=10000"))
    try:
        deadline = time.monotonic() + 120
        while not (folder / "config.yaml").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = subprocess.run(
            ["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert len(workers) == 2
        os.kill(int(workers[1]), signal.SIGKILL)
        _, errors = process.communicate(timeout=60)  # a minute
    finally:
        process.kill()
    assert process.returncode != 0
    assert "-9" in errors or "SIGKILL" in errors
