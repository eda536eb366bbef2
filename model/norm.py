"""BatchNorm over the joints whose statistics are those of the whole batch, also when it is split
over processes (PyTorch's SyncBatchNorm is for GPUs only)."""

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
from torch import Tensor, nn

from lib.parallel import is_parallel


class JointNorm(nn.BatchNorm1d):
    """nn.BatchNorm1d on (N, J, C), one statistic a joint; in training over all processes' rows."""

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and is_parallel()):
            return super().forward(x)
        # Two passes, mean then centred squares: one pass would cancel in float32.
        count = x.new_tensor([x.shape[0] * x.shape[2]])
        dist.all_reduce(count)
        mean = differentiable.all_reduce(x.sum((0, 2))) / count
        centred = x - mean[:, None]
        var = differentiable.all_reduce(centred.square().sum((0, 2))) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(var * (count / (count - 1)), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return centred * scale[:, None] + self.bias[:, None]
