"""Whether a backend computes what reference.py defines; asked by tests and before kernels run.

The cases are small inner blocks and residual blocks. Outputs and gradients are compared with the
definition in float64. A NaN in any input or weight must reach the same places as in the definition.
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
    split_directions,
    unflat,
)

TOLERANCE = 1e-4  # of each result's maximum
SETTINGS = Settings(norm_eps=1e-3, last_eps=1e-2, graph_eps=1e-5)
Function = Callable[..., Tensor]


class Case(NamedTuple):
    """A function of a backend and its definition, which take the same inputs."""

    name: str
    function: Function
    definition: Function
    inputs: dict[str, Tensor]
    learnt: frozenset[str]  # the inputs that have a gradient


ODD = Sizes(channels=12, states=16, rank=2, taps=4)  # not whole vectors


def check(
    backend: Backend,
    device: torch.device | str = "cpu",
    sizes: Sizes = ODD,
    lengths: tuple[int, int] = (21, 2),
) -> str | None:
    """What is wrong with a backend, in one line, or None.

    sizes: those of the inner block; lengths: its steps, for the results and for NaN.
    """
    long, short = lengths
    with torch.inference_mode(False), torch.enable_grad():  # whatever the caller's mode is
        for case in cases(backend, long, 3, device, sizes):
            found = error(case)
            if not found < TOLERANCE:
                return f"its self-check of {case.name} is off by {found:.1e}"
        for case in cases(backend, short, 2, device, sizes):
            for name in swallowed(case, math.nan):
                return f"its self-check of {case.name} loses a NaN in {name}"
    return None


# --- results --------------------------------------------------------------------------------------
def error(case: Case) -> float:
    """The largest error of the results, each relative to its maximum in the float64 definition."""
    found = results(case, case.function, torch.float32, case.inputs)
    exact = results(case, case.definition, torch.float64, case.inputs)
    return max(
        ((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, exact, strict=True)
    )


def swallowed(case: Case, value: float) -> Iterator[str]:
    """Put `value` (NaN or infinity) into one place of each input. Yields the inputs after which
    other places of the results are not finite than in the definition."""
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
    """The output, and the gradients of the learnt inputs."""
    leaves = {name: t.to(dtype).requires_grad_(name in case.learnt) for name, t in inputs.items()}
    with torch.set_grad_enabled(bool(case.learnt)):
        out = function(*leaves.values())
    if not case.learnt:
        return [out]
    # Not the output itself: after a LayerNorm, its gradients would be zero.
    cotangent = case.inputs["x"].to(dtype)
    learnt = [leaf for leaf in leaves.values() if leaf.requires_grad]
    return [out.detach(), *torch.autograd.grad(out, learnt, cotangent)]


# --- cases ----------------------------------------------------------------------------------------
def draw_weights(
    kind: type[Weights], sizes: Sizes, generator: torch.Generator, prefix: str = ""
) -> dict[str, Tensor]:
    """Random float64 weights by name; none has a neutral value, such as a factor of 1."""
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


def cases(
    backend: Backend,
    length: int,
    joints: int = 3,
    device: torch.device | str = "cpu",
    inner_sizes: Sizes = ODD,
) -> Iterator[Case]:
    """The inner block, and, if the backend has it, the residual block for inference and training.

    length: steps of the inner block's sequences; 21 steps are not whole chunks.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5

    size = (2, length, inner_sizes.channels)
    inputs = {"x": draw(*size), "z": draw(*size)}
    inputs |= draw_weights(DirectionWeights, inner_sizes, generator, "forward.")
    inputs |= draw_weights(DirectionWeights, inner_sizes, generator, "backward.")
    inputs = {name: t.to(device) for name, t in inputs.items()}
    of_backend, of_reference = (
        functools.partial(run_inner, f) for f in (backend.inner, reference.inner)
    )
    yield Case("the inner block", of_backend, of_reference, inputs, frozenset(inputs))

    sizes = Sizes(channels=32, states=16, rank=2, taps=4, hidden=64, joints=joints)
    inputs = {"x": draw(5, sizes.joints, sizes.channels)}
    inputs |= draw_weights(BlockWeights, sizes, generator)
    mask = (draw(5, 1, 1) > 0).float().to(device)
    inputs = {name: t.to(device) for name, t in inputs.items()}
    learnt = {"x", *(leaf.name for leaf in LEAVES[BlockWeights] if leaf.is_learnt)}
    with torch.no_grad():
        tried = (t.float() for t in inputs.values())
        if (
            not callable(backend.block)
            or _block(backend.block, (None, None), False, *tried) is None
        ):
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
    return function(x, x, z, *split_directions(weights))


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
    assert y is not None  # cases() has checked that
    return y
