"""The compiled CPU kernels as PyTorch operators.

Registered with torch.library, so torch.compile and torch.export see one opaque operator with a
shape function, and autograd its hand-written backward. float32 on the CPU only.
"""

import ctypes
import math
import os
import threading

import torch
from torch import Tensor

from model.ops.compile import KernelUnavailable, load_library, log
from model.ops.definition import DirectionWeights, inner_composed

THREADS_VARIABLE = "MDTF_KERNEL_THREADS"
MAX_TAPS = 4

_forked = False


def _after_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def thread_count() -> int:
    """PyTorch's thread count, or MDTF_KERNEL_THREADS.

    One in a forked process: OpenMP's threads do not survive a fork, and waiting for them hangs.
    """
    if _forked:
        return 1
    asked = os.environ.get(THREADS_VARIABLE, "")
    return max(1, int(asked)) if asked.isdecimal() else torch.get_num_threads()


# --- C structures: field for field those of csrc/inner.h ------------------------------------------
class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("outer", "inner", "length", "channels", "states", "rank", "taps")
    ]


class _View(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("outer", ctypes.c_int64),
        ("inner", ctypes.c_int64),
        ("step", ctypes.c_int64),
    ]


class _Weights(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in DirectionWeights._fields]


class _Inner(ctypes.Structure):
    _fields_ = [
        ("shape", _Shape),
        ("x", _View * 2),
        ("z", _View),
        ("weights", _Weights * 2),
        ("out", _View),
        ("states", ctypes.c_void_p),
    ]


class _InnerGrads(ctypes.Structure):
    _fields_ = [("x", _View * 2), ("z", _View), ("weights", _Weights * 2)]


def _view(x: Tensor) -> _View:
    """x: (outer, inner, L, C) or (rows, L, C), channels contiguous."""
    outer = x.stride(0) if x.dim() == 4 else 0
    return _View(x.data_ptr(), outer, x.stride(-3), x.stride(-2))


def _weights(weights: list[Tensor]) -> ctypes.Array:
    half = len(weights) // 2
    parts = (weights[:half], weights[half:])
    return (_Weights * 2)(*(_Weights(*(w.data_ptr() for w in part)) for part in parts))


def _shape(z: Tensor, weights: list[Tensor]) -> _Shape:
    conv_weight, _, _, dt_proj, _, A, _ = weights[:7]
    outer = z.shape[0] if z.dim() == 4 else 1
    return _Shape(outer, *z.shape[-3:], A.shape[1], dt_proj.shape[1], conv_weight.shape[-1])


def _with_dense_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _check(status: int) -> None:
    if status:
        raise MemoryError("not enough memory for the scan's scratch buffers")


# --- the operators --------------------------------------------------------------------------------
def _inner_struct(x_forward, x_backward, z, weights, out, states) -> _Inner:
    return _Inner(
        _shape(z, weights),
        (_View * 2)(_view(x_forward), _view(x_backward)),
        _view(z),
        _weights(weights),
        _view(out),
        states.data_ptr() if states.numel() else None,
    )


@torch.library.custom_op("mdtf::inner_forward", mutates_args=(), device_types="cpu")
def _inner_forward(
    x_forward: Tensor, x_backward: Tensor | None, z: Tensor, weights: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor]:
    """The output, and (if `keep`) the states that the backward starts its chunks from."""
    x_backward = x_forward if x_backward is None else x_backward
    x_forward, x_backward, z = map(_with_dense_channels, (x_forward, x_backward, z))
    weights = [w.contiguous() for w in weights]
    library = loaded()
    shape = _shape(z, weights)
    kept = library.mdtf_kept_floats(ctypes.byref(shape)) if keep else 0
    out, states = _like(z), z.new_empty(kept)
    struct = _inner_struct(x_forward, x_backward, z, weights, out, states)
    _check(library.mdtf_inner_forward(ctypes.byref(struct), thread_count()))
    return out, states


def _like(x: Tensor) -> Tensor:
    """Uninitialised, dense, with x's order of dimensions in memory but channels innermost."""
    return torch.empty_like(_with_dense_channels(x))


@_inner_forward.register_fake
def _(x_forward, x_backward, z, weights, keep):
    # How much is kept depends on the CPU's vectors; nothing but the backward looks at it.
    kept = torch.library.get_ctx().new_dynamic_size() if keep else 0
    return _like(z), z.new_empty(kept)


@torch.library.custom_op("mdtf::inner_backward", mutates_args=(), device_types="cpu")
def _inner_backward(
    grad: Tensor,
    x_forward: Tensor,
    x_backward: Tensor | None,
    z: Tensor,
    weights: list[Tensor],
    states: Tensor,
) -> list[Tensor]:
    """The derivatives by x_forward, x_backward (if it is another tensor), z, and each weight."""
    library = loaded()
    grads = _empty_gradients(x_forward, x_backward, z, weights)
    grad_x = grads[: 1 if x_backward is None else 2]
    grad_z, grad_weights = grads[len(grad_x)], grads[len(grad_x) + 1 :]
    x_backward = x_forward if x_backward is None else x_backward
    grad, x_forward, x_backward, z = map(_with_dense_channels, (grad, x_forward, x_backward, z))
    weights = [w.contiguous() for w in weights]
    struct = _inner_struct(x_forward, x_backward, z, weights, grad, states)
    grads_struct = _InnerGrads(
        (_View * 2)(_view(grad_x[0]), _view(grad_x[-1])), _view(grad_z), _weights(grad_weights)
    )
    if z.numel() == 0:
        return [g.zero_() for g in grads]
    _check(
        library.mdtf_inner_backward(
            ctypes.byref(struct), ctypes.byref(grads_struct), thread_count()
        )
    )
    return grads


