"""The training loop, the only one: both stages, every data set, resumable at any step."""

import math
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from lib.checkpoint import BEST, LATEST, Checkpoint, save_checkpoint
from lib.config import Config
from lib.errors import UserError
from lib.run import Run
from lib.stages import Stage


class Loader(Protocol):
    """Batches by epoch and step; data.loader.ClipLoader is one."""

    def __len__(self) -> int: ...
    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Any]: ...


class Interrupted(Exception):
    """SIGINT or SIGTERM came; the state has been saved."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.exit_status = 128 + signal_number


class _Stop(Exception):
    """A signal, at a moment when the state is consistent."""


class _Signals:
    """SIGINT and SIGTERM wait for the end of a step; where `may_stop`, they take effect at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._may_stop = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        if self._may_stop:
            self._may_stop = False
            raise _Stop

    @contextmanager
    def caught(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM)
        try:
            before = [signal.signal(number, self._handle) for number in numbers]
        except ValueError:  # not in the main thread: signals are somebody else's
            before = []
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=False):
                signal.signal(number, handler)

    @contextmanager
    def may_stop(self) -> Iterator[None]:
        if self.received:
            raise _Stop
        self._may_stop = True
        try:
            yield
        finally:
            self._may_stop = False


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (libraries that use the global state)
    torch.manual_seed(seed)


