"""One optimizer step: precision, accumulation, checks, clipping."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lib.batch import Batch, SharedBatch
from lib.errors import UserError
from lib.processes import Processes
from lib.random_state import batch_share, random_states, set_random_states

# tf32: float32 whose products are rounded to 10 bits by a GPU, see lib/device.py.
PRECISIONS = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
}
SUMS = torch.float64  # of losses over an epoch
MIN_LOSS_SCALE = 1.0  # of fp16: a gradient that overflows below it is not the scale's fault


class BadNumber(UserError):
    """NaN or infinity where a number belongs; that step has not touched the weights."""

    def __init__(self, message: str, ago: int = 0) -> None:
        """ago: how many steps have been taken since."""
        super().__init__(message)
        self.ago = ago


class _Past(NamedTuple):
    """Steps since the last check, on the device: losses, gradients' norms, verdicts."""

    clips: list[int]
    loss: Tensor
    norm: Tensor
    is_bad: Tensor


class Stepper:
    """Takes optimizer steps. Shares give the same step as the whole batch, except for BatchNorm.

    Nothing in a step waits for a GPU. A step with a bad number is left out by the optimizer itself,
    and check() tells of it later; an optimizer that cannot do that waits for the verdict.
    """

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
        # What a fused optimizer has for a GradScaler: it takes no step where found_inf is 1.
        self.leaves_out = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        self._past: list[_Past] = []

    def __call__(self, batch: SharedBatch) -> dict[str, Tensor]:
        """One step on this process's share of a batch.

        Returns each loss summed over its clips, on the device. Raises BadNumber before anything is
        changed, if the optimizer cannot leave out the step.
        """
        self.optimizer.zero_grad(set_to_none=True)
        before = random_states() if len(batch.shares) > 1 else {}
        sums: dict[str, Tensor] = {}
        total = torch.zeros((), device=self.device)
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
            if count:  # a share without clips has no mean, but it has the names of the others
                total = total + losses["total"].detach()
            for name, value in losses.items():
                summed = (
                    value.detach().to(SUMS) * count
                    if count
                    else torch.zeros_like(value, dtype=SUMS)
                )
                sums[name] = sums[name] + summed if name in sums else summed
        self._update(batch.clips, total)
        return sums

    def check(self) -> None:
        """Raise BadNumber for the first bad step since the last check. Waits for the device."""
        past, self._past = self._past, []
        if not past or not torch.stack([step.is_bad for step in past]).any().item():
            return
        number = next(i for i, step in enumerate(past) if step.is_bad.item())
        raise BadNumber(self._describe(past[number]), ago=len(past) - 1 - number)

    def _describe(self, step: _Past) -> str:
        loss, norm = step.loss.item(), step.norm.item()
        if math.isfinite(loss):
            return f"the gradient's norm is {norm}"
        return f"the loss is {loss} (clips {step.clips})"

    def _forward(self, part: Batch) -> dict[str, Tensor]:
        part = part.to(self.device)
        reduced = self.autocast_dtype != torch.float32
        with torch.autocast(self.device.type, self.autocast_dtype, enabled=reduced):
            return self.losses(part)

    def _update(self, clips: list[int], loss: Tensor) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if gradients:
            # A loss that is not finite spoils a gradient, if it has not done so itself; then all
            # processes learn of it.
            gradients[0].add_(loss.to(gradients[0].dtype) * 0)
        self.processes.sum_all(gradients)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.get_total_norm(gradients)
        is_bad = ~norm.isfinite()
        if self.scaler.is_enabled():
            # fp16's scaler expects infinities, skips such steps and halves its scale.
            scale = self.scaler.scale(torch.ones((), device=self.device))
            is_bad = is_bad & ((scale < MIN_LOSS_SCALE) | ~loss.isfinite())
        step = _Past(clips, loss, norm, is_bad)
        if self.leaves_out:
            self._past.append(step)
            self.optimizer.found_inf = is_bad.float()  # type: ignore[attr-defined]
        elif is_bad.item():
            raise BadNumber(self._describe(step), ago=-1)
        if self.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.grad_clip, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
