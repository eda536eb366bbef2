"""BatchNorm over the joints, with the statistics of the whole batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from model.ops import Statistics, joint_norm


@contextmanager
def statistics_seen_before(module: nn.Module) -> Iterator[None]:
    """Inside, a forward of `module` repeats an earlier one: running statistics do not change."""
    norms = [m for m in module.modules() if isinstance(m, JointNorm)]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)


class JointNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d on (N, J, C), one statistic for each joint; in training over all processes."""

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, x: Tensor) -> Tensor:
        running = None if self.training else Statistics(self.running_mean, self.running_var, 1)
        y, seen = joint_norm(x, self.weight, self.bias, running, self.eps)
        if seen is not None:
            self.track(seen)
        return y

    @torch.no_grad()
    def track(self, seen: Statistics) -> None:
        """Move the running statistics towards a batch's."""
        self.num_batches_tracked += 1
        unbiased = seen.var * (seen.values / (seen.values - 1))
        self.running_mean.lerp_(seen.mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
