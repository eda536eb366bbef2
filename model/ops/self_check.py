"""Are the compiled kernels right? Small cases of each, run once before any is used."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from model.ops.block import BlockWeights, GraphWeights, block_forward, takes_block
from model.ops.definition import DirectionWeights, inner_composed, scan_sequential
from model.ops.native import inner_native, scan_native
from model.ops.train_block import block_train, takes_training

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
    x, adjacency = draw(5, JOINTS, c), torch.eye(JOINTS).flip(0) / 2 + 0.25
    block = BlockWeights(
        1 + draw(c), draw(c), draw(2 * c, c), draw(c, c), 1 + draw(c), draw(c),
        draw(h, c), draw(h), draw(c, h), draw(c),
    )  # fmt: skip
    graph = GraphWeights(
        1 + draw(c), draw(c), draw(c, c), draw(c), draw(c, c), draw(c),
        1 + draw(JOINTS), draw(JOINTS), draw(JOINTS), 1 + draw(JOINTS),
    )  # fmt: skip
    last_norm = (1 + draw(c), draw(c))
    weights = [*block, *direction(c), *direction(c), *graph, *last_norm]
    settings = dict.fromkeys(("norm_eps", "last_eps", "graph_eps"), EPS) | {"axis": -2}
    if takes_block(c, h, JOINTS):
        *arguments, last = _arguments(weights, adjacency)
        found = block_forward(x, *arguments, last_norm=last, **settings)
        errors.append(_difference(found, _block([x, *weights], adjacency)))
    if takes_training(c, h, JOINTS):
        mask = (draw(5, 1, 1) > 0).float()

        def train(x: Tensor, *weights: Tensor) -> Tensor:
            *arguments, last = _arguments([*weights[:-2], *graph[-2:], *weights[-2:]], adjacency)
            arguments[1:3] = (d._replace(A=d.A.neg().log()) for d in arguments[1:3])
            return block_train(x, *arguments, (mask, None), last_norm=last, **settings)[0]

        learnt = [x, *weights[:-4], *last_norm]  # without the running statistics
        errors.append(_error(train, lambda *t: _block(list(t), adjacency, mask), learnt))
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


def _arguments(weights: list[Tensor], adjacency: Tensor) -> tuple:
    """A block's weights in one list, as the kernels take them; both graphs are the same."""
    block, graph = BlockWeights(*weights[:10]), GraphWeights(*weights[24:34])
    directions = DirectionWeights(*weights[10:17]), DirectionWeights(*weights[17:24])
    return block, *directions, graph, graph, adjacency, tuple(weights[34:])


def _block(tensors: list[Tensor], adjacency: Tensor, mask: Tensor | None = None) -> Tensor:
    """With a mask (of the mixer's branch) as in training, with the batch's statistics."""
    x, *weights = (t.double() for t in tensors)
    if mask is not None:  # no running statistics among the weights
        weights[32:32] = [None, None]
    w, *directions, graph, _, adjacency, last_norm = _arguments(weights, adjacency.double())
    normed = _layer_norm(x, w.norm1_weight, w.norm1_bias)
    inner_x, z = F.linear(normed, w.in_proj).chunk(2, -1)
    normed = _layer_norm(inner_x, graph.norm_weight, graph.norm_bias)
    mixed = adjacency @ F.linear(normed, graph.neighbours, graph.neighbours_bias)
    mixed = mixed + F.linear(normed, graph.own, graph.own_bias)
    scanned = []
    for flip in (False, True):  # the backward direction's BatchNorm is of reversed joints
        bn_weight, bn_bias, mean, var = (
            t if t is None else (t.flip(0) if flip else t)[:, None] for t in graph[-4:]
        )
        if mask is not None:
            mean = mixed.mean((0, 2), keepdim=True)
            var = mixed.var((0, 2), correction=0, keepdim=True)
        scanned.append(F.relu(normed + (mixed - mean) / (var + EPS).sqrt() * bn_weight + bn_bias))
    branch = F.linear(inner_composed(*scanned, z, *directions), w.out_proj)
    y = x + (branch if mask is None else mask.double() * branch)
    hidden = F.gelu(F.linear(_layer_norm(y, w.norm2_weight, w.norm2_bias), w.fc1, w.fc1_bias))
    return _layer_norm(y + F.linear(hidden, w.fc2, w.fc2_bias), *last_norm)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPS)
