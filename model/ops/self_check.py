"""Are the compiled kernels right? Small cases of each, run once before any is used."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

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


class Case(NamedTuple):
    """A kernel and its definition, as functions of the same tensors."""

    name: str
    kernel: Callable[..., Tensor]
    definition: Callable[..., Tensor]
    inputs: dict[str, Tensor]
    differentiable: bool = True


def self_check() -> float:
    """The largest error of outputs and gradients, relative to each one's maximum; NaN where a
    kernel does not carry on a NaN as its definition does."""
    with torch.inference_mode(False), torch.enable_grad():  # the caller may be in either
        if any(swallowed(case, float("nan")) for case in cases(length=3)):
            return float("nan")
        return max(error(case) for case in cases(length=21))  # 21: not whole chunks


def cases(length: int) -> list[Case]:
    """Each kernel on small inputs. length: of the sequences of those without joints."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) - 0.5

    def direction(channels: int) -> DirectionWeights:
        return DirectionWeights(
            draw(channels, 1, TAPS), draw(channels), draw(RANK + 2 * STATES, channels),
            draw(channels, RANK), draw(channels) - 2, -4 * draw(channels, STATES).abs(),
            draw(channels),
        )  # fmt: skip

    odd = 12  # not whole vectors
    x, z = draw(2, length, odd), draw(2, length, odd)
    A, D = -4 * draw(odd, STATES).abs(), draw(odd)
    B, C = draw(2, length, STATES), draw(2, length, STATES)
    inner = {"x": x, "z": z} | _named("forward", direction(odd))
    inner |= _named("backward", direction(odd))
    scan = {"u": x, "delta": z.abs(), "A": A, "B": B, "C": C, "D": D}
    found = [
        Case("inner", _inner(inner_native), _inner(inner_composed), inner),
        Case("scan", scan_native, scan_sequential, scan),
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
    weights = _named("block", block) | _named("forward", direction(c))
    weights |= _named("backward", direction(c)) | _named("graph", graph)
    last = {"last_norm.weight": 1 + draw(c), "last_norm.bias": draw(c)}
    settings = dict.fromkeys(("norm_eps", "last_eps", "graph_eps"), EPS) | {"axis": -2}
    if takes_block(c, h, JOINTS):

        def infer(x: Tensor, *weights: Tensor) -> Tensor:
            *arguments, last = _arguments(list(weights), adjacency)
            return block_forward(x, *arguments, last_norm=last, **settings)

        inputs = {"x": x} | weights | last
        found.append(Case("block", infer, lambda *t: _block(list(t), adjacency), inputs, False))
    if takes_training(c, h, JOINTS):
        mask = (draw(5, 1, 1) > 0).float()

        def train(x: Tensor, *weights: Tensor) -> Tensor:
            *arguments, last = _arguments([*weights[:-2], *graph[-2:], *weights[-2:]], adjacency)
            return block_train(x, *arguments, (mask, None), last_norm=last, **settings)[0]

        learnt = {k: t for k, t in weights.items() if k not in ("graph.bn_mean", "graph.bn_var")}
        for name in ("forward.A", "backward.A"):  # in whose place it takes A_log
            learnt[name] = learnt[name].neg().log()
        inputs = {"x": x} | learnt | last
        places = [list(inputs).index(name) for name in ("forward.A", "backward.A")]

        def definition(*tensors: Tensor) -> Tensor:
            decays = (-t.exp() if i in places else t for i, t in enumerate(tensors))
            return _block(list(decays), adjacency, mask)

        found.append(Case("training", train, definition, inputs))
    return found


def _named(name: str, weights: NamedTuple) -> dict[str, Tensor]:
    return {f"{name}.{field}": tensor for field, tensor in weights._asdict().items()}


def _results(
    case: Case, function: Callable[..., Tensor], dtype: torch.dtype, inputs: Sequence[Tensor]
) -> list[Tensor]:
    """The output and the derivatives by all inputs of half the sum of its squares' finite part."""
    if not case.differentiable:
        with torch.no_grad():
            return [function(*(t.to(dtype) for t in inputs))]
    leaves = [t.to(dtype).requires_grad_() for t in inputs]
    out = function(*leaves)
    cotangent = out.detach().nan_to_num(1.0, 1.0, 1.0)
    return [out.detach(), *torch.autograd.grad(out, leaves, cotangent)]


def error(case: Case) -> float:
    """Of the output and of the derivatives by all inputs, against the definition in float64."""
    inputs = list(case.inputs.values())
    found = _results(case, case.kernel, torch.float32, inputs)
    exact = _results(case, case.definition, torch.float64, inputs)
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, exact, strict=True)
    )


def swallowed(case: Case, value: float) -> list[str]:
    """Which inputs, with `value` (NaN or infinity) in one place, leave another set of places in
    the output or the derivatives not finite than the definition does."""
    wrong = []
    for number, (name, tensor) in enumerate(case.inputs.items()):
        inputs = list(case.inputs.values())
        inputs[number] = tensor.clone()
        inputs[number].view(-1)[tensor.numel() // 3] = value
        found = _results(case, case.kernel, torch.float32, inputs)
        expected = _results(case, case.definition, torch.float32, inputs)
        if any(
            not torch.equal(a.isfinite(), b.isfinite())
            for a, b in zip(found, expected, strict=True)
        ):
            wrong.append(name)
    return wrong


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
    x, *weights = tensors
    if mask is not None:  # no running statistics among the weights
        weights[32:32] = [None, None]
    w, *directions, graph, _, adjacency, last_norm = _arguments(weights, adjacency.to(x.dtype))
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
    y = x + (branch if mask is None else mask.to(x.dtype) * branch)
    hidden = F.gelu(F.linear(_layer_norm(y, w.norm2_weight, w.norm2_bias), w.fc1, w.fc1_bias))
    return _layer_norm(y + F.linear(hidden, w.fc2, w.fc2_bias), *last_norm)


def _layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], weight, bias, EPS)
