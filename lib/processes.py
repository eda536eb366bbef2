"""Several processes of one run, as `torchrun` starts them, and each one's share of a batch."""

import itertools
from collections.abc import Iterator, Sequence
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

    def shares(self, count: int, parts: int) -> list[tuple[int, int]]:
        """Start and end of this process's share of each of up to `parts` parts of `count` things.

        All processes have equally many shares, some of them empty: they meet in every part.
        """
        bounds = [part * count // parts for part in range(parts + 1)]
        pairs = [(a, b) for a, b in itertools.pairwise(bounds) if b > a]
        shares = [self.share(b - a) for a, b in pairs]
        return [(a + start, a + end) for (a, _), (start, end) in zip(pairs, shares, strict=True)]

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def max(self, number: int, device: torch.device) -> int:
        """The largest of the processes' numbers, on every process."""
        if self.world == 1:
            return number
        largest = torch.tensor(number, device=device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

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
    local_rank = environment_number("LOCAL_RANK", 0)
    backend = "gloo" if device == "cpu" or not torch.cuda.is_available() else "nccl"
    if backend == "nccl":
        _take_gpu(local_rank)
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the {world} processes did not find each other ({error}); start them with torchrun"
        ) from error
    return Processes(dist.get_rank(), world, local_rank)


def _take_gpu(number: int) -> None:
    """nccl moves what it is given, and Python objects, over the current GPU: one a process."""
    try:
        torch.cuda.set_device(number)
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"no GPU number {number} for process {number} of this machine, it has"
            f" {torch.cuda.device_count()}; start fewer processes, or use --device cpu"
        ) from error


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


def rand_rows(shape: Sequence[int], device: torch.device) -> Tensor:
    """Uniform random numbers in [0, 1) of this shape; the first dimension counts clips.

    A share without clips draws as well, so all processes keep the same random state.
    """
    if _share is None:
        return torch.rand(shape, device=device)
    start, count, total = _share
    return torch.rand((total, *shape[1:]), device=device)[start : start + count]
