"""Which backend runs a scan, and why: `auto` takes the fastest that works here.

`sequential` is the definition, `torch` a faster loop with its own backward, `c` the compiled CPU
kernel, `mamba_ssm` the upstream CUDA kernels.
"""

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from lib.errors import UserError, did_you_mean
from model.ops import native, upstream
from model.ops.definition import DirectionWeights, inner_composed, scan_sequential
from model.ops.torch_loop import scan_loop

BACKENDS = ("auto", "c", "torch", "sequential", "mamba_ssm", "triton")
ENVIRONMENT_VARIABLE = "MDTF_SCAN_BACKEND"

_default: str | None = None  # what set_default_backend() was given


def _checked(name: str, origin: str) -> str:
    if name not in BACKENDS:
        hint = did_you_mean(name, BACKENDS)
        raise UserError(f"{origin}: no scan backend {name!r}{hint} (known: {', '.join(BACKENDS)})")
    return name


def set_default_backend(name: str) -> None:
    """What `backend="auto"` means from now on; overrides the environment variable."""
    global _default
    _default = _checked(name, "--scan-backend")


def default_backend() -> str:
    """The backend asked for by set_default_backend(), else by MDTF_SCAN_BACKEND, else "auto"."""
    if _default is not None:
        return _default
    return _checked(os.environ.get(ENVIRONMENT_VARIABLE) or "auto", ENVIRONMENT_VARIABLE)


def _obstacle(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    """Why backend `name` cannot run these tensors, or None if it can."""
    if name == "c":
        if device.type != "cpu" or dtype != torch.float32:
            return f"the C kernel takes float32 on the CPU, these are {dtype} on {device.type}"
        return native.unavailable()
    if name == "mamba_ssm":
        if device.type != "cuda":
            return f"the upstream kernels need CUDA tensors, these are on {device.type}"
        return upstream.missing()
    if name == "triton":
        return "the Triton kernel is not built yet"
    return None


def resolve_backend(name: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The backend that will run for `name`, and one line that says why (and why none faster).

    A backend asked for by name that cannot run raises UserError: there is no silent fallback.
    """
    _checked(name, "scan backend")
    if name == "auto":
        name = default_backend()
    if name != "auto":
        obstacle = _obstacle(name, device, dtype)
        if obstacle:
            raise UserError(f"scan backend {name!r} cannot run: {obstacle}; use 'auto' or 'torch'")
        return name, "asked for"
    fastest = "mamba_ssm" if device.type == "cuda" else "c"
    obstacle = _obstacle(fastest, device, dtype)
    if obstacle is None:
        return fastest, f"the fastest for {device.type}"
    return "torch", f"not {fastest}: {obstacle}"


_SCANS = {
    "sequential": scan_sequential,
    "torch": scan_loop,
    "c": native.scan_native,
    "mamba_ssm": upstream.scan_upstream,
}


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor | None = None,
    *,
    reverse: bool = False,
    backend: str = "auto",
) -> Tensor:
    """The selective scan of `definition.scan_sequential`, times SiLU(z) if z is given.

    u, delta, z: (..., L, C), delta positive; A: (C, N); B, C: (..., L, N); D: (C,).
    Returns (..., L, C). `reverse` runs from the last step to the first.
    """
    name, _ = resolve_backend(backend, u.device, u.dtype)
    y = _SCANS[name](u, delta, A, B, C, D, reverse=reverse)
    return y if z is None else y * F.silu(z)


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
    Under autocast it computes in float32: a state summed over long memory needs it.
    """
    if torch.is_autocast_enabled(z.device.type):
        with torch.autocast(z.device.type, enabled=False):
            inputs = (x.float() for x in (x_forward, x_backward, z))
            return bidirectional_inner(*inputs, forward, backward, axis=axis, backend=backend)
    name, _ = resolve_backend(backend, z.device, z.dtype)
    same = x_backward is x_forward  # one tensor has one gradient
    x_forward, x_backward, z = (x.transpose(axis, -2) for x in (x_forward, x_backward, z))
    if same:
        x_backward = x_forward
    inputs = x_forward, x_backward, z, forward, backward
    if name == "c":
        y = native.inner_native(*inputs)
    elif name == "mamba_ssm":
        y = upstream.inner_upstream(*inputs)
    else:
        y = inner_composed(*inputs, _SCANS[name])
    return y.transpose(axis, -2)
