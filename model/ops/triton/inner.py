"""The inner block by the Triton kernels, as PyTorch operators; see conv.py and scan.py.

The projection x_proj and its gradients are PyTorch's products. Activations are float32, bfloat16
or float16, weights of any of these; whatever is summed over steps is float32. Differentiable once.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.ops.operator import (
    Operator,
    call_inner,
    check_like,
    dense_channels,
    like,
    no_second_derivative,
)
from model.ops.triton import launch
from model.ops.triton.launch import Shape
from model.ops.weights import DirectionWeights, Sizes, sizes_of, split_directions, wrong_size

DEVICES = ("cuda", "cpu")  # on a CPU, Triton's interpreter


def _check(x_forward: Tensor, x_backward: Tensor, z: Tensor, weights: list[Tensor]) -> Sizes:
    """The sizes of the weights. Raises ValueError where sizes or types are wrong."""
    check_like("x_forward", x_forward, z)
    check_like("x_backward", x_backward, z)
    forward, _ = split_directions(weights)
    sizes = sizes_of(forward)._replace(channels=z.shape[-1])
    for direction in split_directions(weights):
        wrong = wrong_size(direction, sizes, direction.A_log)
        if wrong:
            raise ValueError(wrong)
    if forward.A_log.device != z.device:
        raise ValueError(f"weights on {forward.A_log.device}, but activations on {z.device}")
    if Shape.of(z).tokens >= 2**31:
        raise ValueError(f"{Shape.of(z).tokens} steps in a batch, the kernels count to 2^31")
    return sizes


# --- operators ------------------------------------------------------------------------------------
# `weights`: those of the forward direction, then those of the backward one.
class _Kept(NamedTuple):
    """What the forward keeps for the backward, contiguous."""

    y: Tensor  # (tokens, C) float32: the sum of both directions, before the gate
    u: Tensor  # (2, tokens, C): what the scan of each direction reads
    projected: Tensor  # (2, tokens, R + 2 N): dt, B, C
    states: Tensor  # (2, rows, chunks, C, N) float32: those before each chunk

    @classmethod
    def room(cls, z: Tensor, sizes: Sizes, keep: bool) -> "_Kept":
        """Uninitialised tensors, empty unless `keep`."""
        shape = Shape.of(z)
        rows = shape.rows if keep else 0
        tokens, channels = rows * shape.length, shape.channels
        return cls(
            y=z.new_empty(tokens, channels, dtype=torch.float32),
            u=z.new_empty(2, tokens, channels),
            projected=z.new_empty(2, tokens, sizes.rank + 2 * sizes.states),
            states=z.new_empty(2, rows, shape.chunks, channels, sizes.states, dtype=torch.float32),
        )


def _x_proj(forward: DirectionWeights, backward: DirectionWeights) -> Tensor:
    """(2, R + 2 N, C)."""
    return torch.stack((forward.x_proj, backward.x_proj))


@Operator("mdtf::triton_inner_forward", DEVICES)
def _forward(
    x_forward: Tensor, x_backward: Tensor | None, z: Tensor, weights: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The output, and what is kept (empty unless `keep`)."""
    x_backward = x_forward if x_backward is None else x_backward
    sizes = _check(x_forward, x_backward, z, weights)
    x_forward, x_backward, z = map(dense_channels, (x_forward, x_backward, z))
    forward, backward = split_directions([w.contiguous() for w in weights])
    out, room = like(z), _Kept.room(z, sizes, True)
    if not out.numel():
        return out, *room
    with launch.device_of(z):
        launch.conv_forward(x_forward, x_backward, forward, backward, room.u)
        x_proj = _x_proj(forward, backward).to(z.dtype)
        torch.bmm(room.u, x_proj.transpose(1, 2), out=room.projected)
        launch.scan_forward(*room, z, out, forward, backward, keep=keep)
    return out, *(room if keep else _Kept.room(z, sizes, False))


