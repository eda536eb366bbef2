"""Signals, kill -9 and a full disk: nothing is lost, and a resumed run ends as a whole one does."""

import copy
import itertools
import os
import random
import resource
import signal
from functools import partial
from pathlib import Path

import pytest

import lib.files
import lib.random_state
import lib.training.fit
import lib.training.optim
import lib.training.stages
import lib.training.step
from lib.checkpoint import LATEST, PREVIOUS, load_checkpoint
from lib.random_state import random_states
from lib.training.fit import Fit
from lib.training.signals import Stop
from lib.training.step import Stepper
from tests.training import (
    Lines,
    assert_same_end,
    differences,
    fork_train,
    read_run,
    run_train,
    send,
    stage2_flags,
    wait_for,
)


def finish(data: Path, folder: Path, *more) -> None:
    """Resume until the end, from scratch if nothing had been saved yet."""
    if (folder / LATEST).exists():
        status, _, errors = run_train(
            "--config", data / "stage2.yaml", "--resume", "--checkpoint", folder, *more
        )
    else:
        status, _, errors = run_train(*stage2_flags(data, folder, *more))
    assert status == 0, errors


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_says_so_by_the_exit_status(
    data, tmp_path, uninterrupted, number, status
):
    folder = tmp_path / "run"

    def signal_in_step_4() -> None:
        take_step, steps = Stepper.__call__, itertools.count(1)

        def counted(self, batch):
            if next(steps) == 4:
                send(number)
            return take_step(self, batch)

        Stepper.__call__ = counted

    assert wait_for(fork_train(*stage2_flags(data, folder), before=signal_in_step_4)) == status
    assert read_run(folder)[0]["training"]["position"]["step"] == 4
    finish(data, folder)
    assert_same_end(folder, uninterrupted)


def test_a_signal_at_any_line_of_the_evaluation_keeps_the_weights(data, tmp_path, monkeypatch):
    """Also while the moving average is evaluated: what would be saved are the weights themselves,
    the average and the random states of a training that saw no signal."""
    average = ("--set", "ema_decay=0.5", "--set", "epochs=1")
    assert run_train(*stage2_flags(data, tmp_path / "whole", *average))[0] == 0
    modules = lib.training.fit, lib.training.optim, lib.training.stages, lib.random_state
    evaluate, points, stops = Fit._evaluate, [], []

    def stopped_everywhere(fit):
        def state():
            return fit.stage.weights(fit.stage.model), fit.ema.weights, random_states()

        expected = copy.deepcopy(state())
        with Lines(*modules) as lines:
            scores = evaluate(fit)
        points.extend(range(1, lines.count + 1))
        for at in points:
            with Lines(*modules, at=at, then=lambda: send(signal.SIGTERM)):
                try:
                    evaluate(fit)
                except Stop:
                    stops.append(at)
            assert not differences(state(), expected), at
            fit.signals.received = None
        return scores

    monkeypatch.setattr(Fit, "_evaluate", stopped_everywhere)
    status, _, errors = run_train(*stage2_flags(data, tmp_path / "stopped", *average))
    assert status == 0, errors
    assert len(stops) > len(points) / 2  # a signal after the last batch waits for the next step
    assert_same_end(tmp_path / "stopped", read_run(tmp_path / "whole"))


@pytest.mark.parametrize("model", ["stage", "average"])
def test_a_signal_in_an_evaluation_stops_it_and_resuming_ends_the_same(
    data, tmp_path, monkeypatch, model
):
    average = ("--set", "ema_decay=0.5", "--set", "epochs=1")
    assert run_train(*stage2_flags(data, tmp_path / "whole", *average))[0] == 0
    report = Fit._report

    def signalled(fit, evaluated):
        if (evaluated is fit.ema.model) == (model == "average"):
            send(signal.SIGTERM)
        return report(fit, evaluated)

    with monkeypatch.context() as patched:
        patched.setattr(Fit, "_report", signalled)
        assert run_train(*stage2_flags(data, tmp_path / "run", *average))[0] == 143
    finish(data, tmp_path / "run", *average)
    assert_same_end(tmp_path / "run", read_run(tmp_path / "whole"))


