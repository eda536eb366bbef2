"""The training loop, the only one: both stages, every data set, resumable at any step."""

import math
import os
import signal
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lib.batch import SharedBatch
from lib.checkpoint import BEST, BEST_EMA, FORMAT, LATEST, PREVIOUS, Checkpoint, save_checkpoint
from lib.errors import UserError
from lib.files import copy_atomic
from lib.random_state import random_states, set_random_states
from lib.released_run import training_state
from lib.schedule import learning_rate
from lib.training.curves import Line
from lib.training.optim import MovingAverage, make_optimizer, set_learning_rate
from lib.training.progress import REFRESH, progress_bar
from lib.training.run import HISTORY, Run, SilentRun
from lib.training.session import Session
from lib.training.signals import Interrupted, Signals, Stop
from lib.training.stages import Stage, StageReport
from lib.training.step import SUMS, BadNumber, Stepper

# What a process wishes after a step; the strongest wish of all processes counts.
GO_ON, SAVE, STOP = range(3)
STEPS_BETWEEN_WISHES = 16


class Loader(Protocol):
    """Batches by epoch and step."""

    def __len__(self) -> int: ...
    def batches(self, epoch: int, start_step: int = 0) -> Iterator[SharedBatch]: ...


@dataclass
class Position:
    """Where a training is: `step` steps of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_ema: float | None = None


class Fit:
    """One training: its loop, its checkpoints, and how it resumes."""

    def __init__(
        self, session: Session, stage: Stage, loader: Loader, run: Run | SilentRun
    ) -> None:
        """Ready for the first step, or, in a resumed session, for the next one.

        Raises UserError: the session's checkpoint cannot be resumed.
        """
        self.session, self.stage, self.loader, self.run = session, stage, loader, run
        self.config, self.processes = session.config, session.processes
        self.optimizer = make_optimizer(
            stage.model,
            self.config.learning_rate,
            self.config.weight_decay,
            self.config.weight_decay_on,
            self.config.optimizer,
        )
        self.stepper = Stepper(
            stage.losses,
            self.optimizer,
            device=session.device,
            processes=self.processes,
            precision=session.options.precision,
            grad_clip=self.config.grad_clip,
        )
        decay = self.config.ema_decay
        self.ema = MovingAverage(stage.model, decay) if decay else None
        self.at = Position()
        # Each loss of this epoch, summed over clips: those of this process, until _gather_sums()
        # gives all to the main one.
        self.sums: dict[str, float | Tensor] = {}
        self.clips = 0
        self.history: list[Line] = []
        self.signals = Signals()
        if session.resumed:
            self._restore(session.resumed)

    # --- state ------------------------------------------------------------------------------

    def contents(self, model: nn.Module, best: float | None) -> dict[str, Any]:
        """What a checkpoint of `model` holds for evaluation; best: its score."""
        score = "max_accuracy" if self.config.stage == 1 else "min_mpjpe"
        return {
            "format": FORMAT,
            "stage": self.config.stage,
            "epoch": self.at.epoch,
            score: best,
            "config": self.config.as_dict(),
            **self.stage.weights(model),
        }

    def training_state(self) -> dict[str, Any]:
        """What --resume needs beside contents()."""
        return {
            "position": vars(self.at).copy(),
            "sums": self._read_sums(),
            "clips": self.clips,
            "history": list(self.history),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.stepper.scaler.state_dict(),
            "ema": self.ema.weights if self.ema else None,
            "random": random_states(),
            "seed": self.session.seed,
            "wandb_id": self.run.wandb_id,
        }

    def save_latest(self) -> Path:
        """The checkpoint to resume from; the one before it is kept as a second chance."""
        path, previous = self.run.folder / LATEST, self.run.folder / PREVIOUS
        if not self.processes.is_main:
            return path
        if path.exists():
            spare = previous.with_name(f".{PREVIOUS}")
            try:
                spare.unlink(missing_ok=True)
                os.link(path, spare)
                os.replace(spare, previous)
            except OSError:  # a file system without hard links
                copy_atomic(path, previous)
        weights = self.contents(self.stage.model, self.at.best)
        save_checkpoint(path, {**weights, "training": self.training_state()})
        return path

    def _restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint's training state (its weights are loaded already)."""
        state = checkpoint.training
        if checkpoint.released:
            state = training_state(
                checkpoint.released, self.config, self.optimizer, self.stage.model
            )
        if state is None:
            raise UserError(
                f"{checkpoint.path}: holds weights but no training state, so it cannot be resumed;"
                f" resume from a {LATEST}, or drop --resume to start from these weights"
            )
        try:
            self.at = Position(**state["position"])
            self.history = list(state["history"])
            if self.processes.is_main:  # the sums of all processes, however many they were
                self.sums, self.clips = dict(state["sums"]), state["clips"]
            self.optimizer.load_state_dict(state["optimizer"])
            if not checkpoint.released:
                self.stepper.scaler.load_state_dict(state["scaler"])
                set_random_states(state["random"])
            if self.ema and state["ema"] is not None:
                self.ema.restore(state["ema"])
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{checkpoint.path}: its training state is damaged ({reason}); resume from another"
                f" checkpoint, for instance --checkpoint-file {PREVIOUS}"
            ) from error
        self._take_results(checkpoint.path.parent, bool(checkpoint.released))

    def _take_results(self, folder: Path, is_released: bool) -> None:
        """A run resumed into another folder takes its best epochs and its history along.

        Released files in the run's own folder are kept under another name.
        """
        if not self.processes.is_main:
            return
        if folder.resolve() == self.run.folder.resolve():
            for name in (BEST, LATEST) if is_released else ():
                kept = folder / f"released_{name}"
                if (folder / name).is_file() and not kept.exists():
                    copy_atomic(folder / name, kept)
            return
        for name in (BEST, BEST_EMA, HISTORY):
            if (folder / name).is_file():
                copy_atomic(folder / name, self.run.folder / name)

    # --- the loop ---------------------------------------------------------------------------

    def __call__(self) -> None:
        """Train to the last epoch. Raises Interrupted after a signal, UserError on bad numbers."""
        with self.signals.caught():
            try:
                self.run.record(self.history)
                while self.at.epoch < self.config.epochs:
                    began = time.monotonic()
                    waited = self._train_epoch()
                    scores = self._evaluate()
                    self._finish_epoch(scores, began, waited)
            except Stop:
                raise self._interrupted() from None

    def _interrupted(self) -> Interrupted:
        path, number = self.save_latest(), self.signals.received or signal.SIGTERM
        self.run.log(
            f"stopped by {signal.Signals(number).name} in epoch {self.at.epoch + 1}, step"
            f" {self.at.step}; saved to {path}; go on with --resume --checkpoint {self.run.folder}"
        )
        return Interrupted(number)

    def _train_epoch(self) -> float:
        """The rest of an epoch's steps; returns the seconds spent waiting for data."""
        epoch = self.at.epoch
        self.stage.model.train()
        bar = progress_bar(
            range(self.at.step, len(self.loader)),
            f"epoch {epoch + 1}/{self.config.epochs}",
            self.processes,
            total=len(self.loader),
            first=self.at.step,
        )
        batches = self.loader.batches(epoch, self.at.step)
        waited, saved = 0.0, time.monotonic()
        told = saved
        with bar:
            for _ in bar:
                asked = time.monotonic()
                batch = next(batches)
                waited += time.monotonic() - asked
                self._step(batch)
                if time.monotonic() - told >= REFRESH:  # not after each step: it waits for a GPU
                    self._check()
                    bar.set_postfix_str(f"loss {self._mean('total'):.4f}", refresh=False)
                    told = time.monotonic()
                wish = self._wish_of_all(saved)
                if wish > GO_ON:
                    self._check()
                    self._gather_sums()
                if wish == STOP:
                    raise Stop
                if wish == SAVE:
                    self.save_latest()
                    saved = time.monotonic()
        self._check()
        self._gather_sums()  # all processes meet here; an evaluation that is stopped only saves
        return waited

    def _wish_of_all(self, saved: float) -> int:
        """The strongest wish of all processes. GPUs would wait for each other to exchange it, so
        several ask each other in some steps only."""
        if self.processes.are_several and self.session.device.type == "cuda":
            is_last = self.at.step == len(self.loader)
            if self.at.step % STEPS_BETWEEN_WISHES and not is_last:
                return GO_ON
        return self.processes.max(self._wish(saved), self.session.device)

    def _wish(self, saved: float) -> int:
        """What this process wants after a step; saved: when the last checkpoint was."""
        every = self.session.options.save_every
        is_due = every is not None and time.monotonic() - saved > 60 * every
        return STOP if self.signals.received else SAVE if is_due else GO_ON

    def _gather_sums(self) -> None:
        """The main process takes over all sums of the losses; the others begin at 0."""
        parts = self.processes.gather((self._read_sums(), self.clips))
        self.sums, self.clips = {}, 0
        for sums, clips in parts:
            self._add_sums(sums, clips)

    def _read_sums(self) -> dict[str, float]:
        """The sums as numbers; waits for the device once."""
        values = [torch.as_tensor(value, dtype=SUMS) for value in self.sums.values()]
        numbers = dict(zip(self.sums, torch.stack(values).tolist() if values else [], strict=True))
        self.sums = {**numbers}
        return numbers

    def _add_sums(self, sums: Mapping[str, float | Tensor], clips: int) -> None:
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
        self.clips += clips

    def learning_rate(self, step: int) -> float:
        """Of a step of this epoch."""
        return learning_rate(self.config, self.at.epoch, step, len(self.loader))

    def _mean(self, name: str) -> float:
        return float(self.sums.get(name, 0.0)) / max(1, self.clips)

    def _step(self, batch: SharedBatch) -> None:
        set_learning_rate(self.optimizer, self.learning_rate(self.at.step))
        try:
            sums = self.stepper(batch)
        except BadNumber as error:
            raise self._bad_number(error) from error
        if self.ema:
            self.ema.update(self.stage.model)
        self._add_sums(sums, len(batch.clips))
        self.at.step += 1

    def _check(self) -> None:
        """Raise UserError if a step since the last check had a bad number."""
        try:
            self.stepper.check()
        except BadNumber as error:
            raise self._bad_number(error) from error

    def _bad_number(self, error: BadNumber) -> UserError:
        return UserError(
            f"{error} in epoch {self.at.epoch + 1}, step {self.at.step - error.ago}; nothing was"
            f" changed by this step, the last good checkpoint is in {self.run.folder}: lower"
            " learning_rate, set grad_clip, or look at these clips"
        )

    def _evaluate(self) -> dict[str, float]:
        """Scores by the names history knows: test/…, its details, and ema/… of the average."""
        report = self._report(self.stage.model)
        scores = {f"test/{k}": v for k, v in report.scores().items()} | report.details()
        if self.ema:
            scores |= {f"ema/{k}": v for k, v in self._report(self.ema.model).scores().items()}
        return scores

    def _report(self, model: nn.Module) -> StageReport:
        return self.stage.evaluate(
            model,
            lambda clips: self.signals.watch(progress_bar(clips, "evaluating", self.processes)),
            self.processes,
        )

    def _finish_epoch(self, scores: dict[str, float], began: float, waited: float) -> None:
        losses = self.processes.from_main(
            lambda: {f"train/{name}": self._mean(name) for name in self.sums}
        )
        rate = self.learning_rate(len(self.loader) - 1)  # of the last step
        line = {"epoch": self.at.epoch + 1, "lr": rate, **losses, **scores}
        metric = self.stage.metric
        best, is_best = self._best(scores[f"test/{metric}"], self.at.best)
        self.at = Position(self.at.epoch + 1, 0, best, self.at.best_ema)
        line[f"best/{metric}"] = best
        # Best before latest: after a kill in between, the epoch is repeated, with the same best.
        if is_best:
            self._save_best(BEST, self.stage.model, best)
        if self.ema:
            best, is_best_ema = self._best(scores[f"ema/{metric}"], self.at.best_ema)
            self.at.best_ema = line[f"best/ema_{metric}"] = best
            if is_best_ema:
                self._save_best(BEST_EMA, self.ema.model, best)
        self.history.append(line)
        self.sums, self.clips = {}, 0
        self.save_latest()
        self.run.record(self.history)
        seconds = time.monotonic() - began
        told = {name: v for name, v in scores.items() if name.startswith(("test/", "ema/"))}
        self.run.log(
            f"epoch {self.at.epoch}/{self.config.epochs}: loss {losses['train/total']:.4f}, "
            + ", ".join(f"{n.removeprefix('test/')} {v:.4g}" for n, v in told.items())
            + f"{' (best)' if is_best else ''}, lr {line['lr']:.2e}, {seconds:.0f} s,"
            f" {waited / max(seconds, 1e-9):.1%} of it waiting for data"
        )

    def _save_best(self, name: str, model: nn.Module, score: float) -> None:
        if not self.processes.is_main:
            return
        save_checkpoint(self.run.folder / name, self.contents(model, score))
        self.run.keep(self.run.folder / name, self.at.epoch, score)

    def _best(self, score: float, best: float | None) -> tuple[float, bool]:
        """The better one of a new score and the best so far, and whether it is the new one."""
        if best is None or math.isnan(best):
            return score, True
        is_new = score > best if self.stage.higher_is_better else score < best
        return (score if is_new else best), is_new
