"""A whole residual block by the compiled kernels: one operator for inference, one with gradients.

A whole block is one operator, because a clip's kernels are so short that the time of PyTorch's own
work shows. The forward with gradients saves the block's input, the scan's inputs, states and
output, each graph's mix and the last norm's input; the rest is recomputed. float32 on the CPU,
differentiable once. Inference has its own kernel (csrc/infer.h), which saves nothing: through the
kernel for training (csrc/train.h) a block took 5 to 29 % longer.
"""

import ctypes
import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from lib.processes import is_parallel
from model.ops.cpu import abi
from model.ops.cpu.inner import check_weights, empty_like, empty_states
from model.ops.operator import (
    Operator,
    constant_result,
    dense_channels,
    needs_grad,
    no_second_derivative,
)
from model.ops.statistics import GraphStatistics, Statistics, join_statistics
from model.ops.weights import (
    LEAVES,
    BlockWeights,
    GraphWeights,
    Masks,
    Settings,
    Sizes,
    flat,
    sizes_of,
    unflat,
)

IS_LEARNT = tuple(leaf.is_learnt for leaf in LEAVES[BlockWeights])
# The backward does not need the running statistics, which the next forward may have changed.
IS_SAVED = tuple(leaf.is_learnt or leaf.name == "adjacency" for leaf in LEAVES[BlockWeights])


@constant_result
def takes(channels: int, hidden: int, joints: int) -> bool:
    """Whether the kernels take blocks of these sizes: channels must be whole vectors."""
    library = abi.library()
    lanes, most = library.mdtf_lanes(), library.mdtf_max_joints()
    return bool(channels % lanes == 0 and hidden % lanes == 0 and joints <= most)


def dense(tensors: Sequence[Tensor | None]) -> list[Tensor | None]:
    return [t if t is None else t.contiguous() for t in tensors]


def read_weights(x: Tensor, weights: Sequence[Tensor | None]) -> tuple[BlockWeights, Sizes]:
    """The weights by name, and their sizes. Raises ValueError: the kernels do not check them."""
    named = unflat(BlockWeights, weights)
    sizes = sizes_of(named)
    check_weights(x, named, sizes)
    if sizes.joints and (x.shape[-2] != sizes.joints or named.adjacency is None):
        raise ValueError(f"{x.shape[-2]} joints, but a graph of {sizes.joints}, or no adjacency")
    return named, sizes


# --- inference ------------------------------------------------------------------------------------
# `weights` is weights.flat() of the BlockWeights, `eps` the three of the Settings.
@Operator("mdtf::block_infer")
def _infer(x: Tensor, weights: list[Tensor | None], axis: int, eps: list[float]) -> Tensor:
    _, sizes = read_weights(x, weights)
    x, weights = dense_channels(x), dense(weights)
    out = torch.empty_like(x)
    struct = abi.block(x, out, weights, sizes, Settings(axis, *eps))
    abi.call(abi.library().mdtf_block_infer, struct)
    return out


@_infer.register_fake
def _(x: Tensor, weights: list[Tensor | None], axis: int, eps: list[float]) -> Tensor:
    return torch.empty_like(dense_channels(x))


# --- with gradients -------------------------------------------------------------------------------
class Kept(NamedTuple):
    """What the forward keeps for the backward; a tensor is empty where the block lacks the part."""

    inner_x: Tensor  # (..., C), like all tensors here without another size
    z: Tensor
    inner: Tensor  # the scan's output
    states: Tensor
    before_last: Tensor  # the last norm's input
    forward_out: Tensor  # the graph convolutions' outputs
    backward_out: Tensor
    forward_mixed: Tensor
    backward_mixed: Tensor
    forward_statistics: Tensor  # (3, J), see Statistics
    backward_statistics: Tensor

    @classmethod
    def room(
        cls, x: Tensor, weights: BlockWeights, sizes: Sizes, settings: Settings, keep: bool
    ) -> "Kept":
        """Uninitialised tensors; x must be contiguous."""

        def room(is_there: object, size: Sequence[int] = x.shape) -> Tensor:
            return x.new_empty(size if is_there is not None else 0)

        forward, backward = weights.graphs
        return cls(
            inner_x=room(x),
            z=room(x),
            inner=room(x),
            states=empty_states(x.transpose(settings.axis, -2), sizes, keep),
            before_last=room(weights.last_weight),
            forward_out=room(forward),
            backward_out=room(backward),
            forward_mixed=room(forward),
            backward_mixed=room(backward),
            forward_statistics=room(forward, (3, sizes.joints)),
            backward_statistics=room(backward, (3, sizes.joints)),
        )

    @property
    def statistics(self) -> tuple[Tensor, Tensor]:
        """The statistics of both graphs, in the form of `Statistics`, each (3, J)."""
        return self.forward_statistics, self.backward_statistics


