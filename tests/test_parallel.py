"""Several processes of one run: torchrun with gloo on the CPU against a single process."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import lib.training.fit
from lib.checkpoint import BEST, PREVIOUS
from lib.device import choose_device
from lib.errors import UserError
from lib.processes import Processes, is_parallel, joined_processes
from lib.random_state import batch_share, rand_rows
from lib.training.step import Stepper
from model.norm import JointNorm
from model.ops import statistics
from tests.training import (
    differences,
    fork_train,
    read_run,
    run_train,
    send,
    stage2_flags,
    train_in_processes,
    wait_for,
)

ROOT = Path(__file__).resolve().parents[1]


def flags(data: Path, folder: Path, *more) -> list[str]:
    return stage2_flags(data, folder, "--set", "epochs=1", *more)


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


def test_every_process_takes_part_in_every_part_of_a_batch():
    """Also where it has no clip of one: else the others would wait for it."""
    for world, count, parts in ((1, 5, 3), (2, 5, 3), (3, 2, 4), (4, 17, 3), (2, 1, 1)):
        shares = [Processes(rank, world).shares(count, parts) for rank in range(world)]
        assert {len(own) for own in shares} == {min(parts, count)}
        in_order = [i for part in zip(*shares, strict=True) for a, b in part for i in range(a, b)]
        assert in_order == list(range(count))
        whole = Processes().shares(count, parts)
        for number, part in enumerate(zip(*shares, strict=True)):
            assert (part[0][0], part[-1][1]) == whole[number]


def test_random_rows_of_the_shares_are_those_of_the_whole_batch():
    torch.manual_seed(3)
    whole, after = rand_rows((4, 3, 1), torch.device("cpu")), torch.get_rng_state()
    parts = []
    for start, count in ((0, 1), (1, 0), (1, 3)):
        torch.manual_seed(3)
        with batch_share(start, count, 4):
            parts.append(rand_rows((count, 3, 1), torch.device("cpu")))
        assert torch.equal(torch.get_rng_state(), after)
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
    assert train_in_processes(2, *evaluation, tmp_path / "two.json") == [0, 0]
    reports = [json.loads((tmp_path / f"{n}.json").read_text()) for n in ("one", "two")]
    for name in ("mpjpe", "p_mpjpe", "mpjve", "acceleration"):
        assert reports[1][name] == pytest.approx(reports[0][name], rel=1e-6)
    assert reports[1]["frames"] == reports[0]["frames"]


def assert_alike(folders: list[Path], loss: float = 1e-4, weight: float = 1e-4) -> None:
    (one, history_one), (two, history_two) = map(read_run, folders)
    assert len(history_one) == len(history_two)
    for line_one, line_two in zip(history_one, history_two, strict=True):
        assert line_one == pytest.approx(line_two, rel=loss)
    for name, value in one["model"].items():
        torch.testing.assert_close(two["model"][name], value, rtol=1e-3, atol=weight, msg=name)


def test_accumulated_parts_of_uneven_shares_train_as_one_process(data, tmp_path):
    """Batches of 5 in 3 parts: the first part has one clip, so the first process has none of it."""
    sizes = ["--set", "batch_size=5", "--set", "accumulate=3", "--set", "learning_rate=0.0001"]
    assert run_train(*flags(data, tmp_path / "one", *sizes))[0] == 0
    assert train_in_processes(2, *flags(data, tmp_path / "two", *sizes)) == [0, 0]
    assert_alike([tmp_path / "one", tmp_path / "two"])


@pytest.mark.parametrize(("precision", "loss"), [("bf16", 0.02), ("fp16", 0.005)])
def test_reduced_precision_in_two_processes(data, tmp_path, precision, loss):
    """The same as in one, to the dtype's rounding; 47 clips, so the second batch is not shared."""
    more = ["--precision", precision, "--set", "batch_size=47"]
    assert run_train(*flags(data, tmp_path / "one", *more))[0] == 0
    assert train_in_processes(2, *flags(data, tmp_path / "two", *more)) == [0, 0]
    assert_alike([tmp_path / "one", tmp_path / "two"], loss, weight=0.01)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_statistics_over_processes_are_float32(monkeypatch, dtype):
    """BatchNorm of a 'second process' without rows is PyTorch's own, also for 70,000 values."""
    monkeypatch.setattr(statistics, "is_parallel", lambda: True)
    monkeypatch.setattr(statistics.dist, "all_reduce", lambda values: None)
    monkeypatch.setattr(statistics.differentiable, "all_reduce", lambda values: values)
    ours, theirs = JointNorm(3), torch.nn.BatchNorm1d(3)
    x = (torch.randn(1000, 3, 70) * 3 + 1).to(dtype)
    found, expected = ours(x), theirs(x)
    assert found.dtype == expected.dtype == dtype
    tolerance = 2e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), rtol=1e-4, atol=1e-5)


def stop_second_process_in_step(step: int, rank: int) -> None:
    """The signal reaches one process only, and all stop after the same step."""
    if rank == 1:
        take_step, steps = Stepper.__call__, itertools.count(1)

        def counted(self, batch):
            if next(steps) == step:
                send(signal.SIGTERM)
            return take_step(self, batch)

        Stepper.__call__ = counted


