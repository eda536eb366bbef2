"""Simple methods on the same task as MDTF: 2D clips in, 3D poses out, in the same input and output
form (person-scaled, residual). B clips, T frames, J joints.
"""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.batch import Batch, SharedBatch
from lib.geometry import person_scaled, person_unit, root_relative
from lib.losses import mpjpe_loss
from lib.processes import Processes
from lib.skeleton import Skeleton
from lib.training.step import Stepper

LEARNING_RATE, WARMUP = 1e-3, 0.05  # at its highest; share of the CPU time in which it rises
WEIGHT_DECAY, GRAD_CLIP = 0.01, 1.0
DROPOUT = 0.1  # the papers' 0.5 and 0.25 are of trainings a hundred times as long


class Scaled(nn.Module):
    """What all methods share: `inner` sees a person in their own unit, and its x and y are added
    to the root-relative 2D pose."""

    def __init__(self, inner: nn.Module, skeleton: Skeleton) -> None:
        """inner: (B, T, J, 3) -> (B, T, J, 3)."""
        super().__init__()
        self.inner, self.root = inner, skeleton.root

    def forward(self, pose_2d: Tensor) -> Tensor:
        """(B, T, J, 3): x, y, confidence -> (B, T, J, 3) in normalised units, root-relative."""
        unit = person_unit(pose_2d, self.root)
        flat: Tensor = self.inner(person_scaled(pose_2d, self.root, unit)) * unit
        return flat + F.pad(root_relative(pose_2d[..., :2], self.root), (0, 1))

    def task(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What `inner` sees and should answer, both (B, T, J, 3)."""
        unit = person_unit(batch.pose_2d, self.root)
        seen = person_scaled(batch.pose_2d, self.root, unit)
        known = F.pad(root_relative(batch.pose_2d[..., :2], self.root), (0, 1))
        return seen, (root_relative(batch.pose_3d, self.root) - known) / unit


# --- Methods with a formula -------------------------------------------------------------------


class MeanPose(nn.Module):
    """The same pose always, whatever the 2D pose: the mean of the training poses."""

    def __init__(self, skeleton: Skeleton) -> None:
        super().__init__()
        self.root = skeleton.root
        self.register_buffer("pose", torch.zeros(skeleton.num_joints, 3))

    def forward(self, pose_2d: Tensor) -> Tensor:
        pose: Tensor = self.pose * person_unit(pose_2d, self.root)
        return pose.expand(*pose_2d.shape[:-1], 3)

    def fit(self, batches: Iterator[Batch]) -> None:
        total, count = torch.zeros_like(self.pose, dtype=torch.float64), 0
        for batch in batches:
            own = root_relative(batch.pose_3d, self.root) / person_unit(batch.pose_2d, self.root)
            total += own.double().sum((0, 1))
            count += own.shape[0] * own.shape[1]
        self.pose.copy_(total / count)


class LeastSquares(nn.Module):
    """A linear map of the 2D clip to the 3D clip, with a constant: (T·J·3 + 1) x (T·J·3)."""

    def __init__(self, skeleton: Skeleton, n_frames: int) -> None:
        super().__init__()
        size = n_frames * skeleton.num_joints * 3
        self.register_buffer("weight", torch.zeros(size + 1, size))

    def forward(self, seen: Tensor) -> Tensor:
        answer: Tensor = self._with_constant(seen) @ self.weight
        return answer.view(seen.shape)

    def _with_constant(self, seen: Tensor) -> Tensor:
        return F.pad(seen.flatten(1), (0, 1), value=1.0)

    def fit(self, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
        """pairs: see Scaled.task()."""
        xx = torch.zeros(len(self.weight), len(self.weight), dtype=torch.float64)
        xy = torch.zeros_like(self.weight, dtype=torch.float64)
        for seen, answer in pairs:
            rows = self._with_constant(seen).double()
            xx += rows.T @ rows
            xy += rows.T @ answer.flatten(1).double()
        # Confidences and positions that never vary make xx singular: the smallest solution.
        self.weight.copy_(torch.linalg.lstsq(xx, xy, rcond=1e-12, driver="gelsd").solution)


# --- Networks ---------------------------------------------------------------------------------


class FrameMLP(nn.Module):
    """A frame's 2D pose to its 3D pose (Martinez et al. 2017): two blocks of two layers."""

    def __init__(self, skeleton: Skeleton, width: int) -> None:
        super().__init__()
        size = skeleton.num_joints * 3

        def layer(inputs: int) -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(inputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(DROPOUT)
            )

        self.enter = layer(size)
        self.blocks = nn.ModuleList(nn.Sequential(layer(width), layer(width)) for _ in range(2))
        self.head = nn.Linear(width, size)

    def forward(self, seen: Tensor) -> Tensor:
        x = self.enter(seen.flatten(2).flatten(0, 1))  # (B·T, J·3)
        for block in self.blocks:
            x = x + block(x)
        answer: Tensor = self.head(x)
        return answer.view(seen.shape)


class DilatedTCN(nn.Module):
    """Convolutions over time that see a whole clip (Pavllo et al. 2019, VideoPose3D).

    Every frame gets a pose, so convolutions keep the length: a clip's first and last frame are
    repeated beyond its ends.
    """

    def __init__(self, skeleton: Skeleton, n_frames: int, width: int) -> None:
        super().__init__()
        size = skeleton.num_joints * 3
        layers, sees = 1, 3
        while sees < n_frames:
            layers, sees = layers + 1, 3 * sees

        def layer(inputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
            conv = nn.Conv1d(
                inputs,
                width,
                kernel,
                dilation=dilation,
                padding="same",
                padding_mode="replicate",
                bias=False,
            )
            return nn.Sequential(conv, nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(DROPOUT))

        self.enter = layer(size, 3)
        self.blocks = nn.ModuleList(
            nn.Sequential(layer(width, 3, 3**depth), layer(width, 1)) for depth in range(1, layers)
        )
        self.head = nn.Conv1d(width, size, 1)

    def forward(self, seen: Tensor) -> Tensor:
        x = self.enter(seen.flatten(2).mT)  # (B, C, T)
        for block in self.blocks:
            x = x + block(x)
        answer: Tensor = self.head(x).mT
        return answer.reshape(seen.shape)


def widest(make: Callable[[int], nn.Module], parameters: int) -> int:
    """The largest multiple of 8 as width with which make(width) has at most so many parameters."""
    with torch.device("meta"):  # counts without making
        sizes = ((width, count_parameters(make(width))) for width in itertools.count(16, 8))
        return next(width - 8 for width, size in sizes if size > parameters)


def count_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


# --- Training ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Trained:
    steps: int
    cpu_seconds: float


def cosine(share: float) -> float:
    """The learning rate's factor when a share of the budget is used: up from 0, down to 0."""
    return min(1.0, share / WARMUP) * (1 + math.cos(math.pi * min(1.0, share))) / 2


def train(
    model: nn.Module,
    pairs: Iterator[tuple[Tensor, Tensor]],
    cpu_seconds: float,
    used: Callable[[], float] = time.process_time,
) -> Trained:
    """Steps on (input, answer) pairs, each (B, T, J, 3), until they have used the CPU time.

    Only the steps count, as in MDTF's own budget: not the time in which `pairs` makes views.
    used: CPU seconds of this process so far.
    """

    def losses(batch: Batch) -> dict[str, Tensor]:
        return {"total": mpjpe_loss(model(batch.pose_2d), batch.pose_3d)}

    optimizer = torch.optim.AdamW(
        model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
    )
    cpu = torch.device("cpu")
    step = Stepper(losses, optimizer, device=cpu, processes=Processes(), grad_clip=GRAD_CLIP)
    model.train()
    steps, spent = 0, 0.0
    while spent < cpu_seconds:
        seen, answer = next(pairs)
        began, count = used(), len(seen)
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * cosine(spent / cpu_seconds)
        step(SharedBatch(seen, answer, list(range(count)), [(0, count)], count))
        steps, spent = steps + 1, spent + used() - began
    model.eval()
    return Trained(steps, spent)


def single_frames(
    pairs: Iterator[tuple[Tensor, Tensor]], batch_size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of single frames (B, 1, J, 3), mixed among the clips of each pair."""
    for seen, answer in pairs:
        flat = [pose.flatten(0, 1)[:, None] for pose in (seen, answer)]
        order = torch.randperm(len(flat[0]), generator=generator)
        for numbers in order.split(batch_size):
            if len(numbers) == batch_size or len(order) < batch_size:
                yield flat[0][numbers], flat[1][numbers]
