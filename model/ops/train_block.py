"""A whole residual block for training as one operator, forward and backward.

The kernels are those of block_parts.py and the scan's; one operator a block instead of one for each
kernel, because with small batches PyTorch's bookkeeping costs as much as the kernels.
Registered with torch.library like the scan itself (native.py). float32 on the CPU, differentiable
once. Of a block are kept: its input, the scan's inputs, states and output, each graph
convolution's mix, and what the last norm is of; all else is computed again in the backward.
"""

import torch
from torch import Tensor

from model.ops import block_parts as parts
from model.ops import library as c
from model.ops import native
from model.ops.block import BlockWeights, GraphWeights, check_block
from model.ops.definition import DirectionWeights
from model.ops.operator import Operator, constant_result

# Where the list of both directions' weights has A_log.
_A = DirectionWeights._fields.index("A")
_LOGS = (_A, len(DirectionWeights._fields) + _A)


@constant_result
def takes_training(dim: int, hidden: int, joints: int) -> bool:
    """Whether the kernels can do blocks of this size: whole vectors of channels."""
    library = native.loaded()
    lanes = library.mdtf_lanes()
    return dim % lanes == 0 and hidden % lanes == 0 and joints <= library.mdtf_row_tile()


def _dense(tensors: list[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def _empty_like(tensors: list[Tensor]) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


def _in_order(graph: list[Tensor], direction: int) -> parts.GraphLearnt:
    """BatchNorm's weights in the joints' order; those of the backward direction are reversed."""
    weights = parts.GraphLearnt(*_dense(graph))
    if not direction:
        return weights
    return weights._replace(bn_weight=weights.bn_weight.flip(0), bn_bias=weights.bn_bias.flip(0))


def _decays(directions: list[Tensor]) -> list[Tensor]:
    """The directions' weights with A = -exp(A_log) in A_log's place."""
    directions = _dense(directions)
    for at in _LOGS:
        directions[at] = directions[at].exp().neg_()
    return directions


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
    """The output, then what the backward needs: the scan's inputs x and z, its output and states,
    with a last norm what that is of, and of each graph what parts.graph_forward returns.

    running: mean and variance of each graph's BatchNorm, empty for the batch's own."""
    x, w, last_norm = x.contiguous(), BlockWeights(*_dense(block)), _dense(last_norm)
    directions = _decays(directions)
    inner_x, z = parts.head_forward(x, w, norm_eps)
    scanned, graphs = [inner_x, inner_x], []
    for d, graph in enumerate((graph_forward, graph_backward)):
        if graph:
            seen = running[:2]
            running = running[2:]
            saved = parts.graph_forward(
                inner_x, _in_order(graph, d), adjacency, [t.flip(0) for t in seen] if d else seen,
                graph_eps,
            )  # fmt: skip
            scanned[d] = saved[0]
            graphs += saved
    inner = torch.empty_like(x)
    forward, backward, gate, y = (t.transpose(axis, -2) for t in (*scanned, z, inner))
    states = native.empty_states(gate, directions, keep)
    struct = native.inner_struct(forward, backward, gate, directions, y, states)
    c.call(native.loaded().mdtf_inner_forward, struct)
    out, before = parts.tail_forward(x, inner, (mask1, mask2), w, last_norm, norm_eps, last_eps)
    return [out, inner_x, z, inner, states, *([] if before is None else [before]), *graphs]


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
    (out,) = _empty_like([x])
    states = native.empty_states(out.transpose(axis, -2), directions, keep)
    graphs = []
    for graph in (graph_forward, graph_backward):
        if graph:
            graphs += [*_empty_like([x, x]), x.new_empty(3, x.shape[-2])]
    return [out, *_empty_like([x, x, x]), states, *_empty_like([x] * bool(last_norm)), *graphs]


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
    x, grad, w, last_norm = x.contiguous(), grad.contiguous(), _dense(block), _dense(last_norm)
    w, directions = BlockWeights(*w), _decays(directions)
    inner_x, z, inner, states, *saved = saved
    before_last = saved.pop(0) if last_norm else None
    by_block, by_directions, by_last = map(_empty_like, (block, directions, last_norm))
    by_w = BlockWeights(*by_block)
    by_x, by_inner = parts.tail_backward(
        grad, x, inner, (mask1, mask2), w, last_norm, before_last, norm_eps, last_eps, by_w, by_last
    )

    scanned, graphs = [inner_x, inner_x], []  # (direction, weights, what its forward returned)
    for d, graph in enumerate((graph_forward, graph_backward)):
        if graph:
            scanned[d] = saved[0]
            graphs.append((d, _in_order(graph, d), saved[:3]))
            saved = saved[3:]
    # With both graphs nothing but their backward adds to it.
    by_inner_x = torch.zeros_like(x) if len(graphs) == 2 else torch.empty_like(x)
    by_scanned = [by_inner_x if s is inner_x else torch.empty_like(x) for s in scanned]
    by_z = torch.empty_like(x)
    forward, backward, gate, by_y, by_forward, by_backward, by_gate = (
        t.transpose(axis, -2) for t in (*scanned, z, by_inner, *by_scanned, by_z)
    )
    c.call(
        native.loaded().mdtf_inner_backward,
        native.inner_struct(forward, backward, gate, directions, by_y, states),
        native.inner_grads_struct(by_forward, by_backward, by_gate, by_directions),
    )
    for at in _LOGS:
        by_directions[at] *= directions[at]  # dA / dA_log = A
    by_graphs = []
    for d, weights, outputs in graphs:
        by_weights = _empty_like(weights)
        parts.graph_backward(
            by_scanned[d], inner_x, weights, adjacency, outputs, batch_statistics, graph_eps,
            by_inner_x, by_weights,
        )  # fmt: skip
        by_graphs += by_weights[:-2]
        by_graphs += [t.flip(0) for t in by_weights[-2:]] if d else by_weights[-2:]
    parts.head_backward((by_inner_x, by_z), x, w, norm_eps, by_x, by_w)
    return [by_x, *by_block, *by_directions, *by_graphs, *by_last]


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
    return _empty_like([x, *weights])


class _BlockTrain(torch.autograd.Function):
    """With one flat list of tensors: to take lists apart costs torch.library's own way as long as
    all else around a small block."""

    @staticmethod
    def forward(ctx, sizes, settings, keep, *tensors):
        # The second time, below autograd: a torch.compile sees the operator, not what it calls.
        with torch._C._AutoDispatchBelowAutograd():
            x, masks, *lists = _split(tensors, (1, 2, *sizes))
            *lists, running, adjacency, last_norm = lists
            out, *saved = torch.ops.mdtf.block_train_forward(
                *x, *masks, *lists, running, *adjacency, last_norm, *settings, keep
            )
        ctx.sizes, ctx.settings, ctx.kept = sizes, settings, keep
        ctx.save_for_backward(*tensors, *saved)
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)  # zeros for what is kept are megabytes
        return out, *saved

    @staticmethod
    def backward(ctx, grad, *_):
        if not ctx.kept:
            raise RuntimeError("the block ran without keeping what its backward needs")
        x, masks, *lists, saved = _split(ctx.saved_tensors, (1, 2, *ctx.sizes))
        *lists, running, adjacency, last_norm = lists
        by_x, *by_weights = torch.ops.mdtf.block_train_backward(
            grad, *x, *masks, *lists, *adjacency, last_norm, saved, *ctx.settings, not running
        )
        nothing = [None] * (len(running) + 1)  # and the adjacency
        learnt = len(by_weights) - len(last_norm)
        return (
            None, None, None, by_x, None, None, *by_weights[:learnt], *nothing,
            *by_weights[learnt:],
        )  # fmt: skip


@_forward.impl_autograd
def _(x, mask1, mask2, *rest):
    *lists, adjacency, last_norm = rest[:7]
    lists += [adjacency], last_norm
    tensors = [t for tensors in lists for t in tensors]
    settings, keep = rest[7:-1], rest[-1]
    sizes = [len(tensors) for tensors in lists]
    return list(_BlockTrain.apply(sizes, settings, keep, x, mask1, mask2, *tensors))


def _split(tensors: tuple, sizes: tuple[int, ...]) -> list[list]:
    """Consecutive pieces of these sizes, and the rest if there is one."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(list(tensors[start : start + size]))
        start += size
    return [*pieces, list(tensors[start:])] if start < len(tensors) else pieces


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
    rows = [
        None if m is None else m.to(x.dtype).expand(*x.shape[:-1], 1).contiguous() for m in masks
    ]
    graphs = [g for g in (graph_forward, graph_backward) if g is not None]
    lists = [
        list(block), [*forward, *backward],
        *([] if g is None else list(g[:-2]) for g in (graph_forward, graph_backward)),
    ]  # fmt: skip
    running = [] if batch_statistics else [t for g in graphs for t in (g.bn_mean, g.bn_var)]
    last = list(last_norm or ())
    keep = native.needs_grad(x, *(t for tensors in lists for t in tensors), *last)
    if adjacency is not None:
        adjacency = adjacency.contiguous()
    out, *saved = torch.ops.mdtf.block_train_forward(
        x, *rows, *lists, running, adjacency, last, axis, norm_eps, last_eps, graph_eps, keep
    )
    return out, saved[len(saved) - 3 * len(graphs) :][2::3]