def _empty_gradients(x_forward, x_backward, z, weights) -> list[Tensor]:
    inputs = [x for x in (x_forward, x_backward, z) if x is not None]
    return [_like(x) for x in inputs] + [
        torch.empty_like(w, memory_format=torch.contiguous_format) for w in weights
    ]


@_inner_backward.register_fake
def _(grad, x_forward, x_backward, z, weights, states):
    return _empty_gradients(x_forward, x_backward, z, weights)


def _setup_context(ctx, inputs, output) -> None:
    x_forward, x_backward, z, weights, keep = inputs
    ctx.save_for_backward(x_forward, x_backward, z, output[1], *weights)
    ctx.keep = keep
    ctx.mark_non_differentiable(output[1])


@torch.autograd.function.once_differentiable
def _autograd(ctx, grad, _grad_states):
    if not ctx.keep:
        raise RuntimeError("the scan ran without keeping the states that its backward needs")
    x_forward, x_backward, z, states, *weights = ctx.saved_tensors
    grads = torch.ops.mdtf.inner_backward(grad, x_forward, x_backward, z, weights, states)
    grad_x_backward = None if x_backward is None else grads.pop(1)
    grad_x, grad_z, *grad_weights = grads
    return grad_x, grad_x_backward, grad_z, grad_weights, None


_inner_forward.register_autograd(_autograd, setup_context=_setup_context)


def inner_native(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """`definition.inner_composed` by the compiled kernel. Once differentiable."""
    if forward.conv_weight.shape[-1] > MAX_TAPS:
        raise ValueError(f"the C kernel takes up to {MAX_TAPS} taps; use the torch backend")
    weights = [*forward, *backward]
    same = x_backward is x_forward
    batch = z.shape[:-2]
    if len(batch) not in (1, 2):
        rows = math.prod(batch)
        flat = [x.reshape(rows, *x.shape[-2:]) for x in (x_forward, x_backward, z)]
        x_forward, x_backward, z = flat
    keep = torch.is_grad_enabled() and any(
        t.requires_grad for t in (x_forward, x_backward, z, *weights)
    )
    out, _ = torch.ops.mdtf.inner_forward(x_forward, None if same else x_backward, z, weights, keep)
    return out.view(*batch, *out.shape[-2:])


# --- loading --------------------------------------------------------------------------------------
_lock = threading.RLock()  # re-entered by the self-check, which calls the operators
_library: ctypes.CDLL | None = None
_verdict: list[str | None] = []  # once known: why the kernels cannot run, or None


def loaded() -> ctypes.CDLL:
    """The library. Raises KernelUnavailable."""
    if _library is None:
        reason = unavailable()
        if reason:
            raise KernelUnavailable(reason)
    assert _library is not None
    return _library


def unavailable() -> str | None:
    """Why the kernels cannot run here, or None if they can. Builds them at the first call."""
    if not _verdict:
        with _lock:
            if not _verdict:
                _verdict.append(_load_and_check())
    return _verdict[0]


def _load_and_check() -> str | None:
    global _library
    try:
        _library = load_library()
        _declare(_library)
        error = self_check()
        if not error < 1e-4:
            raise KernelUnavailable(f"its self-check is off by {error:.1e}")
    except (KernelUnavailable, AttributeError) as error:
        _library = None
        log.warning("no C kernel, the slower PyTorch scan runs instead: %s", error)
        return str(error)
    return None


def _declare(library: ctypes.CDLL) -> None:
    """Argument and result types; AttributeError if a function is missing."""
    pointer, integer = ctypes.c_void_p, ctypes.c_int64
    library.mdtf_lanes.restype = library.mdtf_has_threads.restype = integer
    library.mdtf_kept_floats.restype = integer
    library.mdtf_kept_floats.argtypes = [pointer]
    library.mdtf_inner_forward.argtypes = [pointer, integer]
    library.mdtf_inner_backward.argtypes = [pointer, pointer, integer]


def self_check() -> float:
    """The largest error of a small case, outputs and gradients, relative to each one's maximum."""
    generator = torch.Generator().manual_seed(0)
    channels, states, rank, taps, length = 12, 16, 1, 4, 21

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator) - 0.5

    def direction() -> DirectionWeights:
        return DirectionWeights(
            draw(channels, 1, taps), draw(channels), draw(rank + 2 * states, channels),
            draw(channels, rank), draw(channels) - 2, -4 * draw(channels, states).abs(),
            draw(channels),
        )  # fmt: skip

    x, z, grad = (draw(2, length, channels) for _ in range(3))
    inputs = [x, z, *direction(), *direction()]

    def run(function, dtype: torch.dtype) -> list[Tensor]:
        x, z, *weights = (t.to(dtype).requires_grad_() for t in inputs)
        pair = DirectionWeights(*weights[:7]), DirectionWeights(*weights[7:])
        out = function(x, x, z, *pair)
        return [out, *torch.autograd.grad(out, [x, z, *weights], grad.to(dtype))]

    with torch.enable_grad():
        pairs = zip(
            run(inner_native, torch.float32), run(inner_composed, torch.float64), strict=True
        )
        return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)
