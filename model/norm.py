"""BatchNorm over the joints whose statistics are those of the whole batch, also when it is split
over processes (PyTorch's SyncBatchNorm is for GPUs only)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
import torch.nn.functional as F
from torch import Tensor, nn

from lib.processes import is_parallel


@contextmanager
def statistics_seen_before(module: nn.Module) -> Iterator[None]:
    """Inside, the forward of `module` is a repetition: running statistics take no notice of it."""
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
    """nn.BatchNorm1d on (N, J, C), one statistic a joint; in training over all processes' rows."""

    # As made here, none of them is None.
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def __init__(self, joints: int, reverse_joints: bool = False) -> None:
        """reverse_joints: parameter and statistic k belong to joint J - 1 - k of the input."""
        super().__init__(joints)
        self.reverse_joints = reverse_joints

    def _in_order(self, per_joint: Tensor) -> Tensor:
        return per_joint.flip(0) if self.reverse_joints else per_joint

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self._in_order(self.weight), self._in_order(self.bias)
        if not (self.training and is_parallel()):
            mean, var = self._in_order(self.running_mean), self._in_order(self.running_var)
            y = F.batch_norm(x, mean, var, weight, bias, self.training, self.momentum, self.eps)
            if self.training:
                self.num_batches_tracked += 1
            if self.training and self.reverse_joints:  # batch_norm has updated reversed copies
                self.running_mean.copy_(mean.flip(0))
                self.running_var.copy_(var.flip(0))
            return y
        # Autocast's dtypes cannot hold the count of a batch, nor its sums.
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # Two passes, mean then centred squares: one pass would cancel in float32.
        count = wide.new_tensor([x.shape[0] * x.shape[2]])
        dist.all_reduce(count)
        mean = differentiable.all_reduce(wide.sum((0, 2))) / count
        centred = wide - mean[:, None]
        var = differentiable.all_reduce(centred.square().sum((0, 2))) / count
        self.track(mean, var, count)
        scale = weight * torch.rsqrt(var + self.eps)
        normed: Tensor = centred * scale[:, None] + bias[:, None]
        return normed.to(x.dtype)

    @torch.no_grad()
    def track(self, mean: Tensor, var: Tensor, count: Tensor | float) -> None:
        """Move the running statistics towards a batch's, in the input's order of joints.

        var: biased; count: values behind each.
        """
        self.num_batches_tracked += 1
        self.running_mean.lerp_(self._in_order(mean), self.momentum)
        unbiased = var * (count / (count - 1))
        self.running_var.lerp_(self._in_order(unbiased), self.momentum)
