"""One optimizer step: precision, accumulation, checks, clipping."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lib.batch import Batch, SharedBatch
from lib.errors import UserError
from lib.processes import Processes
from lib.random_state import batch_share, random_states, set_random_states

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MIN_LOSS_SCALE = 1.0  # of fp16: a gradient that overflows below it is not the scale's fault


class BadNumber(UserError):
    """NaN or infinity where a number belongs; the weights have not been touched."""


class Stepper:
    """Takes optimizer steps. Shares give the same step as the whole batch, except for BatchNorm."""

    def __init__(
        self,
        losses: Callable[[Batch], dict[str, Tensor]],
        optimizer: torch.optim.Optimizer,
        *,
        device: torch.device,
        processes: Processes,
        precision: str = "fp32",
        grad_clip: float = 0.0,
    ) -> None:
        """losses: scalars, of which "total" is minimised; grad_clip: the largest gradient norm, 0
        for none."""
        self.losses, self.optimizer = losses, optimizer
        self.device, self.processes = device, processes
        self.grad_clip = grad_clip
        self.autocast_dtype = PRECISIONS[precision]
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]

    def __call__(self, batch: SharedBatch) -> dict[str, float]:
        """One step on this process's share of a batch.

        Returns each loss summed over its clips. Raises BadNumber before anything is changed.
        """
        self.optimizer.zero_grad(set_to_none=True)
        before = random_states()
        sums: dict[str, float] = {}
        done = 0
        for number, (start, end) in enumerate(batch.shares):
            if number:  # each part takes its rows from the same masks of the whole batch
                set_random_states(before)
            count = end - start
            part = batch.part(done, done + count)
            done += count
            with batch_share(start, count, batch.total):
                losses = self._forward(part)
                # Losses are means over the part's clips; the gradient is that of the mean over all.
                self.scaler.scale(losses["total"] * (count / batch.total)).backward()
            for name, value in losses.items():
                # A share without clips has no mean, but it has the names of the others.
                mean = value.item() if count else 0.0
                sums[name] = sums.get(name, 0.0) + mean * count
        self._update()
        return sums

    def _forward(self, part: Batch) -> dict[str, Tensor]:
        part = part.to(self.device)
        reduced = self.autocast_dtype != torch.float32
        with torch.autocast(self.device.type, self.autocast_dtype, enabled=reduced):
            losses = self.losses(part)
        if part.clips and not math.isfinite(losses["total"].item()):
            raise BadNumber(f"the loss is {losses['total'].item()} (clips {part.clips})")
        return losses

    def _update(self) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        self.processes.sum_all(gradients)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        # fp16's scaler expects infinities, skips such steps and halves its scale.
        may_skip = self.scaler.is_enabled() and self.scaler.get_scale() >= MIN_LOSS_SCALE
        if not math.isfinite(norm.item()) and not may_skip:
            raise BadNumber(f"the gradient's norm is {norm.item()}")
        if self.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.grad_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
