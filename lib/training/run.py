"""A run's folder: what is needed to repeat it, its log, history and curves."""

import json
import logging
import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from filelock import FileLock

from lib.checkpoint import PATTERN
from lib.cli import logger
from lib.errors import UserError
from lib.files import PROJECT_ROOT, write_atomic, write_json
from lib.locks import try_lock
from lib.training.curves import Line, draw_curves
from lib.training.trackers import TensorBoard, Tracker, Wandb

CONFIG, RUN, HISTORY, CURVES = "config.yaml", "run.json", "history.jsonl", "curves.png"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("torch", "numpy", "mamba-ssm", "causal-conv1d"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def _git_revision() -> str | None:
    """The project's commit, with '+changes' if files differ from it; None outside git."""
    command = ["git", "-C", str(PROJECT_ROOT), "describe", "--always", "--dirty=+changes"]
    command += ["--exclude=*", "--abbrev=40"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip() or None


class SilentRun:
    """What the other processes of a parallel run have instead of a Run: they write nothing."""

    wandb_id: str | None = None

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def log(self, line: str) -> None: ...
    def record(self, history: list[Line]) -> None: ...
    def keep(self, checkpoint: Path, epoch: int, score: float) -> None: ...
    def close(self) -> None: ...


class Run:
    """Where a training writes: one folder, held by one process at a time."""

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        is_resumed: bool,
        config: dict[str, Any],
        seed: int,
        command: list[str],
        use_log: bool,
        use_tensorboard: bool,
        use_wandb: bool,
        wandb_name: str | None,
        wandb_id: str | None,
        wandb_artifacts: bool,
    ) -> None:
        """Locks the folder and writes config.yaml and run.json there.

        Raises UserError: the folder holds another run, or cannot be written.
        """
        self.folder = Path(folder)
        self._lock = self._take_folder()
        held = sorted(p.name for p in self.folder.glob(PATTERN))
        if held and not is_resumed:
            raise UserError(
                f"{folder}: holds a run already ({', '.join(held)}); continue it with --resume"
                f" --checkpoint {folder}, or give another --new-checkpoint"
            )
        with write_atomic(self.folder / CONFIG, "w") as file:
            yaml.safe_dump(config, file, sort_keys=False)
        self._add_session(command, seed)
        self._log_file = self._log_to_file() if use_log else None
        self.wandb_id = wandb_id
        self._tracked: set[float] | None = None  # epochs that the trackers have
        self._trackers: list[Tracker] = []
        if use_tensorboard:
            self._trackers.append(TensorBoard(self.folder / "tensorboard"))
        if use_wandb:
            wandb = Wandb(
                self.folder,
                config,
                name=wandb_name,
                id=wandb_id,
                is_resumed=is_resumed,
                uploads=wandb_artifacts,
            )
            self.wandb_id = wandb.id
            self._trackers.append(wandb)

    def _take_folder(self) -> FileLock:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = try_lock(self.folder / ".lock")
        except OSError as error:
            raise UserError(
                f"cannot write into {self.folder}: {error.strerror or error}; choose another"
                " --new-checkpoint"
            ) from error
        if lock is None:
            raise UserError(
                f"{self.folder}: another run is writing there; wait for it, or choose another"
                " --new-checkpoint"
            )
        return lock

    def _add_session(self, command: list[str], seed: int) -> None:
        """run.json lists every start of this run: a resumed one has several."""
        path = self.folder / RUN
        try:
            sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"]
        except (OSError, ValueError, KeyError, TypeError):
            sessions = []
        sessions.append(
            {
                "command": [sys.executable, *command],
                "working_directory": os.getcwd(),
                "seed": seed,
                "git_revision": _git_revision(),
                "versions": _versions(),
                "threads": torch.get_num_threads(),
            }
        )
        write_json(path, {"sessions": sessions})

    def _log_to_file(self) -> logging.Handler:
        handler = logging.FileHandler(self.folder / "train.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)
        return handler

    def log(self, line: str) -> None:
        logger.info(line)

    def record(self, history: list[Line]) -> None:
        """Write the whole history, one JSON line an epoch; the trackers get the lines they lack."""
        if self._tracked is None:
            self._tracked = self._recorded_epochs()
        for line in history:
            if line["epoch"] not in self._tracked:
                for tracker in self._trackers:
                    tracker.track(line)
                self._tracked.add(line["epoch"])
        # After the trackers: an epoch in the file has been tracked, even if the run is killed.
        with write_atomic(self.folder / HISTORY, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in history)
        if history:
            draw_curves(self.folder / CURVES, history)

    def _recorded_epochs(self) -> set[float]:
        """The epochs in the history file that an earlier start of this run has left."""
        try:
            lines = (self.folder / HISTORY).read_text(encoding="utf-8").splitlines()
            return {json.loads(line)["epoch"] for line in lines}
        except (OSError, ValueError, KeyError, TypeError):
            return set()

    def keep(self, checkpoint: Path, epoch: int, score: float) -> None:
        """Tell the trackers of a new best checkpoint."""
        for tracker in self._trackers:
            tracker.keep(checkpoint, epoch, score)

    def close(self) -> None:
        for tracker in self._trackers:
            tracker.close()
        if self._log_file is not None:
            logger.removeHandler(self._log_file)
            self._log_file.close()
        self._lock.release()
