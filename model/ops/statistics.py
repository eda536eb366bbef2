"""BatchNorm over the joints, with the statistics of the whole batch even if processes share it
(PyTorch's SyncBatchNorm is for GPUs only). N frames, J joints, C channels."""

from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as differentiable
import torch.nn.functional as F
from torch import Tensor

from lib.processes import is_parallel


class Statistics(NamedTuple):
    """Statistics of the values that a BatchNorm normalises, each (J,)."""

    mean: Tensor
    var: Tensor  # biased
    values: Tensor | float  # the number of values of a joint


# One for each direction's graph; None without a graph, or where running statistics were used.
GraphStatistics = tuple[Statistics | None, Statistics | None]


def joint_norm(
    x: Tensor, weight: Tensor, bias: Tensor, running: Statistics | None, eps: float
) -> tuple[Tensor, Statistics | None]:
    """x (N, J, C) normalised for each joint, and the statistics if they are the batch's own.

    running: the statistics to normalise with; None for those of the batch, of all processes.
    """
    if running is not None:
        return F.batch_norm(x, running.mean, running.var, weight, bias, eps=eps), None
    count = float(x.shape[0] * x.shape[2])
    if is_parallel():
        return _over_processes(x, weight, bias, count, eps)
    # With momentum 1, batch_norm writes the batch's own statistics into these.
    mean, var = (torch.zeros_like(weight, requires_grad=False) for _ in range(2))
    y = F.batch_norm(x, mean, var, weight, bias, training=True, momentum=1.0, eps=eps)
    return y, Statistics(mean, var * ((count - 1) / count), count)


def _over_processes(
    x: Tensor, weight: Tensor, bias: Tensor, count: float, eps: float
) -> tuple[Tensor, Statistics]:
    """Two passes, mean then centred squares: one pass would cancel in float32.

    In float32 at least: autocast's dtypes cannot hold the count of a batch, nor its sums.
    """
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    total = values.new_tensor([count])
    dist.all_reduce(total)
    mean = differentiable.all_reduce(values.sum((0, 2))) / total
    centred = values - mean[:, None]
    var = differentiable.all_reduce(centred.square().sum((0, 2))) / total
    scale = weight * torch.rsqrt(var + eps)
    y = centred * scale[:, None] + bias[:, None]
    return y.to(x.dtype), Statistics(mean.detach(), var.detach(), total)


def join_statistics(statistics: Tensor) -> None:
    """Turn the statistics of this process's values into those of all processes, in place.

    statistics: (3, J): mean, biased variance, number of values.
    """
    mean, var, count = statistics
    sums = torch.stack((mean * count, count))
    dist.all_reduce(sums)
    joint_mean = sums[0] / sums[1].clamp(min=1)
    squares = count * (var + (mean - joint_mean).square())
    dist.all_reduce(squares)
    torch.stack((joint_mean, squares / sums[1].clamp(min=1), sums[1]), out=statistics)
