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
def _graph(x, w, adjacency, mixed, out, statistics, eps) -> tuple[c.Graph, Tensor]:
    """The structure, and scratch that must live as long."""
    sums = x.new_empty(_rows(x), 2)
    pointers = _pointers(x, *w, adjacency, mixed, out, sums, statistics)
    return c.Graph(_rows(x), x.shape[-1], x.shape[-2], *pointers, eps), sums


def graph_forward(
    x: Tensor, w: GraphLearnt, adjacency: Tensor, running: list[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the mix before BatchNorm, and the statistics (3, J): mean, biased variance,
    number of values. running: mean and variance to use; empty for those of the batch."""
    out, mixed, statistics = torch.empty_like(x), torch.empty_like(x), x.new_empty(3, x.shape[-2])
    struct, _sums = _graph(x, w, adjacency, mixed, out, statistics, eps)
    c.call(native.loaded().mdtf_graph_mix, struct)
    if running:
        torch.stack((*running, torch.ones_like(running[0])), out=statistics)
    elif is_parallel():
        _join_statistics(statistics)
    c.call(native.loaded().mdtf_graph_output, struct)
    return out, mixed, statistics


def _join_statistics(statistics: Tensor) -> None:
    """From those of this process's values to those of all processes', in place."""
    mean, var, count = statistics
    sums = torch.stack((mean * count, count))
    dist.all_reduce(sums)
    joint_mean = sums[0] / sums[1].clamp(min=1)
    squares = count * (var + (mean - joint_mean).square())
    dist.all_reduce(squares)
    torch.stack((joint_mean, squares / sums[1].clamp(min=1), sums[1]), out=statistics)


def graph_backward(
    by_out: Tensor, x: Tensor, w: GraphLearnt, adjacency: Tensor, saved: list[Tensor],
    batch_statistics: bool, eps: float, by_x: Tensor, by_w: list[Tensor],
) -> None:  # fmt: skip
    """Adds to by_x, writes the weights' gradients to by_w, BatchNorm's included.

    saved: what graph_forward returned; batch_statistics: that they were the batch's.
    """
    out, mixed, statistics = saved
    totals = x.new_empty(2, x.shape[-2])
    struct, _sums = _graph(x, w, adjacency, mixed, out, statistics, eps)
    grads = c.GraphGrads(*_pointers(by_out, totals, by_x, *by_w))
    c.call(native.loaded().mdtf_graph_sums, struct, grads)
    if not batch_statistics:
        totals.zero_()  # running ones do not depend on x
    elif is_parallel():
        dist.all_reduce(totals)
    c.call(native.loaded().mdtf_graph_backward, struct, grads)


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
