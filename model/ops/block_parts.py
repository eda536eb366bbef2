"""What a residual block does around its scan, in training: csrc/head.h, graph.h and tail.h.

Plain functions of dense float32 tensors on the CPU, forward and backward, without autograd: see
train_block.py. Rows are (..., C); weights as BlockWeights and GraphWeights name them.
"""

from collections import namedtuple

import torch
import torch.distributed as dist
from torch import Tensor

from lib.parallel import is_parallel
from model.ops import library as c
from model.ops import native
from model.ops.block import BlockWeights, GraphWeights

# What is learnt of a graph convolution: all but BatchNorm's running statistics.
GraphLearnt = namedtuple("GraphLearnt", GraphWeights._fields[:-2])


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


def _rows(x: Tensor) -> int:
    return x.numel() // x.shape[-1]


# --- head: first, second = in_proj LN(x) ----------------------------------------------------------
def _head(x: Tensor, w: BlockWeights, outs: tuple[Tensor, Tensor], eps: float):
    weights = _pointers(w.norm1_weight, w.norm1_bias, w.in_proj)
    out = (c.Pointer * 2)(*_pointers(*outs))
    return c.Head(_rows(x), x.shape[-1], x.data_ptr(), *weights, out, eps)


def head_forward(x: Tensor, w: BlockWeights, eps: float) -> tuple[Tensor, Tensor]:
    outs = torch.empty_like(x), torch.empty_like(x)
    c.call(native.loaded().mdtf_head_forward, _head(x, w, outs, eps))
    return outs


def head_backward(
    by_outs: tuple[Tensor, Tensor], x: Tensor, w: BlockWeights, eps: float,
    by_x: Tensor, by_w: BlockWeights,
) -> None:  # fmt: skip
    """Adds to by_x, writes the weights' gradients to by_w."""
    grads = c.HeadGrads(*_pointers(by_x, by_w.norm1_weight, by_w.norm1_bias, by_w.in_proj))
    c.call(native.loaded().mdtf_head_backward, _head(x, w, by_outs, eps), grads)


# --- graph: n = LN(x), relu(n + BN(Â V n + U n)) --------------------------------------------------
def _graph(x, w, adjacency, mixed, out, sums, mean, scale, eps):
    return c.Graph(
        _rows(x), x.shape[-1], x.shape[-2],
        *_pointers(x, *w[:-2], adjacency, mixed, out, sums, mean, scale, w.bn_bias), eps,
    )  # fmt: skip


def _batch_statistics(sums: Tensor, channels: int) -> Tensor:
    """Mean, biased variance and number of values of each joint, over all processes: (3, J).

    sums: (frames, J, 2), each row's mean and sum of squared deviations from it.
    """
    means, deviations = sums.unbind(-1)
    count = sums.new_full(means.shape[1:], float(channels * len(sums)))
    total = torch.stack((channels * means.sum(0), count))
    if is_parallel():
        dist.all_reduce(total)
    total, count = total
    divisor = count.clamp(min=1)
    mean = total / divisor
    squares = deviations.sum(0) + channels * (means - mean).square().sum(0)
    if is_parallel():
        dist.all_reduce(squares)
    return torch.stack((mean, squares / divisor, count))


def graph_forward(
    x: Tensor, w: GraphLearnt, adjacency: Tensor, running: list[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the mix before BatchNorm, and the statistics (3, J): mean, biased variance,
    number of values. running: mean and variance to use; empty for those of the batch."""
    mixed, out = torch.empty_like(x), torch.empty_like(x)
    frames, joints, channels = _rows(x) // x.shape[-2], *x.shape[-2:]
    sums = x.new_empty(frames, joints, 2)
    library = native.loaded()
    c.call(library.mdtf_graph_mix, _graph(x, w, adjacency, mixed, out, sums, None, None, eps))
    if running:
        statistics = torch.stack((*running, torch.ones_like(running[0])))
    else:
        statistics = _batch_statistics(sums, channels)
    mean, var, _ = statistics
    scale = w.bn_weight * (var + eps).rsqrt()
    c.call(
        library.mdtf_graph_output,
        _graph(x, w, adjacency, mixed, out, sums, mean, scale, eps),
    )
    return out, mixed, statistics


def graph_backward(
    by_out: Tensor, x: Tensor, w: GraphLearnt, adjacency: Tensor, saved: list[Tensor],
    batch_statistics: bool, eps: float, by_x: Tensor, by_w: list[Tensor],
) -> None:  # fmt: skip
    """Adds to by_x, writes the weights' gradients to by_w, BatchNorm's included.

    saved: what graph_forward returned; batch_statistics: that they were the batch's.
    """
    out, mixed, statistics = saved
    mean, var, count = statistics
    inverse_deviation = (var + eps).rsqrt()
    scale = w.bn_weight * inverse_deviation
    sums = x.new_empty(_rows(x) // x.shape[-2], x.shape[-2], 2)
    struct = _graph(x, w, adjacency, mixed, out, sums, mean, scale, eps)
    library = native.loaded()
    c.call(library.mdtf_graph_sums, struct, c.GraphGrads(out=by_out.data_ptr()))
    totals = sums.sum(0).t().contiguous()  # of dy, and of dy (mixed - mean)
    *by_linears, by_bn_weight, by_bn_bias = by_w
    torch.mul(totals[1], inverse_deviation, out=by_bn_weight)
    by_bn_bias.copy_(totals[0])
    if not batch_statistics:
        totals.zero_()  # running ones do not depend on x
    elif is_parallel():
        dist.all_reduce(totals)
    offset, tilt = totals * (-scale / count.clamp(min=1))
    tilt *= inverse_deviation.square()
    grads = c.GraphGrads(*_pointers(by_out, tilt, offset, by_x, *by_linears))
    c.call(library.mdtf_graph_backward, struct, grads)


# --- tail: y = x + out_proj inner, y + MLP(LN(y)), a last norm ------------------------------------
def _tail(x, inner, masks, w, last_norm, before_last, out, eps, last_eps):
    weights = w[3:]  # from out_proj on
    return c.Tail(
        _rows(x), x.shape[-1], w.fc1.shape[0],
        *_pointers(x, inner, *masks, *weights, *(last_norm or (None, None)), before_last, out),
        eps, last_eps,
    )  # fmt: skip


def tail_forward(
    x: Tensor, inner: Tensor, masks: tuple[Tensor | None, Tensor | None], w: BlockWeights,
    last_norm: list[Tensor], eps: float, last_eps: float,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """The output, and with a last norm what that is of. masks: one factor a row, None for 1."""
    out, before = torch.empty_like(x), torch.empty_like(x) if last_norm else None
    struct = _tail(x, inner, masks, w, last_norm, before, out, eps, last_eps)
    c.call(native.loaded().mdtf_tail_forward, struct)
    return out, before


def tail_backward(
    by_out: Tensor, x: Tensor, inner: Tensor, masks: tuple[Tensor | None, Tensor | None],
    w: BlockWeights, last_norm: list[Tensor], before_last: Tensor | None, eps: float,
    last_eps: float, by_w: BlockWeights, by_last_norm: list[Tensor],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The derivatives by x and inner; the weights' go to by_w and by_last_norm."""
    by_x, by_inner = torch.empty_like(x), torch.empty_like(x)
    struct = _tail(x, inner, masks, w, last_norm, before_last, by_out, eps, last_eps)
    grads = c.TailGrads(*_pointers(by_x, by_inner, *by_w[3:], *by_last_norm))
    c.call(native.loaded().mdtf_tail_backward, struct, grads)
    return by_x, by_inner
