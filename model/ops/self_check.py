"""Are the compiled kernels right? Small cases of each, run once before any is used."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops.block import BlockWeights, GraphWeights, block_forward, takes_block
from model.ops.definition import DirectionWeights, inner_composed, scan_sequential
from model.ops.half_block import block_tail, norm_graph, norm_linears, takes_halves
from model.ops.native import inner_native, scan_native

CHANNELS, STATES, RANK, TAPS = 32, 16, 2, 4
JOINTS, HIDDEN = 3, 64
EPS = 1e-5


def self_check() -> float:
    """The largest error of outputs and gradients, relative to each one's maximum."""
    with torch.inference_mode(False), torch.enable_grad():  # the caller may be in either
        return _self_check()


def _self_check() -> float:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) - 0.5

    def direction(channels: int) -> DirectionWeights:
        return DirectionWeights(
            draw(channels, 1, TAPS), draw(channels), draw(RANK + 2 * STATES, channels),
            draw(channels, RANK), draw(channels) - 2, -4 * draw(channels, STATES).abs(),
            draw(channels),
        )  # fmt: skip

    odd, length = 12, 21  # neither whole vectors nor whole chunks
    x, z = draw(2, length, odd), draw(2, length, odd)
    A, D = -4 * draw(odd, STATES).abs(), draw(odd)
    B, C = draw(2, length, STATES), draw(2, length, STATES)
    errors = [
        _error(
            _inner(inner_native), _inner(inner_composed), [x, z, *direction(odd), *direction(odd)]
        ),
        _error(scan_native, scan_sequential, [x, z.abs(), A, B, C, D]),
    ]

    c, h = CHANNELS, HIDDEN
    x, inner = draw(5, JOINTS, c), draw(5, JOINTS, c)
    norm = [1 + draw(c), draw(c)]
    in_proj, linears = draw(2 * c, c), [draw(c, c), draw(c, c), draw(c), draw(c)]
    tail = [draw(c, c), 1 + draw(c), draw(c), draw(h, c), draw(h), draw(c, h), draw(c)]
    adjacency = torch.eye(JOINTS).flip(0) / 2 + 0.25
    mask = (draw(5, 1, 1) > 0).float()
    if takes_halves(c, h, JOINTS):
        errors += [
            _error(_both(norm_linears, EPS), _both(_norm_linears, EPS), [x, *norm, *linears[:2]]),
            _error(
                _both(norm_graph, adjacency, EPS),
                _both(_norm_graph, adjacency, EPS),
                [x, *norm, *linears],
            ),
            _error(
                lambda x, inner, *w: block_tail(x, inner, mask, None, w, EPS),
                lambda x, inner, *w: _tail(x, inner, mask, w),
                [x, inner, *tail],
            ),
        ]
    if takes_block(c, h, JOINTS):
        weights = BlockWeights(*norm, in_proj, tail[0], *tail[1:])
        statistics = [1 + draw(JOINTS), draw(JOINTS), draw(JOINTS), 1 + draw(JOINTS)]
        graph = GraphWeights(*norm, linears[1], linears[3], linears[0], linears[2], *statistics)
        both = direction(c), direction(c)
        found = block_forward(
            x, weights, *both, graph, graph, adjacency,
            axis=-2, norm_eps=EPS, last_norm=tuple(norm), last_eps=EPS, graph_eps=EPS,
        )  # fmt: skip
        exact = _block(x, weights, both, graph, adjacency)
        errors.append(_difference(found, _layer_norm(exact, *(w.double() for w in norm))))
    return max(errors)


def _difference(found: Tensor, exact: Tensor) -> float:
    return ((found - exact).abs().max() / exact.abs().max()).item()


def _error(
    kernel: Callable[..., Tensor], definition: Callable[..., Tensor], inputs: list[Tensor]
) -> float:
    """Of the output and of the derivatives by all inputs; the definition in float64."""
    results = []
    for function, dtype in ((kernel, torch.float32), (definition, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in inputs]
        out = function(*leaves)
        results.append([out.detach(), *torch.autograd.grad(out, leaves, out.detach())])
    return max(_difference(a, b) for a, b in zip(*results, strict=True))


# --- the definitions, of any dtype ----------------------------------------------------------------
def _inner(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda x, z, *w: function(x, x, z, DirectionWeights(*w[:7]), DirectionWeights(*w[7:]))


def _both(function: Callable[..., tuple[Tensor, Tensor]], *more) -> Callable[..., Tensor]:
    return lambda *tensors: torch.cat(function(*tensors, *more), -1)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPS)


def _norm_linears(x, weight, bias, first, second, _eps):
    normed = _layer_norm(x, weight, bias)
    return F.linear(normed, first), F.linear(normed, second)


def _norm_graph(x, weight, bias, neighbours, own, neighbours_bias, own_bias, adjacency, _eps):
    normed = _layer_norm(x, weight, bias)
    mixed = adjacency.to(x) @ F.linear(normed, neighbours, neighbours_bias)
    return normed, mixed + F.linear(normed, own, own_bias)


def _tail(x, inner, mask, weights):
    out_proj, norm_weight, norm_bias, fc1, fc1_bias, fc2, fc2_bias = weights
    y = x + mask.to(x) * F.linear(inner, out_proj)
    hidden = F.gelu(F.linear(_layer_norm(y, norm_weight, norm_bias), fc1, fc1_bias))
    return y + F.linear(hidden, fc2, fc2_bias)


def _block(x, weights, directions, graph, adjacency):
    x, weights = x.double(), [w.double() for w in weights]
    graph = GraphWeights(*(w.double() for w in graph))
    in_proj = weights[2].chunk(2)
    inner_x, z = _norm_linears(x, *weights[:2], *in_proj, EPS)
    linears = graph.neighbours, graph.own, graph.neighbours_bias, graph.own_bias
    normed, mixed = _norm_graph(
        inner_x, graph.norm_weight, graph.norm_bias, *linears, adjacency, EPS
    )
    inputs = []
    for flip in (False, True):  # the backward direction's statistics are of reversed joints
        mean, var, weight, bias = (
            (s.flip(0) if flip else s)[:, None]
            for s in (graph.bn_mean, graph.bn_var, graph.bn_weight, graph.bn_bias)
        )
        inputs.append(F.relu(normed + (mixed - mean) / (var + EPS).sqrt() * weight + bias))
    both = [DirectionWeights(*(w.double() for w in d)) for d in directions]
    inner = inner_composed(*inputs, z, *both)
    return _tail(x, inner, torch.ones(1), weights[3:])