def _struct(
    x: Tensor,
    out: Tensor,
    masks: Sequence[Tensor | None],
    weights: list[Tensor | None],
    kept: Kept,
    sizes: Sizes,
    settings: Settings,
) -> tuple[ctypes.Structure, list[Tensor]]:
    """The structure, and its scratch, which must live as long. out: or its gradient."""
    struct = abi.block(x, out, weights, sizes, settings)
    struct.mask1, struct.mask2 = map(abi.pointer, masks)
    struct.kept = abi.pointers(abi.Kept, kept)
    scratch = []
    for direction, statistics in enumerate(kept.statistics):
        if statistics.numel():
            scratch.append(x.new_empty(x.numel() // x.shape[-1], 2))
            struct.sums[direction] = abi.pointer(scratch[-1])
    return struct, scratch


@Operator("mdtf::block_forward")
def _forward(
    x: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: list[Tensor | None],
    axis: int,
    eps: list[float],
    batch_statistics: bool,
    keep: bool,
) -> list[Tensor]:
    """The output, then the fields of Kept."""
    x, weights, settings = x.contiguous(), dense(weights), Settings(axis, *eps)
    named, sizes = read_weights(x, weights)
    kept, out = Kept.room(x, named, sizes, settings, keep), torch.empty_like(x)
    masks = dense((mask1, mask2))
    struct, _scratch = _struct(x, out, masks, weights, kept, sizes, settings)
    library = abi.library()
    if sizes.joints:
        abi.call(library.mdtf_train_enter, struct)
    for graph, statistics in zip(named.graphs, kept.statistics, strict=True):
        if graph is not None and not batch_statistics:
            one = torch.ones_like(graph.bn_var)
            torch.stack((graph.bn_mean, graph.bn_var, one), out=statistics)
        elif graph is not None and is_parallel():
            join_statistics(statistics)
    abi.call(library.mdtf_train_leave, struct)
    return [out, *kept]


@_forward.register_fake
def _(
    x: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: list[Tensor | None],
    axis: int,
    eps: list[float],
    batch_statistics: bool,
    keep: bool,
) -> list[Tensor]:
    named, settings = unflat(BlockWeights, weights), Settings(axis, *eps)
    kept = Kept.room(x.contiguous(), named, sizes_of(named), settings, keep)
    return [*empty_like([x]), *kept]


def _gradients(x: Tensor, weights: list[Tensor | None]) -> tuple[Tensor, list[Tensor | None]]:
    """Uninitialised gradients of x and of the weights; None for a weight that is not learnt."""
    by_weights = [
        torch.empty_like(w, memory_format=torch.contiguous_format)
        if w is not None and is_learnt
        else None
        for w, is_learnt in zip(weights, IS_LEARNT, strict=True)
    ]
    return torch.empty_like(x, memory_format=torch.contiguous_format), by_weights


@Operator("mdtf::block_backward")
def _backward(
    grad: Tensor,
    x: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: list[Tensor | None],
    saved: list[Tensor],
    axis: int,
    eps: list[float],
    batch_statistics: bool,
) -> list[Tensor]:
    """The gradients of x, then of each learnt weight that the block has."""
    x, grad, weights = x.contiguous(), grad.contiguous(), dense(weights)
    named, library = unflat(BlockWeights, weights), abi.library()
    sizes, settings, masks = sizes_of(named), Settings(axis, *eps), dense((mask1, mask2))
    struct, _scratch = _struct(x, grad, masks, weights, Kept(*saved), sizes, settings)
    by_x, by_weights = _gradients(x, weights)
    by_inner_x, by_z, by_inner = empty_like([x] * 3)
    by = abi.BlockGrads(
        weights=abi.weights(BlockWeights, by_weights),
        x=abi.pointer(by_x),
        inner_x=abi.pointer(by_inner_x),
        z=abi.pointer(by_z),
        inner=abi.pointer(by_inner),
    )
    by_outs, all_totals = [], []
    for direction, graph in enumerate(named.graphs):
        if graph is not None:
            by_outs.append(torch.empty_like(x))
            all_totals.append(x.new_empty(2, x.shape[-2]))
            by.graph_out[direction] = abi.pointer(by_outs[-1])
            by.totals[direction] = abi.pointer(all_totals[-1])
    abi.call(library.mdtf_train_leave_backward, struct, by)
    for totals in all_totals:
        if not batch_statistics:
            totals.zero_()  # running statistics do not depend on x
        elif is_parallel():
            dist.all_reduce(totals)
    if all_totals:
        abi.call(library.mdtf_train_enter_backward, struct, by)
    return [by_x, *(g for g in by_weights if g is not None)]


@_backward.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: list[Tensor | None],
    saved: list[Tensor],
    axis: int,
    eps: list[float],
    batch_statistics: bool,
) -> list[Tensor]:
    by_x, by_weights = _gradients(x, weights)
    return [by_x, *(g for g in by_weights if g is not None)]


class _Block(torch.autograd.Function):
    """Takes and returns single tensors, no lists: torch.library's register_autograd is slow with
    lists, which would make the work around a small block half as long again."""

    @staticmethod
    def forward(
        ctx: Any,
        settings: tuple[int, list[float], bool],
        keep: bool,
        x: Tensor,
        mask1: Tensor | None,
        mask2: Tensor | None,
        *weights: Tensor | None,
    ) -> tuple[Tensor, ...]:
        with torch._C._AutoDispatchBelowAutograd():  # calls the kernels, not this function again
            out, *saved = torch.ops.mdtf.block_forward(
                x, mask1, mask2, list(weights), *settings, keep
            )
        ctx.settings, ctx.kept = settings, keep
        kept_weights = (w if s else None for w, s in zip(weights, IS_SAVED, strict=True))
        ctx.save_for_backward(x, mask1, mask2, *kept_weights, *saved)
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)  # no megabytes of zeros for the kept tensors
        return out, *saved

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: None) -> tuple[Tensor | None, ...]:
        if not ctx.kept:
            raise RuntimeError("the block ran without keeping what its backward needs")
        # Read once: where blocks are recomputed, every access to saved_tensors computes again.
        x, mask1, mask2, *rest = ctx.saved_tensors
        tensors = iter(rest)
        weights = list(itertools.islice(tensors, len(IS_SAVED)))
        by_x, *found = torch.ops.mdtf.block_backward(
            grad, x, mask1, mask2, weights, list(tensors), *ctx.settings
        )
        by_weights = iter(found)
        by_each = (
            next(by_weights) if w is not None and is_learnt else None
            for w, is_learnt in zip(weights, IS_LEARNT, strict=True)
        )
        return None, None, by_x, None, None, *by_each


