"""Several processes of one run, as `torchrun` starts them, and each one's share of a batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from lib.errors import UserError
from lib.numbers import environment_number

# Longer than an evaluation that the other processes wait for; a dead process is noticed at once.
TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Processes:
    """Who this process is among the `world` processes of a run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # among those of this machine: the number of its GPU

    @property
    def is_main(self) -> bool:
        """The one that writes files."""
        return self.rank == 0

    def share(self, count: int) -> tuple[int, int]:
        """Start and end of this process's part of `count` things."""
        return self.rank * count // self.world, (self.rank + 1) * count // self.world

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool, device: torch.device) -> bool:
        """Whether the flag is set in some process."""
        return flag if self.world == 1 else bool(self.sum(torch.tensor(int(flag), device=device)))

    def gather(self, part: Any) -> list[Any]:
        """Every process's part, in rank order, on the main process; [] elsewhere."""
        if self.world == 1:
            return [part]
        parts: list[Any] = [None] * self.world
        dist.gather_object(part, parts if self.is_main else None)
        return parts if self.is_main else []

    def tell(self, value: Any, source: int = 0) -> Any:
        """The value of process `source`, on every process."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=source)
        return values[0]


def start_processes(device: str) -> Processes:
    """Join the run that `torchrun` started, or be its only process. Raises UserError."""
    world = environment_number("WORLD_SIZE", 1, low=1)
    if world == 1:
        return Processes()
    backend = "gloo" if device == "cpu" or not torch.cuda.is_available() else "nccl"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the {world} processes did not find each other ({error}); start them with torchrun"
        ) from error
    return Processes(dist.get_rank(), world, environment_number("LOCAL_RANK", 0))


def is_lost_process(error: RuntimeError) -> bool:
    """Whether an error only says that another process of the run is gone."""
    kinds = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
    words = ("gloo", "nccl", "connection closed", "connection reset", "timed out")
    return isinstance(error, kinds) or any(word in str(error).lower() for word in words)


def stop_processes() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def is_parallel() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


# --- a share of a batch ---------------------------------------------------------------------
# Random masks are drawn for the whole batch and each share takes its rows, so the result does not
# depend on into how many processes or parts a batch is split.

_share: tuple[int, int, int] | None = None


@contextmanager
def batch_share(start: int, count: int, total: int) -> Iterator[None]:
    """Inside, the model sees clips start .. start+count of a batch of `total` clips."""
    global _share
    _share = (start, count, total)
    try:
        yield
    finally:
        _share = None


def rand_rows(rows: int, device: torch.device) -> Tensor:
    """Uniform random numbers in [0, 1), one for each row; rows: equally many for each clip."""
    if _share is None or not rows:
        return torch.rand(rows, device=device)
    start, count, total = _share
    per_clip = rows // count
    rows_of_all = torch.rand(total * per_clip, device=device)
    return rows_of_all[start * per_clip : (start + count) * per_clip]
