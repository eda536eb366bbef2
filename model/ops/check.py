"""Does a backend compute what reference.py says? Run before the kernels are used, and by the tests.

Small cases of the inner block and the residual block: outputs and gradients against the definition
in float64, and one NaN in each input and weight in turn, which must reach the same places.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

import model.ops.reference as reference
from model.ops.backend import Backend
from model.ops.weights import (
    LEAVES,
    BlockWeights,
    DirectionWeights,
    Masks,
    Settings,
    Sizes,
    Weights,
    unflat,
)

TOLERANCE = 1e-4  # of each result's maximum
SETTINGS = Settings(norm_eps=1e-3, last_eps=1e-2, graph_eps=1e-5)
Function = Callable[..., Tensor]


class Case(NamedTuple):
    """A backend's function and its definition, of the same tensors."""

    name: str
    function: Function
    definition: Function
    inputs: dict[str, Tensor]
    learnt: frozenset[str]  # the inputs by which there are derivatives


def check(backend: Backend) -> str | None:
    """What is wrong with a backend, in one line, or None."""
    with torch.inference_mode(False), torch.enable_grad():  # the caller may be in either
        for case in cases(backend, length=21):
            found = error(case)
            if not found < TOLERANCE:
                return f"its self-check of {case.name} is off by {found:.1e}"
        for case in cases(backend, length=2, joints=2):
            for name in swallowed(case, math.nan):
                return f"its self-check of {case.name} loses a NaN in {name}"
    return None


# --- results --------------------------------------------------------------------------------------
def error(case: Case) -> float:
    """The largest, relative to each result's maximum; the definition in float64."""
    found = results(case, case.function, torch.float32, case.inputs)
    exact = results(case, case.definition, torch.float64, case.inputs)
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, exact, strict=True)
    )


def swallowed(case: Case, value: float) -> Iterator[str]:
    """The inputs of which one place with `value` (NaN or infinity) leaves other places of the
    results not finite than in the definition."""
    for name, tensor in case.inputs.items():
        spoilt = tensor.clone()
        spoilt.view(-1)[tensor.numel() // 3] = value
        found, expected = (
            results(case, function, torch.float32, case.inputs | {name: spoilt})
            for function in (case.function, case.definition)
        )
        if not torch.equal(_finite(found), _finite(expected)):
            yield name


def _finite(tensors: list[Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in tensors]).isfinite()


def results(
    case: Case, function: Function, dtype: torch.dtype, inputs: dict[str, Tensor]
) -> list[Tensor]:
    """The output and the derivatives by what is learnt."""
    leaves = {name: t.to(dtype).requires_grad_(name in case.learnt) for name, t in inputs.items()}
    with torch.set_grad_enabled(bool(case.learnt)):
        out = function(*leaves.values())
    if not case.learnt:
        return [out]
    cotangent = case.inputs["x"].to(dtype)  # not the output: through a LayerNorm that gives zeros
    learnt = [leaf for leaf in leaves.values() if leaf.requires_grad]
    return [out.detach(), *torch.autograd.grad(out, learnt, cotangent)]


# --- cases ----------------------------------------------------------------------------------------
def draw_weights(
    kind: type[Weights], sizes: Sizes, generator: torch.Generator, prefix: str = ""
) -> dict[str, Tensor]:
    """Random weights by name, none at a neutral value; float64."""
    drawn = {}
    for leaf in LEAVES[kind]:
        size = sizes.of(leaf.size)
        values = torch.rand(size, generator=generator, dtype=torch.float64) - 0.5
        kind_of_weight = leaf.name.rpartition(".")[2]
        if kind_of_weight == "A_log":
            values = (4 * values.abs()).log()
        elif kind_of_weight == "dt_bias":
            values -= 2
        elif kind_of_weight == "adjacency":
            values = values.abs() + values.abs().T
        elif kind_of_weight == "bn_var" or (kind_of_weight.endswith("weight") and len(size) == 1):
            values += 1
        drawn[prefix + leaf.name] = values
    return drawn


def cases(backend: Backend, length: int, joints: int = 3) -> Iterator[Case]:
    """The inner block; and the residual block for inference and training, where it does that.

    length: of the inner block's sequences; 21 steps are not whole chunks.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5

    odd = Sizes(channels=12, states=16, rank=2, taps=4)  # not whole vectors
    inputs = {"x": draw(2, length, odd.channels), "z": draw(2, length, odd.channels)}
    inputs |= draw_weights(DirectionWeights, odd, generator, "forward.")
    inputs |= draw_weights(DirectionWeights, odd, generator, "backward.")
    of_backend, of_reference = (
        functools.partial(run_inner, f) for f in (backend.inner, reference.inner)
    )
    yield Case("the inner block", of_backend, of_reference, inputs, frozenset(inputs))

    sizes = Sizes(channels=32, states=16, rank=2, taps=4, hidden=64, joints=joints)
    inputs = {"x": draw(5, sizes.joints, sizes.channels)}
    inputs |= draw_weights(BlockWeights, sizes, generator)
    mask = (draw(5, 1, 1) > 0).float()
    learnt = {"x", *(leaf.name for leaf in LEAVES[BlockWeights] if leaf.is_learnt)}
    with torch.no_grad():
        tried = (t.float() for t in inputs.values())
        if _block(backend.block, (None, None), False, *tried) is None:
            return
    for name, masks, training in (
        ("a block at inference", (None, None), False),
        ("a block in training", (mask, None), True),
    ):
        of_backend, of_reference = (
            functools.partial(run_block, f, masks, training)
            for f in (backend.block, reference.residual_block)
        )
        yield Case(name, of_backend, of_reference, inputs, frozenset(learnt if training else ()))


def run_inner(function: reference.Inner, x: Tensor, z: Tensor, *weights: Tensor) -> Tensor:
    """weights: those of the forward direction, then those of the backward one."""
    of_one = len(LEAVES[DirectionWeights])
    forward, backward = (unflat(DirectionWeights, w) for w in (weights[:of_one], weights[of_one:]))
    return function(x, x, z, forward, backward)


def _block(
    function: Callable[..., tuple[Tensor, object] | None],
    masks: Masks,
    batch_statistics: bool,
    x: Tensor,
    *weights: Tensor,
) -> Tensor | None:
    first, second = (m if m is None else m.to(x.dtype) for m in masks)
    block = unflat(BlockWeights, weights)
    found = function(x, block, SETTINGS, (first, second), batch_statistics=batch_statistics)
    return None if found is None else found[0]


def run_block(
    function: Callable[..., tuple[Tensor, object] | None],
    masks: Masks,
    batch_statistics: bool,
    x: Tensor,
    *weights: Tensor,
) -> Tensor:
    y = _block(function, masks, batch_statistics, x, *weights)
    assert y is not None  # cases() has asked
    return y
