"""A whole residual block for training as one operator, forward and backward.

One operator for all (csrc/train.h), because a clip's kernels are so short that PyTorch's own work
shows. Registered with torch.library like the scan itself (native.py). float32 on the CPU,
differentiable once. Of a block are kept: its input, the scan's inputs, states and output, each
graph convolution's mix, and what the last norm is of; the rest is computed again in the backward.
"""

import itertools

import torch
import torch.distributed as dist
from torch import Tensor

from lib.processes import is_parallel
from model.ops import library as c
from model.ops import native
from model.ops.block import BlockWeights, GraphWeights, check_block
from model.ops.block_parts import (
    Block,
    Gradients,
    Kept,
    empty_like,
    grads_struct,
    train_struct,
)
from model.ops.definition import DirectionWeights
from model.ops.operator import Operator, constant_result


@constant_result
def takes_training(dim: int, hidden: int, joints: int) -> bool:
    """Whether the kernels can do blocks of this size: whole vectors of channels."""
    library = native.loaded()
    lanes = library.mdtf_lanes()
    return dim % lanes == 0 and hidden % lanes == 0 and joints <= library.mdtf_row_tile()


def _join_statistics(statistics: Tensor) -> None:
    """From those of this process's values to those of all processes', in place; (3, J): mean,
    biased variance, number of values."""
    mean, var, count = statistics
    sums = torch.stack((mean * count, count))
    dist.all_reduce(sums)
    joint_mean = sums[0] / sums[1].clamp(min=1)
    squares = count * (var + (mean - joint_mean).square())
    dist.all_reduce(squares)
    torch.stack((joint_mean, squares / sums[1].clamp(min=1), sums[1]), out=statistics)


@Operator("mdtf::block_train_forward")
def _forward(
    x: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    block: list[Tensor],
    directions: list[Tensor],
    graph_forward: list[Tensor],
    graph_backward: list[Tensor],
    running: list[Tensor],
    adjacency: Tensor | None,
    last_norm: list[Tensor],
    axis: int,
    norm_eps: float,
    last_eps: float,
    graph_eps: float,
    keep: bool,
) -> list[Tensor]:
    """The output, then Kept.flat().

    running: mean and variance of each graph's BatchNorm, empty for the batch's own.
    """
    this = Block.of(
        x, mask1, mask2, block, directions, graph_forward, graph_backward, adjacency, last_norm,
        axis, norm_eps, last_eps, graph_eps,
    )  # fmt: skip
    kept, library = Kept.room_for(this, keep), native.loaded()
    out = torch.empty_like(this.x)
    struct, _scratch = train_struct(this, kept, (kept.inner_x, kept.z), kept.inner, out)
    if kept.graphs:
        c.call(library.mdtf_train_enter, struct)
    for direction, graph in enumerate(kept.per_direction(this)):
        if graph and running:
            mean, var, *running = running
            seen = torch.stack((mean, var, torch.ones_like(var)))
            graph[2].copy_(seen.flip(1) if direction else seen)
        elif graph and is_parallel():
            _join_statistics(graph[2])
    c.call(library.mdtf_train_leave, struct)
    return [out, *kept.flat()]


@_forward.register_fake
def _(
    x,
    mask1,
    mask2,
    block,
    directions,
    graph_forward,
    graph_backward,
    running,
    adjacency,
    last_norm,
    axis,
    norm_eps,
    last_eps,
    graph_eps,
    keep,
):
    this = Block.of(
        x, mask1, mask2, block, directions, graph_forward, graph_backward, adjacency, last_norm,
        axis, norm_eps, last_eps, graph_eps,
    )  # fmt: skip
    return [*empty_like([x]), *Kept.room_for(this, keep).flat()]


@Operator("mdtf::block_train_backward")
def _backward(
    grad: Tensor,
    x: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    block: list[Tensor],
    directions: list[Tensor],
    graph_forward: list[Tensor],
    graph_backward: list[Tensor],
    adjacency: Tensor | None,
    last_norm: list[Tensor],
    saved: list[Tensor],
    axis: int,
    norm_eps: float,
    last_eps: float,
    graph_eps: float,
    batch_statistics: bool,
) -> list[Tensor]:
    """The derivatives by x, block, directions, graph_forward, graph_backward and last_norm, one
    after the other."""
    this = Block.of(
        x, mask1, mask2, block, directions, graph_forward, graph_backward, adjacency, last_norm,
        axis, norm_eps, last_eps, graph_eps,
    )  # fmt: skip
    kept, by, library = Kept.of(saved, this), Gradients.room_for(this), native.loaded()
    by_inner_x, by_z, by_inner = empty_like([this.x] * 3)
    grad = grad.contiguous()
    struct, _scratch = train_struct(this, kept, (by_inner_x, by_z), by_inner, grad)
    by_struct, exchanged = grads_struct(this, by, (by_inner_x, by_z), by_inner)
    c.call(library.mdtf_train_leave_backward, struct, by_struct)
    if kept.graphs:
        for totals in exchanged[:2]:
            if totals is not None and not batch_statistics:
                totals.zero_()  # running ones do not depend on x
            elif totals is not None and is_parallel():
                dist.all_reduce(totals)
        c.call(library.mdtf_train_enter_backward, struct, by_struct)
    return by.flat(this)


