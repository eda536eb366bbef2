"""A residual block as ONNX nodes, with one Scan for both directions.

Made for ONNX Runtime on a CPU. The Scan's body takes a step's x and does all that depends on it:
convolution, SiLU, projections, softplus, state, output. A step's tensors stay in the cache, so
a further node there costs less than one more pass over all steps.
Inside a block the scanned axis is the first one: x is (L, 1, rows, C). Shapes in the Scan: `2`
directions, R rows, N states, C channels.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from model.export.nodes import Nodes, Operand, number, polynomial
from model.ops.weights import BlockWeights, DirectionWeights, GraphWeights, Settings

# atanh(s) / s as a polynomial in s², highest power first, for 0 <= s <= 1/3; relative error 1.6e-7
# (minimax). log1p(e) = 2 atanh(e / (2 + e)).
ATANH = (0.1711302592966517, 0.19794731362677095, 0.33338001352812247, 0.99999983545055)
TO_FIRST = {-3: (1, 0, 2, 3), -2: (2, 0, 1, 3)}  # scanned axis -> (B, T, J, C) with it in front
FROM_FIRST = {-3: (1, 0, 2, 3), -2: (1, 2, 0, 3)}


class Zeros:
    """The Scans' first states, made at run time: stored ones would fix the number of rows."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[str, str]] = {}

    def of(self, nodes: Nodes, x: str, axis: int, states: int, channels: int) -> tuple[str, str]:
        """The state (2, R, N, C) of zeros, and the shape (2, R, C); x: (L, 1, R, C)."""
        key = axis, states, channels
        if key not in self._known:
            rows, two = nodes("Shape", x, start=2, end=3), [2]
            channel = [channels]
            shape = nodes("Concat", two, rows, [states], channel, axis=0)
            state = nodes("ConstantOfShape", shape)
            self._known[key] = state, nodes("Concat", two, rows, channel, axis=0)
        return self._known[key]


def write_block(
    nodes: Nodes, x: str, weights: BlockWeights, settings: Settings, others: int, zeros: Zeros
) -> str:
    """The nodes of reference.residual_block(): (B, T, J, C) -> same.

    others: the size of the axis that is not scanned, J or T.
    """
    w = weights
    channels = w.fc2.shape[0]
    x = nodes("Transpose", x, perm=TO_FIRST[settings.axis])
    x = nodes("Reshape", x, [0, 1, -1, channels])
    normed = _norm(nodes, x, w.norm1_weight, w.norm1_bias, settings.norm_eps)
    for_x, for_z = w.in_proj.chunk(2)
    inner, z = _linear(nodes, normed, for_x), _linear(nodes, normed, for_z)
    read = [inner if g is None else _graph(nodes, inner, g, w, settings) for g in w.graphs]
    y = _scan(nodes, read, w.forward, w.backward, settings.axis, zeros)
    y = nodes("Mul", y, _silu(nodes, z))
    x = nodes("Add", x, _linear(nodes, y, w.out_proj / 2))  # the mean of both
    normed = _norm(nodes, x, w.norm2_weight, w.norm2_bias, settings.norm_eps)
    hidden = nodes("Gelu", _linear(nodes, normed, w.fc1, w.fc1_bias))
    x = nodes("Add", x, _linear(nodes, hidden, w.fc2, w.fc2_bias))
    if w.last_weight is not None and w.last_bias is not None:
        x = _norm(nodes, x, w.last_weight, w.last_bias, settings.last_eps)
    x = nodes("Reshape", x, [0, -1, others, channels])
    return nodes("Transpose", x, perm=FROM_FIRST[settings.axis])


def _norm(nodes: Nodes, x: str, weight: Tensor, bias: Tensor, eps: float) -> str:
    return nodes("LayerNormalization", x, weight, bias, axis=-1, epsilon=eps)


def _linear(nodes: Nodes, x: str, weight: Tensor, bias: Tensor | None = None) -> str:
    y = nodes("MatMul", x, weight.T)
    return y if bias is None else nodes("Add", y, bias)


def _silu(nodes: Nodes, x: str) -> str:
    return nodes("Mul", x, nodes("Sigmoid", x))


def _softplus(nodes: Nodes, x: str) -> str:
    """max(x, 0) + log1p(exp(-|x|)), by a polynomial: Runtime's Softplus takes twice as long."""
    e = nodes("Exp", nodes("Neg", nodes("Abs", x)))
    s = nodes("Div", e, nodes("Add", e, number(2)))
    twice = tuple(2 * coefficient for coefficient in ATANH)
    log1p = nodes("Mul", s, polynomial(nodes, nodes("Mul", s, s), twice))
    return nodes("Add", nodes("Relu", x), log1p)