def kill_while_saving(number: int) -> None:
    """kill -9 in the save of that number: its file is written and has not got its name yet."""
    replace, saves = os.replace, itertools.count(1)

    def replace_or_die(source, target):
        if Path(target).name == LATEST and next(saves) == number:
            send(signal.SIGKILL)
        replace(source, target)

    os.replace = replace_or_die


def test_twenty_kills_half_of_them_while_saving(data, tmp_path, uninterrupted):
    """kill -9 again and again; every resumed run goes on, and each end is the right one."""
    random_numbers, ends, kills = random.Random(0), 0, []
    folder = tmp_path / "0"
    while len(kills) < 20:
        arguments = stage2_flags(data, folder)
        if (folder / LATEST).exists():
            arguments = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", folder]
        line, save = random_numbers.randrange(1, 400), random_numbers.randrange(1, 3)
        is_save = len(kills) % 2 == 0
        modules = lib.training.fit, lib.training.step, lib.files
        trace = Lines(*modules, at=line, then=lambda: send(signal.SIGKILL))
        status = wait_for(
            fork_train(
                *arguments, "--save-every", "0.00001",  # after every step
                before=partial(kill_while_saving, save) if is_save else trace.start,
            )
        )  # fmt: skip
        left = list(folder.glob(f".{LATEST}.*"))
        for file in left:
            file.unlink()
        if status == 128 + signal.SIGKILL:
            kills.append(bool(left))
        else:
            assert status == 0
            assert_same_end(folder, uninterrupted)
            ends += 1
            folder = tmp_path / str(ends)
    assert all(kills[::2])
    finish(data, folder)
    assert_same_end(folder, uninterrupted)


def test_a_full_disk_leaves_the_last_checkpoint_and_one_sentence(data, tmp_path):
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder, "--set", "epochs=1"))
    before = (folder / LATEST).read_bytes()
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", folder]

    def limit_files() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))

    assert wait_for(fork_train(*resume, before=limit_files)) == 2
    assert (folder / LATEST).read_bytes() == before
    assert not [p for p in folder.iterdir() if p.name.startswith(f".{LATEST}")]
    load_checkpoint(folder / LATEST)


def test_an_unreadable_latest_names_the_newest_readable_one(data, tmp_path):
    folder = tmp_path / "run"
    run_train(*stage2_flags(data, folder))
    with open(folder / LATEST, "r+b") as file:
        file.truncate(1000)
    resume = ["--config", data / "stage2.yaml", "--resume", "--checkpoint", folder]
    status, _, errors = run_train(*resume)
    assert status == 2
    assert errors.count("\n") == 1
    assert LATEST in errors
    assert PREVIOUS in errors
    status, _, errors = run_train(*resume, "--checkpoint-file", PREVIOUS)
    assert status == 0, errors


@pytest.mark.parametrize("links", [True, False])
def test_the_checkpoint_before_the_latest_is_kept(data, tmp_path, monkeypatch, links):
    """Also on a file system without hard links."""
    kept, save = [], Fit.save_latest

    def save_and_note(fit):
        path = save(fit)
        kept.append(path.read_bytes())
        return path

    def refuse(*_):
        raise OSError("no links here")

    monkeypatch.setattr(Fit, "save_latest", save_and_note)
    if not links:
        monkeypatch.setattr(os, "link", refuse)
    run_train(*stage2_flags(data, tmp_path / "run"))
    assert len(kept) == 2
    assert (tmp_path / "run" / PREVIOUS).read_bytes() == kept[0]
    assert (tmp_path / "run" / LATEST).read_bytes() == kept[1]
