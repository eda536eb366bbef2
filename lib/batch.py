"""Clips as a training step or an evaluation gets them: B clips of T frames and J joints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from lib.arrays import Ints


@dataclass
class Batch:
    """pose_2d (B, T, J, 3): x, y, confidence; pose_3d (B, T, J, 3); clips: which ones they are."""

    pose_2d: Tensor
    pose_3d: Tensor
    clips: list[int]

    def to(self, device: torch.device) -> "Batch":
        """From pinned memory, nobody waits for the copy to a GPU."""
        pose_2d = self.pose_2d.to(device, non_blocking=True)
        return Batch(pose_2d, self.pose_3d.to(device, non_blocking=True), self.clips)

    def pin_memory(self) -> "Batch":
        """DataLoader calls it where it is to pin."""
        return Batch(self.pose_2d.pin_memory(), self.pose_3d.pin_memory(), self.clips)

    def part(self, start: int, end: int) -> "Batch":
        rows = slice(start, end)
        return Batch(self.pose_2d[rows], self.pose_3d[rows], self.clips[rows])


@dataclass
class SharedBatch(Batch):
    """This process's clips of a batch of `total`: those with the numbers in `shares` (start, end).

    A step takes its parts one after the other, each with one share. All processes have equally many
    shares; some may be empty.
    """

    shares: list[tuple[int, int]]
    total: int


class SharedFrames(NamedTuple):
    """Which frames of B clips are the same: N different ones.

    first: (N,) where each is found among the B·T frames; number: (B, T) which of the N each is.
    """

    first: Tensor
    number: Tensor

    @classmethod
    def of(cls, ids: Ints, device: torch.device | str) -> "SharedFrames | None":
        """ids: (B, T) frame ids; equal ones are the same frame. None: it would not pay."""
        _, first, number = np.unique(ids, return_index=True, return_inverse=True)
        if 2 * len(first) > ids.size:
            return None
        number = number.reshape(ids.shape)
        return cls(*(torch.from_numpy(array).to(device) for array in (first, number)))

    def twice(self) -> "SharedFrames":
        """Of the B clips and B others with as many frames that are the same: a mirrored copy."""
        return SharedFrames(
            torch.cat((self.first, self.first + self.number.numel())),
            torch.cat((self.number, self.number + len(self.first))),
        )


def frame_by_frame(
    function: Callable[[Tensor], Tensor], x: Tensor, shared: SharedFrames | None
) -> Tensor:
    """function(x), x being (B, T, J, D), where each frame's result depends on that frame alone.

    It is computed once for frames that are the same.
    """
    if shared is None:
        return function(x)
    return function(x.flatten(0, 1)[shared.first, None])[shared.number, 0]


class Clips(Protocol):
    """Clips by number."""

    def __len__(self) -> int: ...
    def __getitems__(self, clips: Sequence[int]) -> Batch: ...