@_forward.register_fake
def _(
    x_forward: Tensor, x_backward: Tensor | None, z: Tensor, weights: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    forward, _ = split_directions(weights)
    return like(z), *_Kept.room(z, sizes_of(forward), keep)


class _Gradients(NamedTuple):
    """Of activations like these, of each direction's weights in float32 and (2, …)."""

    x_forward: Tensor
    x_backward: Tensor  # empty if the directions read one tensor
    z: Tensor
    conv: Tensor  # taps (C · K), bias (C)
    scan: Tensor  # A_log (C · N), dt_bias (C), D (C)
    x_proj: Tensor
    dt_proj: Tensor

    @classmethod
    def zeros(
        cls, x_forward: Tensor, x_backward: Tensor | None, z: Tensor, sizes: Sizes
    ) -> "_Gradients":
        """What no step at all gives, which has the shapes of all."""
        channels, width = z.shape[-1], sizes.rank + 2 * sizes.states

        def zeros(*size: int) -> Tensor:
            return z.new_zeros(size, dtype=torch.float32)

        return cls(
            like(x_forward),
            z.new_empty(0) if x_backward is None else like(x_backward),
            like(z),
            zeros(2, channels * (sizes.taps + 1)),
            zeros(2, channels * (sizes.states + 2)),
            zeros(2, width, channels),
            zeros(2, channels, sizes.rank),
        )


@Operator("mdtf::triton_inner_backward", DEVICES)
def _backward(
    grad: Tensor,
    x_forward: Tensor,
    x_backward: Tensor | None,
    z: Tensor,
    weights: list[Tensor],
    kept: list[Tensor],
) -> list[Tensor]:
    """_Gradients."""
    forward, backward = split_directions([w.contiguous() for w in weights])
    sizes, shape = sizes_of(forward), Shape.of(z)
    grad, x_forward, z = map(dense_channels, (grad, x_forward, z))
    shared = x_backward is None
    x_backward = x_forward if x_backward is None else dense_channels(x_backward)
    if not z.numel():
        return [*_Gradients.zeros(x_forward, None if shared else x_backward, z, sizes)]
    by_x_forward, by_z = like(x_forward), like(z)
    by_x_backward = None if shared else like(x_backward)
    room, channels = _Kept(*kept), shape.channels
    blocks = launch.backward_blocks(channels)
    by_u = torch.empty_like(room.u)
    by_wide = z.new_empty(2, shape.tokens, channels + blocks * 2 * sizes.states)
    with launch.device_of(z):
        by_scan = launch.scan_backward(*room, z, grad, by_u, by_wide, by_z, forward, backward)
        by_u, by_x_proj, by_dt_proj = _through_projections(
            by_u, by_wide, room.u, forward, backward, sizes
        )
        by_conv = launch.conv_backward(
            x_forward, x_backward, by_u, by_x_forward, by_x_backward, forward, backward
        )
    other = z.new_empty(0) if by_x_backward is None else by_x_backward
    return [*_Gradients(by_x_forward, other, by_z, by_conv, by_scan, by_x_proj, by_dt_proj)]


def _through_projections(
    by_u: Tensor,
    by_wide: Tensor,
    u: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
    sizes: Sizes,
) -> tuple[Tensor, Tensor, Tensor]:
    """The whole gradient of u, and those of x_proj and dt_proj.

    by_wide (2, tokens, C + blocks · 2 N): the gradient of dt_proj's output, and each block's part
    of those of B and C. All of them reach u in one product, so nobody sums the parts; and
    dt = x_proj_dt u, so that dt_proj's gradient follows from by_wide^T u, too.
    """
    rank, channels = sizes.rank, u.shape[-1]
    x_proj = _x_proj(forward, backward).float()
    dt_proj = torch.stack((forward.dt_proj, backward.dt_proj)).float()
    of_dt, of_B_and_C = x_proj[:, :rank], x_proj[:, rank:]
    blocks = (by_wide.shape[-1] - channels) // (2 * sizes.states)
    wide = torch.cat((torch.bmm(dt_proj, of_dt), *[of_B_and_C] * blocks), 1).to(u.dtype)
    by_u = torch.baddbmm(by_u, by_wide, wide)
    product = torch.bmm(by_wide.transpose(1, 2), u).float()
    by_raw = product[:, :channels]
    by_x_proj = torch.cat(
        (
            torch.bmm(dt_proj.transpose(1, 2), by_raw),
            product[:, channels:].view(2, blocks, 2 * sizes.states, channels).sum(1),
        ),
        1,
    )
    return by_u, by_x_proj, torch.bmm(by_raw, of_dt.transpose(1, 2))


@_backward.register_fake
def _(
    grad: Tensor,
    x_forward: Tensor,
    x_backward: Tensor | None,
    z: Tensor,
    weights: list[Tensor],
    kept: list[Tensor],
) -> list[Tensor]:
    forward, _ = split_directions(weights)
    return [*_Gradients.zeros(x_forward, x_backward, z, sizes_of(forward))]


def _context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x_forward, x_backward, z, weights, keep = inputs
    ctx.save_for_backward(x_forward, x_backward, z, *output[1:], *weights)
    ctx.kept = keep
    ctx.set_materialize_grads(False)  # no zeros for what is kept, which has no gradient


def _autograd(ctx: Any, grad: Tensor | None, *_: None) -> tuple[Any, ...]:
    if not ctx.kept:
        raise RuntimeError("the scan ran without keeping the states that its backward needs")
    if grad is None:
        return (None,) * 5
    x_forward, x_backward, z, *rest = ctx.saved_tensors
    kept, weights = rest[: len(_Kept._fields)], rest[len(_Kept._fields) :]
    by = _Gradients(
        *torch.ops.mdtf.triton_inner_backward(grad, x_forward, x_backward, z, weights, kept)
    )
    by_weights = [
        gradient.view(weight.shape).to(weight.dtype)
        for number, direction in enumerate(split_directions(weights))
        for gradient, weight in zip(_of_direction(by, number, direction), direction, strict=True)
    ]
    by_x_backward = None if x_backward is None else by.x_backward
    return by.x_forward, by_x_backward, by.z, by_weights, None


def _of_direction(by: _Gradients, number: int, weights: DirectionWeights) -> DirectionWeights:
    """Views: nothing is copied for each weight."""
    conv_weight, conv_bias = by.conv[number].split(
        [weights.conv_weight.numel(), weights.conv_bias.numel()]
    )
    A_log, dt_bias, D = by.scan[number].split(
        [weights.A_log.numel(), weights.dt_bias.numel(), weights.D.numel()]
    )
    x_proj, dt_proj = by.x_proj[number], by.dt_proj[number]
    return DirectionWeights(conv_weight, conv_bias, x_proj, dt_proj, dt_bias, A_log, D)


_forward.register_autograd(_autograd, setup_context=_context)
_backward.register_autograd(no_second_derivative)


# --- the function ---------------------------------------------------------------------------------
def inner(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """`reference.inner` by the Triton kernels."""
    operator = torch.ops.mdtf.triton_inner_forward
    return call_inner(operator, x_forward, x_backward, z, forward, backward)
