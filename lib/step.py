"""One optimizer step: precision, accumulation, checks, clipping."""

import itertools
import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from lib.errors import UserError
from lib.parallel import Processes, batch_share

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class BadNumber(UserError):
    """NaN or infinity where a number belongs; the weights have not been touched."""


class Stepper:
    """Takes optimizer steps; the same result however the batch is split (up to BatchNorm)."""

    def __init__(
        self,
        model: nn.Module,
        losses: Callable[[Any], dict[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        processes: Processes,
        precision: str = "fp32",
        accumulate: int = 1,
        grad_clip: float = 0.0,
    ) -> None:
        """model: what `losses` calls; accumulate: parts of a batch; grad_clip: 0 for none."""
        self.model, self.losses, self.optimizer = model, losses, optimizer
        self.device, self.processes = device, processes
        self.accumulate, self.grad_clip = accumulate, grad_clip
        self.autocast_dtype = PRECISIONS[precision]
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, batch: Any, start: int, total: int) -> dict[str, float]:
        """One step on this process's clips: those from `start` on of a batch of `total` clips.

        Returns each loss summed over its clips. Raises BadNumber before anything is changed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        random_state = torch.get_rng_state()
        cuda_state = torch.cuda.get_rng_state() if self.device.type == "cuda" else None
        sums: dict[str, float] = {}
        parts = split(batch, self.accumulate)
        for number, part in enumerate(parts):
            if number:
                torch.set_rng_state(random_state)
                if cuda_state is not None:
                    torch.cuda.set_rng_state(cuda_state)
            is_last = number == len(parts) - 1
            with self._hold_gradients(not is_last), batch_share(start, len(part.clips), total):
                losses = self._forward(part)
                # Gradients are averaged over the processes: so weigh each by its number of clips.
                weight = len(part.clips) * self.processes.world / total
                self.scaler.scale(losses["total"] * weight).backward()
            start += len(part.clips)
            for name, value in losses.items():
                if part.clips:
                    sums[name] = sums.get(name, 0.0) + value.item() * len(part.clips)
        self._update()
        if total < self.processes.world and self.device.type == "cpu":
            # A process without clips has drawn no random masks; the last one always has some.
            last = self.processes.world - 1
            torch.set_rng_state(self.processes.tell(torch.get_rng_state(), source=last))
        return sums

    def _hold_gradients(self, hold: bool) -> Any:
        is_parallel = isinstance(self.model, DistributedDataParallel)
        return self.model.no_sync() if hold and is_parallel else nullcontext()

    def _forward(self, part: Any) -> dict[str, Tensor]:
        part = part.to(self.device)
        reduced = self.autocast_dtype != torch.float32
        with torch.autocast(self.device.type, self.autocast_dtype, enabled=reduced):
            losses = self.losses(part)
        if part.clips and not math.isfinite(losses["total"].item()):
            raise BadNumber(f"the loss is {losses['total'].item()} (clips {part.clips})")
        return losses

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        # fp16's scaler expects infinities, skips such steps and lowers its scale.
        if not math.isfinite(norm.item()) and not self.scaler.is_enabled():
            raise BadNumber(f"the gradient's norm is {norm.item()}")
        if self.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.grad_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()


def split(batch: Any, parts: int) -> Sequence[Any]:
    """A batch in up to `parts` consecutive parts of nearly equal size."""
    count = len(batch.clips)
    bounds = [i * count // parts for i in range(parts + 1)]
    pieces = [batch.part(a, b) for a, b in itertools.pairwise(bounds) if b > a]
    return pieces or [batch]