def _random_states() -> dict[str, Any]:
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    states = {
        "python": [version, list(words), gauss],
        "numpy": [name, keys.tolist(), *rest],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state_all()
    return states


def _set_random_states(states: dict[str, Any]) -> None:
    version, words, gauss = states["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = states["numpy"]
    np.random.set_state((name, np.array(keys, np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(states["torch"])
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(states["cuda"])


def progress_bar(
    items: Iterable, description: str, total: int | None = None, first: int = 0
) -> tqdm:
    """A bar with ETA; a terminal sees it move, a log file a line every half minute."""
    interval = 0.1 if sys.stderr.isatty() else 30
    return tqdm(items, description, total, initial=first, mininterval=interval, leave=False)


@dataclass
class Position:
    """Where a training is: `step` steps of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0
    best: float | None = None


class Fit:
    """The state of one training, and how it goes on, is saved and is restored."""

    def __init__(self, stage: Stage, loader: Loader, config: Config, run: Run, seed: int) -> None:
        self.stage, self.loader, self.config, self.run, self.seed = stage, loader, config, run, seed
        trained = [p for p in stage.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            trained, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.device = trained[0].device
        self.at = Position()
        self.sums: dict[str, float] = {}  # of the losses of this epoch, weighted by clips
        self.clips = 0
        self.history: list[dict[str, Any]] = []
        self.signals = _Signals()

    # --- state ------------------------------------------------------------------------------

    def contents(self) -> dict[str, Any]:
        """What a checkpoint holds for evaluation."""
        score = "max_accuracy" if self.config.stage == 1 else "min_mpjpe"
        return {
            "stage": self.config.stage,
            "epoch": self.at.epoch,
            score: self.at.best,
            "config": self.config.as_dict(),
            **self.stage.weights(),
        }

    def training_state(self) -> dict[str, Any]:
        """What --resume needs on top of it."""
        return {
            "position": vars(self.at).copy(),
            "sums": dict(self.sums),
            "clips": self.clips,
            "history": list(self.history),
            "optimizer": self.optimizer.state_dict(),
            "random": _random_states(),
            "seed": self.seed,
            "wandb_id": self.run.wandb_id,
        }

    def save_latest(self) -> Path:
        path = self.run.folder / LATEST
        save_checkpoint(path, {**self.contents(), "training": self.training_state()})
        return path

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint's training state (its weights are loaded already)."""
        state = checkpoint.training
        if state is None:
            raise UserError(
                f"{checkpoint.path}: holds weights but no training state, so it cannot be resumed;"
                f" resume from a {LATEST}, or drop --resume to start from these weights"
            )
        try:
            self.at = Position(**state["position"])
            self.sums, self.clips = dict(state["sums"]), state["clips"]
            self.history = list(state["history"])
            self.optimizer.load_state_dict(state["optimizer"])
            _set_random_states(state["random"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{checkpoint.path}: its training state is damaged ({error})"
            ) from error
        best = checkpoint.path.parent / BEST
        if best.is_file() and checkpoint.path.parent.resolve() != self.run.folder.resolve():
            shutil.copyfile(best, self.run.folder / BEST)

    # --- the loop ---------------------------------------------------------------------------

    def __call__(self) -> None:
        """Train to the last epoch. Raises Interrupted after a signal, UserError on bad numbers."""
        with self.signals.caught():
            try:
                self.run.record(self.history)
                while self.at.epoch < self.config.epochs:
                    self._epoch()
            except _Stop:
                path = self.save_latest()
                number = self.signals.received
                self.run.log(
                    f"stopped by {signal.Signals(number).name} in epoch {self.at.epoch + 1},"
                    f" step {self.at.step}; saved to {path}; go on with --resume --checkpoint"
                    f" {self.run.folder}"
                )
                raise Interrupted(number) from None

    def _epoch(self) -> None:
        began, epoch = time.monotonic(), self.at.epoch
        lr = self.config.learning_rate * self.config.lr_decay**epoch
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.stage.model.train()
        bar = progress_bar(
            self.loader.batches(epoch, self.at.step),
            f"epoch {epoch + 1}/{self.config.epochs}",
            len(self.loader),
            self.at.step,
        )
        for batch in bar:
            self._step(batch)
            bar.set_postfix_str(f"loss {self.sums['total'] / self.clips:.4f}", refresh=False)
            if self.signals.received:
                bar.close()
                raise _Stop

        with self.signals.may_stop():
            report = self.stage.evaluate(lambda items: progress_bar(items, "evaluating"))
        scores = report.scores()
        losses = {f"train/{name}": value / self.clips for name, value in self.sums.items()}
        line = {"epoch": epoch + 1, "lr": lr, **losses}
        line |= {f"test/{name}": value for name, value in scores.items()}
        self.history.append(line)
        score = scores[self.stage.metric]
        is_best = self._is_better(score)
        self.at = Position(epoch + 1, 0, score if is_best else self.at.best)
        self.sums, self.clips = {}, 0
        # Best before latest: killed in between, the epoch is done again and gives the same best.
        if is_best:
            save_checkpoint(self.run.folder / BEST, self.contents())
        self.save_latest()
        self.run.record(self.history)
        self.run.log(
            f"epoch {epoch + 1}/{self.config.epochs}: loss {losses['train/total']:.4f}, "
            + ", ".join(f"{name} {value:.4g}" for name, value in scores.items())
            + f"{' (best)' if is_best else ''}, lr {lr:.2e}, {time.monotonic() - began:.0f} s"
        )

    def _is_better(self, score: float) -> bool:
        if self.at.best is None:
            return True
        return score > self.at.best if self.stage.higher_is_better else score < self.at.best

    def _step(self, batch: Any) -> None:
        batch = batch.to(self.device)
        losses = self.stage.losses(batch)
        self._check_finite(losses["total"], "loss", batch)
        self.optimizer.zero_grad(set_to_none=True)
        losses["total"].backward()
        self.optimizer.step()
        count = len(batch.clips)
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.item() * count
        self.clips += count
        self.at.step += 1

    def _check_finite(self, value: Tensor, what: str, batch: Any) -> None:
        if not math.isfinite(value.item()):
            raise UserError(
                f"the {what} is {value.item()} in epoch {self.at.epoch + 1}, step"
                f" {self.at.step + 1} (clips {batch.clips}); the last good checkpoint is kept in"
                f" {self.run.folder}: lower learning_rate, or look at these clips"
            )
