"""What a backend is, which one runs, and why: `auto` takes the fastest that works here."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

import model.ops.reference as reference
from lib.errors import UserError, did_you_mean
from model.ops.statistics import GraphStatistics
from model.ops.weights import BlockWeights, DirectionWeights, Masks, Settings

ENVIRONMENT_VARIABLE = "MDTF_SCAN_BACKEND"


class Backend(Protocol):
    """Computes what reference.py defines, outputs and gradients; check.py says whether it does."""

    name: str
    device: str | None = None  # the kind of device it is made for; None: any
    reduced: tuple[
        torch.dtype, ...
    ] = ()  # autocast's dtypes that its inner block takes as they are

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        """Why it cannot run such tensors, in one line, or None if it can."""
        return None

    def inner(
        self,
        x_forward: Tensor,
        x_backward: Tensor,
        z: Tensor,
        forward: DirectionWeights,
        backward: DirectionWeights,
    ) -> Tensor:
        """reference.inner()."""
        raise NotImplementedError

    def block(
        self,
        x: Tensor,
        weights: BlockWeights,
        settings: Settings,
        masks: Masks,
        *,
        batch_statistics: bool,
    ) -> tuple[Tensor, GraphStatistics] | None:
        """reference.residual_block(), or None for a block that it does not compute as a whole."""
        return None


_registry: dict[str, Backend] = {}
_default: str | None = None  # what set_default_backend() was given


def register(backend: Backend) -> None:
    """Make a backend known; "auto" prefers those that were registered earlier."""
    _registry[backend.name] = backend


def backend_names() -> tuple[str, ...]:
    """What --scan-backend takes."""
    return ("auto", *_registry)


def _checked(name: str, origin: str) -> str:
    names = backend_names()
    if name not in names:
        hint = did_you_mean(name, names)
        raise UserError(f"{origin}: no scan backend {name!r}{hint} (known: {', '.join(names)})")
    return name


def set_default_backend(name: str) -> None:
    """What `backend="auto"` means from now on; overrides the environment variable."""
    global _default
    _default = _checked(name, "--scan-backend")


@contextmanager
def backend_asked_for(name: str | None) -> Iterator[None]:
    """Inside, `backend="auto"` means this backend; with None, it means the same as outside."""
    global _default
    before = _default
    if name is not None:
        set_default_backend(name)
    try:
        yield
    finally:
        _default = before


def default_backend() -> str:
    """The backend asked for by set_default_backend(), else by MDTF_SCAN_BACKEND, else "auto"."""
    if _default is not None:
        return _default
    return _checked(os.environ.get(ENVIRONMENT_VARIABLE) or "auto", ENVIRONMENT_VARIABLE)


def resolve_backend(name: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The backend that will run for `name`, and one line that says why (and why none faster).

    A backend asked for by name that cannot run raises UserError: there is no silent fallback.
    """
    _checked(name, "scan backend")
    if name == "auto":
        name = default_backend()
    if name != "auto":
        obstacle = _registry[name].obstacle(device, dtype)
        if obstacle:
            raise UserError(f"scan backend {name!r} cannot run: {obstacle}; use 'auto' or 'torch'")
        return name, "asked for"
    reasons: list[str] = []
    for backend in _registry.values():
        if backend.device not in (None, device.type):
            continue
        obstacle = backend.obstacle(device, dtype)
        if obstacle is None:
            return backend.name, "; ".join(reasons) or f"the fastest for {device.type}"
        reasons.append(f"not {backend.name}: {obstacle}")
    raise UserError(f"no scan backend can run: {'; '.join(reasons)}")


def _backend(x: Tensor, name: str) -> Backend:
    return _registry[resolve_backend(name, x.device, x.dtype)[0]]


def bidirectional_inner(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
    *,
    axis: int = -2,
    backend: str = "auto",
) -> Tensor:
    """The inside of a bidirectional Mamba mixer, between its input and output projections.

    x_forward, x_backward, z: (..., L, C), any strides, all in the un-flipped order (x_forward may
    be x_backward); L is at `axis`. The backward direction runs from the last step to the first.
    Each direction: causal conv, SiLU, dt, B and C from x, softplus, scan. Returns
    0.5 (y_f + y_b) SiLU(z).
    Under autocast it computes in float32, because a state sums up many steps; only a backend that
    does so itself is handed autocast's dtype.
    """
    kind = z.device.type
    if torch.is_autocast_enabled(kind):
        dtype = torch.get_autocast_dtype(kind)
        with torch.autocast(kind, enabled=False):
            chosen = _registry[resolve_backend(backend, z.device, torch.float32)[0]]
            if dtype not in getattr(chosen, "reduced", ()):
                dtype = torch.float32
            first, gate = x_forward.to(dtype), z.to(dtype)
            other = first if x_backward is x_forward else x_backward.to(dtype)
            return bidirectional_inner(
                first, other, gate, forward, backward, axis=axis, backend=backend
            )
    inner = _backend(z, backend).inner
    return reference.along(inner, axis, x_forward, x_backward, z, forward, backward)


def residual_block(
    x: Tensor,
    weights: BlockWeights,
    settings: Settings,
    masks: Masks = (None, None),
    *,
    batch_statistics: bool = False,
) -> tuple[Tensor, GraphStatistics]:
    """reference.residual_block() by the default backend.

    A block that the backend does not compute as a whole is PyTorch around its inner block.
    """
    if not torch.is_autocast_enabled(x.device.type):
        backend = _backend(x, "auto")
        found = None
        if callable(backend.block):  # a backend may also say block = None
            found = backend.block(x, weights, settings, masks, batch_statistics=batch_statistics)
        if found is not None:
            return found
    return reference.residual_block(
        x, weights, settings, masks, batch_statistics=batch_statistics, inner=bidirectional_inner
    )