@pytest.fixture(scope="module")
def stopped(data, tmp_path_factory) -> Path:
    """Two epochs by two processes, stopped by a signal in step 3 of 6."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    before = partial(stop_second_process_in_step, 3)
    statuses = train_in_processes(2, *flags(data, folder, "--set", "epochs=2"), before=before)
    assert 143 in statuses
    assert read_run(folder)[0]["training"]["position"]["step"] == 3
    return folder


@pytest.fixture(scope="module")
def unstopped(data, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("unstopped") / "run"
    assert run_train(*flags(data, folder, "--set", "epochs=2"))[0] == 0
    return folder


@pytest.mark.parametrize("world", [1, 2, 3])
def test_resumed_by_any_number_of_processes(data, tmp_path, stopped, unstopped, world):
    """The epoch's loss is that of all its clips, before and after the stop, of all processes."""
    checkpoint = read_run(stopped)[0]["training"]
    assert checkpoint["clips"] == 24
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", stopped]
    resume += ["--new-checkpoint", tmp_path / "run"]
    resume += ["--set", "epochs=2"]
    assert train_in_processes(world, *resume) == [0] * world
    assert_alike([tmp_path / "run", unstopped])


def test_one_process_resumed_by_two(data, tmp_path, unstopped):
    """Its sums of losses belong to one process only, whichever goes on."""
    folder = tmp_path / "run"
    run = flags(data, folder, "--set", "epochs=2")
    pid = fork_train(*run, before=lambda: stop_second_process_in_step(3, rank=1))
    assert wait_for(pid) == 143
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", folder]
    assert train_in_processes(2, *resume, "--set", "epochs=2") == [0, 0]
    assert_alike([folder, unstopped])


def test_saving_inside_an_epoch_meets_in_all_processes(data, tmp_path):
    """Each has its own clock: whether to save is decided together, and changes no result."""
    plain, saving = tmp_path / "plain", tmp_path / "saving"
    assert train_in_processes(2, *flags(data, plain)) == [0, 0]

    def be_hasty(rank: int) -> None:  # only the second process thinks that it is time
        ticks = itertools.count(step=3600)
        lib.training.fit.time.monotonic = (lambda: float(next(ticks))) if rank else (lambda: 0.0)

    arguments = flags(data, saving, "--save-every", "1")
    assert train_in_processes(2, *arguments, before=be_hasty) == [0, 0]
    assert not differences(read_run(saving)[0], read_run(plain)[0])
    assert (saving / PREVIOUS).exists()
    assert not (plain / PREVIOUS).exists()


def test_a_mistake_that_one_process_finds_ends_all(unstopped, tmp_path):
    """Only the main process scores: the other one waits for it, and is told."""
    checkpoint = torch.load(unstopped / BEST, weights_only=True)
    checkpoint["model"]["head.1.bias"][0] = float("nan")
    torch.save(checkpoint, tmp_path / BEST)
    assert train_in_processes(2, "--eval-only", "--checkpoint", tmp_path) == [2, 2]


def test_each_process_takes_its_gpu_before_it_meets_the_others(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda number: calls.append(number))
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **_: calls.append(backend))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: calls.append("left"))
    monkeypatch.setattr(dist, "get_rank", lambda: 5)
    for name, value in (("WORLD_SIZE", "8"), ("RANK", "5"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with joined_processes("auto") as processes:
        assert processes == Processes(5, 8, 1)
        assert is_parallel()
    assert not is_parallel()
    assert calls == [1, "nccl", "left"]
    calls.clear()
    with joined_processes("cpu"):
        assert calls == ["gloo"]


def test_more_processes_than_gpus_is_one_sentence(monkeypatch):
    def refuse(number: int) -> None:
        raise RuntimeError("CUDA error: invalid device ordinal")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "set_device", refuse)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    told = pytest.raises(UserError, match=r"no GPU number 1 .* it has 1; start fewer")
    with told, joined_processes("auto"):
        pass


def test_a_gpu_that_is_chosen_becomes_the_current_one(monkeypatch):
    """Random states and nccl go by the current GPU."""
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda size, device: empty(size))
    assert choose_device("auto", Processes(rank=3, world=4, local_rank=1)) == torch.device("cuda:1")
    assert choose_device("cuda:2") == torch.device("cuda:2")
    assert taken == [torch.device("cuda:1"), torch.device("cuda:2")]
    with pytest.raises(UserError, match="--device cuda:0: each of several processes"):
        choose_device("cuda:0", Processes(rank=1, world=2, local_rank=1))


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


def test_a_lost_loading_process_is_not_told_where_nobody_can_catch_it(monkeypatch):
    """Python tells what is raised in a generator that is thrown away."""
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda about: told.append(str(about.exc_value)))

    def raising(message: str) -> Iterator[int]:
        try:
            yield 1
        finally:
            raise RuntimeError(message)

    def throw_away(message: str) -> None:
        generator = raising(message)
        next(generator)
        del generator

    lost = "DataLoader worker (pid 7) is killed by signal: Killed."
    with joined_processes("cpu"):
        throw_away(lost)
        throw_away("something else")
    assert told == ["something else"]
    throw_away(lost)
    assert told == ["something else", lost]
