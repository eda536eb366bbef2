"""A run's folder: log lines, history.jsonl, and optional trackers behind one method."""

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from lib.checkpoint import PATTERN
from lib.errors import UserError
from lib.files import write_atomic, write_json

HISTORY = "history.jsonl"
logger = logging.getLogger("mdtf")


def log_to_stdout() -> None:
    """Log lines of the project go to stdout as they are; called once by each script."""
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)


class Run:
    """Where a training writes: one folder, one history, perhaps a tracker."""

    def __init__(
        self,
        folder: str | os.PathLike,
        *,
        is_resumed: bool,
        use_log: bool = False,
        use_wandb: bool = False,
        wandb_name: str | None = None,
        wandb_id: str | None = None,
        settings: dict[str, Any] | None = None,
    ) -> None:
        """settings: written to config.json there. Raises UserError if another run is in the folder."""
        self.folder = Path(folder)
        held = sorted(p.name for p in self.folder.glob(PATTERN)) if self.folder.is_dir() else []
        if held and not is_resumed:
            raise UserError(
                f"{folder}: holds a run already ({', '.join(held)}); continue it with --resume"
                f" --checkpoint {folder}, or give another --new-checkpoint"
            )
        write_json(self.folder / "config.json", settings or {})
        if use_log:
            file = logging.FileHandler(self.folder / "train.log", encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
            logger.addHandler(file)
        self._wandb = None
        self.wandb_id = wandb_id
        if use_wandb:
            self._start_wandb(wandb_name, settings, is_resumed)

    def _start_wandb(
        self, name: str | None, settings: dict[str, Any] | None, is_resumed: bool
    ) -> None:
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "--use-wandb: wandb is not installed; pip install wandb, or leave the flag out"
            ) from error
        self.wandb_id = self.wandb_id or wandb.util.generate_id()
        resume = "allow" if is_resumed else None
        try:
            self._wandb = wandb.init(
                project="mdtf", id=self.wandb_id, name=name, config=settings, resume=resume
            )
        except Exception as error:  # no network, no key: wandb raises its own classes
            reason = " ".join(str(error).split())
            raise UserError(
                f"--use-wandb: wandb did not start ({reason}); log in with 'wandb login',"
                " or set WANDB_MODE=offline"
            ) from error

    def log(self, line: str) -> None:
        logger.info(line)

    def record(self, history: list[dict[str, Any]]) -> None:
        """Write the whole history, one JSON line an epoch, and pass the last line to trackers."""
        with write_atomic(self.folder / HISTORY, "w") as file:
            file.writelines(json.dumps(line) + "\n" for line in history)
        if self._wandb is not None and history:
            self._wandb.log(history[-1], step=history[-1]["epoch"])

    def close(self) -> None:
        if self._wandb is not None:
            self._wandb.finish()