@_forward.impl_autograd
def _(
    x: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: list[Tensor | None],
    axis: int,
    eps: list[float],
    batch_statistics: bool,
    keep: bool,
) -> list[Tensor]:
    settings = axis, eps, batch_statistics
    # torch's stubs do not type apply().
    return list(_Block.apply(settings, keep, x, mask1, mask2, *weights))  # type: ignore[no-untyped-call]


_backward.register_autograd(no_second_derivative)


# --- the function ---------------------------------------------------------------------------------
def block(
    x: Tensor, weights: BlockWeights, settings: Settings, masks: Masks, *, batch_statistics: bool
) -> tuple[Tensor, GraphStatistics] | None:
    """`reference.residual_block` of x (B, T, J, C) or (N, L, C) by the compiled kernels.

    None where they cannot: x has other dimensions, or its channels are no whole vectors.
    """
    sizes = sizes_of(weights)
    if x.dim() not in (3, 4) or (sizes.joints and settings.axis != -2):
        return None
    if not takes(sizes.channels, sizes.hidden, sizes.joints):
        return None
    tensors, eps = flat(weights), [settings.norm_eps, settings.last_eps, settings.graph_eps]
    first, second = masks
    is_plain = first is None and second is None and not (batch_statistics and sizes.joints)
    if is_plain and not torch.is_grad_enabled():
        return torch.ops.mdtf.block_infer(x, tensors, settings.axis, eps), (None, None)
    mask1, mask2 = (None if m is None else m.to(x.dtype).expand(*x.shape[:-1], 1) for m in masks)
    keep = needs_grad(x, *tensors)
    out, *saved = torch.ops.mdtf.block_forward(
        x, mask1, mask2, tensors, settings.axis, eps, batch_statistics, keep
    )
    if not (batch_statistics and sizes.joints):
        return out, (None, None)
    values = x.numel() / sizes.joints

    def seen(graph: GraphWeights | None, statistics: Tensor) -> Statistics | None:
        if graph is None:
            return None
        mean, var, counted = statistics
        return Statistics(mean, var, counted if is_parallel() else values)

    forward, backward = map(seen, weights.graphs, Kept(*saved).statistics)
    return out, (forward, backward)
