"""Clips as a training step or an evaluation gets them: B clips of T frames and J joints."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass
class Batch:
    """pose_2d (B, T, J, 3): x, y, confidence; pose_3d (B, T, J, 3); clips: which ones they are."""

    pose_2d: Tensor
    pose_3d: Tensor
    clips: list[int]

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.pose_2d.to(device), self.pose_3d.to(device), self.clips)

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


class Clips(Protocol):
    """Clips by number."""

    def __len__(self) -> int: ...
    def __getitems__(self, clips: Sequence[int]) -> Batch: ...
