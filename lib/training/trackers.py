"""Where a run reports its numbers besides its folder: TensorBoard, Weights & Biases."""

from pathlib import Path
from typing import Any, Protocol

from lib.errors import UserError
from lib.training.curves import Line


class Tracker(Protocol):
    """Gets each epoch's numbers and each new best checkpoint once."""

    def track(self, line: Line) -> None: ...
    def keep(self, checkpoint: Path, epoch: int, score: float) -> None: ...
    def close(self) -> None: ...


class TensorBoard:
    """Writes the curves into `folder`. Raises UserError: not installed."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise UserError(
                "--use-tensorboard: tensorboard is not installed; pip install tensorboard, or leave"
                " the flag out"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))

    def track(self, line: Line) -> None:
        for name, value in line.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, line["epoch"])
        self._writer.flush()

    def keep(self, checkpoint: Path, epoch: int, score: float) -> None:
        """TensorBoard keeps no files."""

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases; its id is `id`."""

    def __init__(
        self,
        folder: Path,
        config: dict[str, Any],
        *,
        name: str | None,
        id: str | None,
        is_resumed: bool,
        uploads: bool,
    ) -> None:
        """id: of the run that goes on, None for a new one; uploads: each best checkpoint.

        Raises UserError: not installed, or it does not start.
        """
        try:
            import wandb
        except ImportError as error:
            raise UserError(
                "--use-wandb: wandb is not installed; pip install wandb, or leave the flag out"
            ) from error
        try:
            self._run = wandb.init(
                project="mdtf",
                id=id,
                name=name,
                config=config,
                resume="allow" if is_resumed else None,
                dir=folder,
            )
        except Exception as error:  # no network, no key: wandb raises its own classes
            reason = " ".join(str(error).split())
            raise UserError(
                f"--use-wandb: wandb did not start ({reason}); log in with 'wandb login',"
                " or set WANDB_MODE=offline"
            ) from error
        self.id = self._run.id
        self._new_artifact = wandb.Artifact if uploads else None

    def track(self, line: Line) -> None:
        self._run.log(line, step=int(line["epoch"]))

    def keep(self, checkpoint: Path, epoch: int, score: float) -> None:
        if self._new_artifact is None:
            return
        name = f"{self.id}-{checkpoint.name.partition('.')[0]}"
        about = {"epoch": epoch, "score": score}
        artifact = self._new_artifact(name, type="model", metadata=about)
        artifact.add_file(str(checkpoint))
        self._run.log_artifact(artifact)

    def close(self) -> None:
        self._run.finish()
