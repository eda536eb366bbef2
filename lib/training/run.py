"""A run's folder: what is needed to repeat it, its log, history and curves, optional trackers."""

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
from lib.training.curves import draw_curves

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
    def record(self, history: list[dict[str, Any]]) -> None: ...
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
        use_log: bool = False,
        use_tensorboard: bool = False,
        use_wandb: bool = False,
        wandb_name: str | None = None,
        wandb_id: str | None = None,
        wandb_artifacts: bool = False,
    ) -> None:
        """Takes the folder and writes config.yaml and run.json there.

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
        if use_log:
            self._log_to_file()
        self.wandb_id, self._uploads = wandb_id, wandb_artifacts
        self._wandb = self._tensorboard = None
        self._tracked: set[int] | None = None  # epochs that the trackers have
        if use_tensorboard:
            self._start_tensorboard()
        if use_wandb:
            self._start_wandb(wandb_name, config, is_resumed)

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

    def _log_to_file(self) -> None:
        handler = logging.FileHandler(self.folder / "train.log", encoding="utf-8")
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        logger.addHandler(handler)

    def _start_tensorboard(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--use-tensorboard: tensorboard is not installed; pip install tensorboard, or leave"
                " the flag out"
            ) from error
        self._tensorboard = SummaryWriter(str(self.folder / "tensorboard"))

    def _start_wandb(self, name: str | None, config: dict[str, Any], is_resumed: bool) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "--use-wandb: wandb is not installed; pip install wandb, or leave the flag out"
            ) from error
        resume = "allow" if is_resumed else None
        try:
            self._wandb = wandb.init(
                project="mdtf",
                id=self.wandb_id,
                name=name,
                config=config,
                resume=resume,
                dir=self.folder,
            )
        except Exception as error:  # no network, no key: wandb raises its own classes
            reason = " ".join(str(error).split())
            raise UserError(
                f"--use-wandb: wandb did not start ({reason}); log in with 'wandb login',"
                " or set WANDB_MODE=offline"
            ) from error
        self.wandb_id = self._wandb.id

    def log(self, line: str) -> None:
        logger.info(line)

    def record(self, history: list[dict[str, Any]]) -> None:
        """Write the whole history, one JSON line an epoch; the trackers get the lines they lack."""
        if self._tracked is None:
            self._tracked = self._recorded_epochs()
        for line in history:
            if line["epoch"] not in self._tracked:
                self._track(line)
                self._tracked.add(line["epoch"])
        # After the trackers: what stands in the file has been tracked, also if the run is killed.
        with write_atomic(self.folder / HISTORY, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in history)
        if history:
            draw_curves(self.folder / CURVES, history)

    def _recorded_epochs(self) -> set[int]:
        """Those in the history file that an earlier start of this run has left."""
        try:
            lines = (self.folder / HISTORY).read_text(encoding="utf-8").splitlines()
            return {json.loads(line)["epoch"] for line in lines}
        except (OSError, ValueError, KeyError, TypeError):
            return set()

    def _track(self, line: dict[str, Any]) -> None:
        if self._wandb is not None:
            self._wandb.log(line, step=line["epoch"])
        if self._tensorboard is not None:
            for name, value in line.items():
                if name != "epoch":
                    self._tensorboard.add_scalar(name, value, line["epoch"])
            self._tensorboard.flush()

    def keep(self, checkpoint: Path, epoch: int, score: float) -> None:
        """Upload a new best checkpoint, where this was asked for."""
        if self._wandb is None or not self._uploads:
            return
        import wandb

        artifact = wandb.Artifact(
            f"{self.wandb_id}-{checkpoint.name.partition('.')[0]}",
            type="model",
            metadata={"epoch": epoch, "score": score},
        )
        artifact.add_file(str(checkpoint))
        self._wandb.log_artifact(artifact)

    def close(self) -> None:
        if self._wandb is not None:
            self._wandb.finish()
        if self._tensorboard is not None:
            self._tensorboard.close()
        self._lock.release()
