"""The selective scan, the bidirectional Mamba inner block and the residual block around it, written
as in the paper: plain functions of tensors of any dtype.

Everything faster in this package is tested against these functions.
Source: Gu & Dao 2023, algorithm 2 (S6), with its simplified discretisation of B.

Shapes: `...` any batch dimensions, L steps, C channels, N states, R rank of dt, K taps.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops.statistics import GraphStatistics, Statistics, joint_norm
from model.ops.weights import BlockWeights, DirectionWeights, GraphWeights, Masks, Settings

Inner = Callable[[Tensor, Tensor, Tensor, DirectionWeights, DirectionWeights], Tensor]


def scan(
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


def direction(
    x: Tensor, weights: DirectionWeights, *, reverse: bool, scan: Callable[..., Tensor] = scan
) -> Tensor:
    """One direction, before its gate: conv, SiLU, input-dependent dt, B and C, scan.

    x: (..., L, C) -> (..., L, C).
    """
    rank, states = weights.dt_proj.shape[1], weights.A_log.shape[1]
    x = F.silu(causal_conv(x, weights.conv_weight, weights.conv_bias, reverse=reverse))
    dt, B, C = F.linear(x, weights.x_proj).split([rank, states, states], dim=-1)
    delta = F.softplus(F.linear(dt, weights.dt_proj, weights.dt_bias))
    return scan(x, delta, -torch.exp(weights.A_log), B, C, weights.D, reverse=reverse)


def inner(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
    scan: Callable[..., Tensor] = scan,
) -> Tensor:
    """Both directions, averaged and gated: 0.5 (y_f + y_b) SiLU(z), all (..., L, C)."""
    y_forward = direction(x_forward, forward, reverse=False, scan=scan)
    y_backward = direction(x_backward, backward, reverse=True, scan=scan)
    return 0.5 * (y_forward + y_backward) * F.silu(z)


def graph_input(
    x: Tensor, weights: GraphWeights, adjacency: Tensor, eps: float, *, batch_statistics: bool
) -> tuple[Tensor, Statistics | None]:
    """What a direction with a graph reads: n = LN(x), then relu(n + BN(Â V n + U n)).

    x: (..., J, C) -> (..., J, C), and the statistics if BatchNorm took the batch's.
    """
    normed = F.layer_norm(x, x.shape[-1:], weights.norm_weight, weights.norm_bias, eps)
    normed = normed.flatten(0, -3)
    # V and U in one product: the input is read once.
    both = torch.cat((weights.neighbours, weights.own))
    bias = torch.cat((weights.neighbours_bias, weights.own_bias))
    neighbours, own = F.linear(normed, both, bias).chunk(2, dim=-1)
    mixed = torch.baddbmm(own, adjacency.to(own.dtype).expand(own.shape[0], -1, -1), neighbours)
    running = None if batch_statistics else Statistics(weights.bn_mean, weights.bn_var, 1)
    mixed, seen = joint_norm(mixed, weights.bn_weight, weights.bn_bias, running, eps)
    return F.relu(normed + mixed).view(x.shape), seen


def residual_block(
    x: Tensor,
    weights: BlockWeights,
    settings: Settings,
    masks: Masks = (None, None),
    *,
    batch_statistics: bool = False,
    inner: Inner = inner,
) -> tuple[Tensor, GraphStatistics]:
    """x + m1 mixer(LN(x)), then x + m2 MLP(LN(x)), then the last LayerNorm if there is one.

    x: (..., L, C) with L at settings.axis -> same. batch_statistics: BatchNorm normalises with the
    batch, as in training; then the statistics of each direction's graph are returned.
    """
    w, channels = weights, x.shape[-1:]
    normed = F.layer_norm(x, channels, w.norm1_weight, w.norm1_bias, settings.norm_eps)
    # Two products: one of twice the width gives views that LayerNorm and the gradients copy.
    inner_x, z = (F.linear(normed, half) for half in w.in_proj.chunk(2))
    x_forward, seen_forward = _read(inner_x, w.forward_graph, w, settings, batch_statistics)
    x_backward, seen_backward = _read(inner_x, w.backward_graph, w, settings, batch_statistics)
    y = along(inner, settings.axis, x_forward, x_backward, z, w.forward, w.backward)
    x = add_branch(x, F.linear(y, w.out_proj), masks[0])
    normed = F.layer_norm(x, channels, w.norm2_weight, w.norm2_bias, settings.norm_eps)
    hidden = F.gelu(F.linear(normed, w.fc1, w.fc1_bias))
    x = add_branch(x, F.linear(hidden, w.fc2, w.fc2_bias), masks[1])
    if w.last_weight is not None:
        x = F.layer_norm(x, channels, w.last_weight, w.last_bias, settings.last_eps)
    return x, (seen_forward, seen_backward)


def _read(
    x: Tensor,
    graph: GraphWeights | None,
    weights: BlockWeights,
    settings: Settings,
    batch_statistics: bool,
) -> tuple[Tensor, Statistics | None]:
    """What a direction reads: x itself where it has no graph."""
    if graph is None or weights.adjacency is None:
        return x, None
    eps = settings.graph_eps
    return graph_input(x, graph, weights.adjacency, eps, batch_statistics=batch_statistics)


def add_branch(x: Tensor, branch: Tensor, mask: Tensor | None) -> Tensor:
    """x + mask * branch, in one pass over memory."""
    return x + branch if mask is None else torch.addcmul(x, branch, mask)


def along(
    inner: Inner,
    axis: int,
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """`inner` of tensors with L at `axis`. If both directions read one tensor, it stays one, with
    one gradient."""
    first, gate = x_forward.transpose(axis, -2), z.transpose(axis, -2)
    other = first if x_backward is x_forward else x_backward.transpose(axis, -2)
    return inner(first, other, gate, forward, backward).transpose(axis, -2)
