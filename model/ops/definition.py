"""The selective scan and the bidirectional Mamba inner block, as one reads them in the paper.

Everything faster in this package has the same signatures and is tested against these functions.
Source: Gu & Dao 2023, algorithm 2 (S6), with its simplified discretisation of B.

Shapes: `...` any batch dimensions, L steps, C channels, N states, R rank of dt, K taps.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class DirectionWeights(NamedTuple):
    """The weights of one direction of a bidirectional Mamba mixer."""

    conv_weight: Tensor  # (C, 1, K)
    conv_bias: Tensor  # (C,)
    x_proj: Tensor  # (R + 2N, C): rows give dt, B and C, in this order
    dt_proj: Tensor  # (C, R)
    dt_bias: Tensor  # (C,)
    A: Tensor  # (C, N), negative: -exp(A_log)
    D: Tensor  # (C,)


def scan_sequential(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    reverse: bool = False,
) -> Tensor:
    """h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t;  y_t = C_t . h_t + D u_t.

    u, delta: (..., L, C); A: (C, N); B, C: (..., L, N); D: (C,). Returns (..., L, C).
    `reverse` runs from the last step to the first.
    """
    # unbind, not indexing: the gradient of x[t] is a whole zero tensor but for one step, so
    # autograd's backward of L indexings costs L^2.
    steps = list(zip(u.unbind(-2), delta.unbind(-2), B.unbind(-2), C.unbind(-2), strict=True))
    if not steps:
        return u + D  # no step: empty, of the right shape
    state = u.new_zeros(*u.shape[:-2], *A.shape)  # (..., C, N)
    outputs = []
    for u_t, delta_t, B_t, C_t in reversed(steps) if reverse else steps:
        decay = torch.exp(delta_t[..., None] * A)
        state = decay * state + (delta_t * u_t)[..., None] * B_t[..., None, :]
        outputs.append((state * C_t[..., None, :]).sum(-1))
    if reverse:
        outputs.reverse()
    return torch.stack(outputs, -2) + D * u


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, *, reverse: bool = False) -> Tensor:
    """Depthwise convolution in which a step sees itself and the K - 1 steps before it.

    x: (..., L, C); weight: (C, 1, K); bias: (C,). Returns (..., L, C).
    With `reverse`, a step sees the K - 1 steps after it: flip(conv(flip(x))), without the flips.
    """
    steps, taps = x.shape[-2], weight.shape[-1]
    padded = F.pad(x, (0, 0, 0, taps - 1) if reverse else (0, 0, taps - 1, 0))
    out = bias
    for k in range(taps):
        tap = taps - 1 - k if reverse else k
        out = out + padded[..., k : k + steps, :] * weight[:, 0, tap]
    return out


def direction_output(
    x: Tensor, weights: DirectionWeights, *, reverse: bool, scan: Callable[..., Tensor]
) -> Tensor:
    """One direction, before its gate: conv, SiLU, input-dependent dt, B and C, scan.

    x: (..., L, C) -> (..., L, C).
    """
    rank, states = weights.dt_proj.shape[1], weights.A.shape[1]
    x = F.silu(causal_conv(x, weights.conv_weight, weights.conv_bias, reverse=reverse))
    dt, B, C = F.linear(x, weights.x_proj).split([rank, states, states], dim=-1)
    delta = F.softplus(F.linear(dt, weights.dt_proj, weights.dt_bias))
    return scan(x, delta, weights.A, B, C, weights.D, reverse=reverse)


def inner_composed(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
    scan: Callable[..., Tensor] = scan_sequential,
) -> Tensor:
    """Both directions, averaged and gated: 0.5 (y_f + y_b) SiLU(z), all (..., L, C)."""
    y_forward = direction_output(x_forward, forward, reverse=False, scan=scan)
    y_backward = direction_output(x_backward, backward, reverse=True, scan=scan)
    return 0.5 * (y_forward + y_backward) * F.silu(z)