@_backward.register_fake
def _(
    grad,
    x,
    mask1,
    mask2,
    block,
    directions,
    graph_forward,
    graph_backward,
    adjacency,
    last_norm,
    saved,
    axis,
    norm_eps,
    last_eps,
    graph_eps,
    batch_statistics,
):
    weights = (*block, *directions, *graph_forward, *graph_backward, *last_norm)
    return empty_like([x, *weights])


class _BlockTrain(torch.autograd.Function):
    """Takes and gives tensors one by one, never in lists: what torch.library does to lists in
    register_autograd costs as much as half of the rest around a small block."""

    @staticmethod
    def forward(ctx, sizes, running, settings, keep, *tensors):
        with torch._C._AutoDispatchBelowAutograd():  # the operator itself, not this once more
            x, masks, *lists, adjacency, last_norm = _split(tensors, (1, 2, *sizes))
            out, *saved = torch.ops.mdtf.block_train_forward(
                *x, *masks, *lists, running, *adjacency, last_norm, *settings, keep
            )
        ctx.sizes, ctx.settings, ctx.kept = sizes, (*settings, not running), keep
        ctx.save_for_backward(*tensors, *saved)
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)  # zeros for what is kept are megabytes
        return out, *saved

    @staticmethod
    def backward(ctx, grad, *_):
        if not ctx.kept:
            raise RuntimeError("the block ran without keeping what its backward needs")
        tensors = ctx.saved_tensors  # once: with recomputed blocks each reading computes anew
        sizes = 1, 2, *ctx.sizes, len(tensors) - 3 - sum(ctx.sizes)
        x, masks, *lists, adjacency, last_norm, saved = _split(tensors, sizes)
        by_x, *by_weights = torch.ops.mdtf.block_train_backward(
            grad, *x, *masks, *lists, *adjacency, last_norm, saved, *ctx.settings
        )
        by_last_norm = [by_weights.pop() for _ in last_norm][::-1]
        # Nothing by sizes, running statistics, settings and keep, nor masks, nor the adjacency.
        return None, None, None, None, by_x, None, None, *by_weights, None, *by_last_norm


def _split(tensors: tuple, sizes: tuple[int, ...]) -> list[list]:
    """Consecutive pieces of these sizes."""
    ends = list(itertools.accumulate(sizes))
    return [list(tensors[end - size : end]) for size, end in zip(sizes, ends, strict=True)]


@_forward.impl_autograd
def _(x, mask1, mask2, *rest):
    *lists, running, adjacency, last_norm = rest[:7]
    lists += [adjacency], last_norm
    sizes = [len(tensors) for tensors in lists]
    tensors = (t for tensors in lists for t in tensors)
    settings, keep = rest[7:-1], rest[-1]
    return list(_BlockTrain.apply(sizes, running, settings, keep, x, mask1, mask2, *tensors))


_backward.register_autograd(native.no_second_derivative)


def block_train(
    x: Tensor,
    block: BlockWeights,
    forward: DirectionWeights,
    backward: DirectionWeights,
    graph_forward: GraphWeights | None,
    graph_backward: GraphWeights | None,
    adjacency: Tensor | None,
    masks: tuple[Tensor | None, Tensor | None],
    *,
    axis: int,
    norm_eps: float,
    last_norm: tuple[Tensor, Tensor] | None = None,
    last_eps: float = 1e-5,
    graph_eps: float = 1e-5,
    batch_statistics: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """block.block_forward with gradients: x (B, T, J, C) or (N, L, C) -> same.

    forward, backward: with A_log in the place of A = -exp(A_log).
    masks: what the two branches are multiplied with (DropPath), broadcast over x; None for 1.
    batch_statistics: BatchNorm as in training, over all processes, else by its running statistics.
    Also returned: each graph's statistics (3, J): mean, biased variance and number of values.
    """
    check_block(x, block, forward, backward, graph_forward, graph_backward, adjacency, last_norm)
    rows = [None if m is None else m.to(x.dtype).expand(*x.shape[:-1], 1) for m in masks]
    graphs = [g for g in (graph_forward, graph_backward) if g is not None]
    lists = [
        list(block), [*forward, *backward],
        *([] if g is None else list(g[:-2]) for g in (graph_forward, graph_backward)),
    ]  # fmt: skip
    running = [] if batch_statistics else [t for g in graphs for t in (g.bn_mean, g.bn_var)]
    last = list(last_norm or ())
    keep = native.needs_grad(x, *(t for tensors in lists for t in tensors), *last)
    out, *saved = torch.ops.mdtf.block_train_forward(
        x, *rows, *lists, running, adjacency, last, axis, norm_eps, last_eps, graph_eps, keep
    )
    return out, saved[len(saved) - 3 * len(graphs) :][2::3]