def _graph(
    nodes: Nodes, x: str, graph: GraphWeights, block: BlockWeights, settings: Settings
) -> str:
    """The nodes of reference.graph_input(); x: (J, 1, R, C), BatchNorm's running statistics."""
    g, adjacency = graph, block.adjacency
    assert adjacency is not None  # for the type
    channels = g.own.shape[0]
    # BatchNorm is an affine function of each joint: it goes into Â, into a factor and a constant.
    scale = g.bn_weight / torch.sqrt(g.bn_var + settings.graph_eps)  # (J,)
    shift = g.bn_bias - scale * g.bn_mean
    constant = scale[:, None] * (adjacency.sum(1)[:, None] * g.neighbours_bias + g.own_bias)
    constant = (constant + shift[:, None])[:, None, None, :]  # (J, 1, 1, C)
    normed = _norm(nodes, x, g.norm_weight, g.norm_bias, settings.graph_eps)
    near = nodes("Reshape", _linear(nodes, normed, g.neighbours), [0, -1])
    near = nodes("MatMul", scale[:, None] * adjacency, near)
    near = nodes("Reshape", near, [0, 1, -1, channels])
    own = nodes("Mul", _linear(nodes, normed, g.own), scale[:, None, None, None])
    mixed = nodes("Add", nodes("Add", own, near), constant)
    return nodes("Relu", nodes("Add", normed, mixed))


class _Both(NamedTuple):
    """The weights of both directions, stacked and laid out for the Scan."""

    taps: list[Tensor]  # K of (2, 1, C), the first for the step itself
    conv_bias: Tensor  # (2, 1, C)
    x_proj: Tensor  # (2, C, rank + 2N)
    dt_proj: Tensor  # (2, rank, C)
    dt_bias: Tensor  # (2, 1, C)
    A: Tensor  # (2, 1, N, C)
    D: Tensor  # (2, 1, C)

    @classmethod
    def of(cls, forward: DirectionWeights, backward: DirectionWeights) -> "_Both":
        w = DirectionWeights(*(torch.stack(pair) for pair in zip(forward, backward, strict=True)))
        conv = w.conv_weight[:, :, 0]  # (2, C, K)
        return cls(
            taps=[conv[:, None, :, k] for k in reversed(range(conv.shape[-1]))],
            conv_bias=w.conv_bias[:, None],
            x_proj=w.x_proj.transpose(1, 2),
            dt_proj=w.dt_proj.transpose(1, 2),
            dt_bias=w.dt_bias[:, None],
            A=-torch.exp(w.A_log.transpose(1, 2))[:, None],
            D=w.D[:, None],
        )


def _scan(
    nodes: Nodes,
    read: list[str],
    forward: DirectionWeights,
    backward: DirectionWeights,
    axis: int,
    zeros: Zeros,
) -> str:
    """The sum of both directions before the gate; read: what each reads, (L, 1, R, C) -> same."""
    w = _Both.of(forward, backward)
    states, channels = w.A.shape[2:]
    h0, shape = zeros.of(nodes, read[0], axis, states, channels)
    bias = nodes("Expand", w.conv_bias, shape)
    later = len(w.taps) - 1
    step = Nodes(f"{nodes.prefix}/step", nodes.constants)
    x_forward, x_backward, h = (f"{step.prefix}/{n}" for n in ("x_forward", "x_backward", "h"))
    coming = [f"{step.prefix}/coming_{k}" for k in range(later)]
    kept, outputs = _step(step, w, x_forward, x_backward, h, coming)
    body = step.body(
        {h: 4, **dict.fromkeys(coming, 3), x_forward: 3, x_backward: 3},
        {kept[0]: 4, **dict.fromkeys(kept[1:], 3), **dict.fromkeys(outputs, 3)},
    )
    results = nodes.call(
        "Scan",
        h0,
        *[bias] * later,
        *read,
        count=len(kept) + 2,
        body=body,
        num_scan_inputs=2,
        scan_input_directions=[0, 1],
        scan_output_directions=[0, 1],
    )
    return nodes("Add", *results[-2:])


def _step(
    nodes: Nodes, w: _Both, x_forward: str, x_backward: str, h: str, coming: list[str]
) -> tuple[list[str], list[str]]:
    """One step of both directions, each with an x of its own, (1, R, C).

    coming: what earlier steps add to the convolution at this step and at the following ones.
    Returns the new h and coming, and the output of each direction (1, R, C).
    """
    x = nodes("Concat", x_forward, x_backward, axis=0)  # (2, R, C)
    parts = [nodes("Mul", x, tap) for tap in w.taps]
    there: list[Operand] = [*coming, w.conv_bias]
    sums = [nodes("Add", part, before) for part, before in zip(parts, there, strict=True)]
    x = _silu(nodes, sums[0])
    rank, states = w.dt_proj.shape[1], w.A.shape[2]
    sizes = [rank, states, states]
    dt, B, C = nodes.call("Split", nodes("MatMul", x, w.x_proj), sizes, count=3, axis=2)
    delta = nodes("Add", nodes("MatMul", dt, w.dt_proj), w.dt_bias)
    delta = _softplus(nodes, delta)  # (2, R, C)
    before_c, last = (2,), (3,)
    decay = nodes("Exp", nodes("Mul", nodes("Unsqueeze", delta, before_c), w.A))
    new = nodes("Unsqueeze", nodes("Mul", delta, x), before_c)
    new = nodes("Mul", new, nodes("Unsqueeze", B, last))  # (2, R, N, C)
    h = nodes("Add", nodes("Mul", decay, h), new)
    y = nodes("MatMul", nodes("Unsqueeze", C, before_c), h)  # (2, R, 1, C)
    y = nodes("Add", nodes("Squeeze", y, before_c), nodes("Mul", x, w.D))
    outputs = nodes.call("Split", y, count=2, axis=0, num_outputs=2)
    return [h, *sums[1:]], outputs
