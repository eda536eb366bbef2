"""The inner block by the compiled kernels, as PyTorch operators.

They are registered with torch.library, so torch.compile and torch.export see opaque operators with
a shape function, and autograd uses their own backward. float32 on the CPU, differentiable once.
"""

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from model.ops.cpu import abi
from model.ops.operator import (
    Operator,
    call_inner,
    check_like,
    dense_channels,
    like,
    no_second_derivative,
)
from model.ops.weights import (
    BlockWeights,
    DirectionWeights,
    Sizes,
    sizes_of,
    split_directions,
    wrong_size,
)


def empty_like(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Uninitialised contiguous tensors of the same sizes."""
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


def empty_states(x: Tensor, sizes: Sizes, keep: bool) -> Tensor:
    """Room for the states from which the backward starts its chunks; empty unless `keep`.

    x: (..., L, C). The size is that of mdtf_kept_floats, but shapes may be symbolic here.
    """
    library = abi.library()
    lanes, max_chunk = library.mdtf_lanes(), library.mdtf_max_chunk()
    length, channels = x.shape[-2], x.shape[-1]
    chunks = (length + max_chunk - 1) // max_chunk
    states, channels = ((n + lanes - 1) // lanes * lanes for n in (sizes.states, channels))
    floats = math.prod(x.shape[:-2]) * (chunks - 1) * states * channels if length else 0
    return x.new_empty(2 * floats if keep else 0)


# --- checks ---------------------------------------------------------------------------------------
def check_weights(x: Tensor, weights: DirectionWeights | BlockWeights, sizes: Sizes) -> None:
    """Raise ValueError where sizes or types are wrong: the kernels do not check them."""
    most = abi.library().mdtf_max_taps()
    if sizes.taps > most:
        raise ValueError(
            f"the C scan takes up to {most} taps, not {sizes.taps}; use backend 'torch'"
        )
    wrong = wrong_size(weights, sizes._replace(channels=x.shape[-1]), x)
    if wrong:
        raise ValueError(wrong)


# --- operators ------------------------------------------------------------------------------------
# `weights`: those of the forward direction, then those of the backward one.
def _sizes(weights: list[Tensor]) -> Sizes:
    forward, _ = split_directions(weights)
    return sizes_of(forward)


def _struct(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    weights: list[Tensor],
    out: Tensor,
    states: Tensor,
) -> ctypes.Structure:
    return abi.Inner(
        shape=abi.shape(z, _sizes(weights)),
        x=(abi.View * 2)(abi.view(x_forward), abi.view(x_backward)),
        z=abi.view(z),
        weights=abi.both_directions(weights),
        out=abi.view(out),
        states=abi.pointer(states),
    )


@Operator("mdtf::inner_forward")
def _inner_forward(
    x_forward: Tensor, x_backward: Tensor | None, z: Tensor, weights: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor]:
    """The output, and (if `keep`) the states from which the backward starts its chunks."""
    x_backward = x_forward if x_backward is None else x_backward
    check_like("x_forward", x_forward, z)
    check_like("x_backward", x_backward, z)
    for direction in split_directions(weights):
        check_weights(z, direction, sizes_of(direction))
    x_forward, x_backward, z = map(dense_channels, (x_forward, x_backward, z))
    weights = [w.contiguous() for w in weights]
    out, states = like(z), empty_states(z, _sizes(weights), keep)
    struct = _struct(x_forward, x_backward, z, weights, out, states)
    abi.call(abi.library().mdtf_inner_forward, struct)
    return out, states


@_inner_forward.register_fake
def _(
    x_forward: Tensor, x_backward: Tensor | None, z: Tensor, weights: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor]:
    return like(z), empty_states(z, _sizes(weights), keep)


def _gradients(
    x_forward: Tensor, x_backward: Tensor | None, z: Tensor, weights: list[Tensor]
) -> list[Tensor]:
    inputs = [x for x in (x_forward, x_backward, z) if x is not None]
    return [*map(like, inputs), *empty_like(weights)]


@Operator("mdtf::inner_backward")
def _inner_backward(
    grad: Tensor,
    x_forward: Tensor,
    x_backward: Tensor | None,
    z: Tensor,
    weights: list[Tensor],
    states: Tensor,
) -> list[Tensor]:
    """The gradients of x_forward, x_backward (if it is another tensor), z, and each weight."""
    by_x_forward, *rest = grads = _gradients(x_forward, x_backward, z, weights)
    by_x_backward = by_x_forward if x_backward is None else rest.pop(0)
    by_z, *by_weights = rest
    x_backward = x_forward if x_backward is None else x_backward
    grad, x_forward, x_backward, z = map(dense_channels, (grad, x_forward, x_backward, z))
    # The weights must outlive the call.
    weights = [w.contiguous() for w in weights]
    struct = _struct(x_forward, x_backward, z, weights, grad, states)
    by_struct = abi.InnerGrads(
        x=(abi.View * 2)(abi.view(by_x_forward), abi.view(by_x_backward)),
        z=abi.view(by_z),
        weights=abi.both_directions(by_weights),
    )
    abi.call(abi.library().mdtf_inner_backward, struct, by_struct)
    return grads


@_inner_backward.register_fake
def _(
    grad: Tensor,
    x_forward: Tensor,
    x_backward: Tensor | None,
    z: Tensor,
    weights: list[Tensor],
    states: Tensor,
) -> list[Tensor]:
    return _gradients(x_forward, x_backward, z, weights)


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    x_forward, x_backward, z, weights, keep = inputs
    _, states = output
    ctx.save_for_backward(x_forward, x_backward, z, states, *weights)
    ctx.kept = keep
    ctx.set_materialize_grads(False)  # no megabytes of zeros for the states, which have no gradient


def _autograd(ctx: Any, grad: Tensor, _by_states: None) -> tuple[Any, ...]:
    if not ctx.kept:
        raise RuntimeError("the scan ran without keeping the states that its backward needs")
    x_forward, x_backward, z, states, *weights = ctx.saved_tensors
    by_x_forward, *rest = torch.ops.mdtf.inner_backward(
        grad, x_forward, x_backward, z, weights, states
    )
    by_x_backward = None if x_backward is None else rest.pop(0)
    by_z, *by_weights = rest
    return by_x_forward, by_x_backward, by_z, by_weights, None


_inner_forward.register_autograd(_autograd, setup_context=_context)
_inner_backward.register_autograd(no_second_derivative)


# --- the function ---------------------------------------------------------------------------------
def inner(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """`reference.inner` by the compiled kernel."""
    operator = torch.ops.mdtf.inner_forward
    return call_inner(operator, x_forward, x_backward, z, forward, backward)
