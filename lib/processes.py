"""The processes of one run, as `torchrun` starts them: who this one is, and how they meet."""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from lib.errors import UserError
from lib.numbers import environment_number

T = TypeVar("T")

# Longer than an evaluation that the other processes wait for; a dead process is noticed at once.
TIMEOUT = timedelta(minutes=30)
# How the error begins with which PyTorch says that a process that loads data is gone.
LOST_WORKER = "DataLoader worker"


@dataclass(frozen=True)
class Processes:
    """Who this process is among the `world` processes of a run."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # among those of this machine: the number of its GPU

    @property
    def are_several(self) -> bool:
        return self.world > 1

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

    def sum_all(self, tensors: Sequence[Tensor]) -> None:
        """Sum each tensor over all processes, in place and in one exchange; all of one dtype."""
        if not self.are_several:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        dist.all_reduce(flat)
        for tensor, part in zip(tensors, flat.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(part.view_as(tensor))

    def max(self, number: int, device: torch.device) -> int:
        """The largest of the processes' numbers, on every process."""
        if not self.are_several:
            return number
        largest = torch.tensor(number, device=device)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return int(largest)

    def gather(self, part: T) -> list[T]:
        """Every process's part, in rank order, on the main process; [] elsewhere."""
        if not self.are_several:
            return [part]
        parts: list[T] = [part] * self.world
        dist.gather_object(part, parts if self.is_main else None)
        return parts if self.is_main else []

    def from_main(self, compute: Callable[[], T]) -> T:
        """What the main process computes, on every process."""
        values = [compute()] if self.is_main else [None]
        if self.are_several:
            dist.broadcast_object_list(values)
        return cast(T, values[0])


_joined = Processes()


def is_parallel() -> bool:
    """Whether this process is one of several: for modules, which have no Processes to ask."""
    return _joined.are_several


@contextmanager
def joined_processes(device: str) -> Iterator[Processes]:
    """Inside, this process is one of those that `torchrun` started, or the only one.

    Raises UserError: they do not find each other, or one of them, or of those that load their
    data, is lost on the way.
    """
    global _joined
    _joined = _join(device)
    try:
        with _lost_workers_told_once():
            yield _joined
    except RuntimeError as error:
        if str(error).startswith(LOST_WORKER):  # raised wherever the main process is just then
            raise UserError(
                "a process that loads data was killed, by hand or for want of memory; go on with"
                " --resume, and with a lower --num-cpus"
            ) from error
        if not _joined.are_several or not is_lost_process(error):
            raise
        raise UserError(
            "another process of this run ended, so this one ends too; the other's message says why"
        ) from error
    finally:
        if _joined.are_several:
            dist.destroy_process_group()
        _joined = Processes()


@contextmanager
def _lost_workers_told_once() -> Iterator[None]:
    """Inside, Python does not print that a process that loads data is lost.

    PyTorch raises this from a signal's handler, wherever the main process is just then. Where that
    is the end of a generator, Python prints it and goes on; the next batch raises it again.
    """
    before = sys.unraisablehook

    def hook(unraisable: "sys.UnraisableHookArgs") -> None:
        if not str(unraisable.exc_value).startswith(LOST_WORKER):
            before(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


def _join(device: str) -> Processes:
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
    """nccl sends tensors and Python objects over the current GPU, so each process has its own."""
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
