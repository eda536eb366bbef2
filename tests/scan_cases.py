"""Random inputs for the scan's tests, and how far two results are apart."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from model.ops import DirectionWeights, bidirectional_inner
from model.ops.eager import scan_loop
from model.ops.reference import scan

SCANS = {"sequential": scan, "torch": scan_loop}


def scan_inputs(
    batch: tuple[int, ...], length: int, channels: int, states: int = 16, seed: int = 0
) -> dict[str, Tensor]:
    """u, delta, A, B, C and D of a scan, float64."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return {
        "u": draw(*batch, length, channels),
        "delta": torch.nn.functional.softplus(draw(*batch, length, channels) - 2),
        "A": -draw(channels, states).exp(),
        "B": draw(*batch, length, states),
        "C": draw(*batch, length, states),
        "D": draw(channels),
    }


def inner_inputs(
    batch: tuple[int, ...],
    length: int,
    channels: int,
    states: int = 16,
    rank: int = 2,
    taps: int = 4,
    seed: int = 0,
) -> dict[str, Tensor]:
    """xz (..., L, 2C) and the weights of both directions, by name; float64.

    Every weight's gradient has terms of one sign in the mean, so that none is a small difference
    of large sums, which float32 could not give to 1e-5 of its maximum in any order of summation.
    """
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def direction() -> tuple[Tensor, ...]:
        return (
            draw(channels, 1, taps) / 2,
            draw(channels) / 4,
            draw(rank + 2 * states, channels) / channels**0.5,
            draw(channels, rank) / rank**0.5,
            draw(channels) - 2,
            draw(channels, states),
            1 + draw(channels) / 4,
        )

    named = {"xz": draw(*batch, length, 2 * channels)}
    for prefix in ("forward", "backward"):
        names = (f"{prefix}.{field}" for field in DirectionWeights._fields)
        named |= dict(zip(names, direction(), strict=True))
    return named


def run_inner(
    inputs: dict[str, Tensor], backend: str, *, graph: bool = False, axis: int = -2
) -> Tensor:
    """bidirectional_inner on named inputs. graph: the directions read different tensors.

    axis: the scanned axis of xz, -2 or -3 (then xz is viewed with the two exchanged).
    """
    xz = inputs["xz"] if axis == -2 else inputs["xz"].transpose(-2, -3)
    x, z = xz.chunk(2, dim=-1)
    x_backward = torch.tanh(x) if graph else x
    return bidirectional_inner(x, x_backward, z, *both_directions(inputs), backend=backend)


def both_directions(inputs: dict[str, Tensor]) -> Iterator[DirectionWeights]:
    for name in ("forward", "backward"):
        yield DirectionWeights(*(inputs[f"{name}.{field}"] for field in DirectionWeights._fields))


def run_scan(inputs: dict[str, Tensor], backend: str, *, reverse: bool = False) -> Tensor:
    return SCANS[backend](**inputs, reverse=reverse)


def results(
    function: Callable[..., Tensor],
    inputs: dict[str, Tensor],
    backend: str,
    dtype: torch.dtype,
    **options,
) -> dict[str, Tensor]:
    """The output and every gradient, by name; the cotangent is fixed and random."""
    leaves = {name: t.to(dtype).requires_grad_() for name, t in inputs.items()}
    out = function(leaves, backend, **options)
    g = torch.Generator().manual_seed(99)
    cotangent = torch.rand(out.shape, generator=g, dtype=torch.float64).to(out.device)
    cotangent = cotangent + out.detach().sign()
    gradients = torch.autograd.grad(out, list(leaves.values()), cotangent.to(dtype))
    return {"output": out.detach()} | dict(zip(leaves, gradients, strict=True))


def relative_errors(got: dict[str, Tensor], want: dict[str, Tensor]) -> dict[str, float]:
    """Largest difference over the largest value, of each entry; 0 where both are all zeros."""
    errors = {}
    for name, value in want.items():
        scale = value.abs().max().item() if value.numel() else 0.0
        difference = (got[name].double() - value).abs().max().item() if value.numel() else 0.0
        errors[name] = difference / scale if scale else difference
    return errors


def assert_close(got: dict[str, Tensor], want: dict[str, Tensor], tolerance: float) -> None:
    errors = relative_errors(got, want)
    wrong = {name: f"{error:.1e}" for name, error in errors.items() if not error <= tolerance}
    assert not wrong, f"relative errors above {tolerance}: {wrong}"
