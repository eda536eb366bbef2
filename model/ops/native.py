"""The compiled CPU kernels as PyTorch operators.

Registered with torch.library, so torch.compile and torch.export see opaque operators with a shape
function, and autograd their hand-written backward. float32 on the CPU, differentiable once.
"""

import ctypes
import functools
import math
import threading

import torch
from torch import Tensor

from model.ops import library as c
from model.ops.compile import KernelUnavailable, log
from model.ops.definition import DirectionWeights
from model.ops.operator import Operator, constant_result

MAX_TAPS = 4  # as in csrc/inner.h
SELF_CHECK_TOLERANCE = 1e-4

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


@constant_result
def unavailable() -> str | None:
    """Why the kernels cannot run here, or None if they can. Builds them at the first call."""
    if not _verdict:
        with _lock:
            if not _verdict:
                _verdict.append(_load_and_check())
    return _verdict[0]


def _load_and_check() -> str | None:
    global _library
    from model.ops.self_check import self_check  # which imports what it checks

    try:
        _library = c.open_library()
        error = self_check()
        if not error < SELF_CHECK_TOLERANCE:
            raise KernelUnavailable(f"its self-check is off by {error:.1e}")
    except (KernelUnavailable, AttributeError) as error:
        _library = None
        log.warning("no C kernel, the slower PyTorch scan runs instead: %s", error)
        return str(error)
    return None


@functools.cache
def keep_freed_memory() -> None:
    """From now on this process keeps the memory it frees, and takes it again without the system.

    For training: pages from the system cost up to half of a step. See csrc/heap.h.
    """
    loaded().mdtf_heap_keep_freed()


def give_back_memory(limit: int) -> None:
    """Give freed memory back to the system if it is more than `limit` bytes and half of what is
    in use."""
    loaded().mdtf_heap_give_back(limit)


# --- shapes ---------------------------------------------------------------------------------------
def dense_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def like(x: Tensor) -> Tensor:
    """Uninitialised and dense, its dimensions in memory in x's order but channels innermost."""
    return torch.empty_like(dense_channels(x))


def _kept_floats(x: Tensor, states: int) -> int:
    """What mdtf_kept_floats returns, also for symbolic shapes."""
    library = loaded()
    lanes, max_chunk = library.mdtf_lanes(), library.mdtf_max_chunk()
    length, channels = x.shape[-2], x.shape[-1]
    chunks = (length + max_chunk - 1) // max_chunk
    padded_states, padded_channels = ((n + lanes - 1) // lanes * lanes for n in (states, channels))
    rows = math.prod(x.shape[:-2])
    return rows * (chunks - 1) * padded_states * padded_channels if length else 0


def needs_grad(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def _at_most_two_batch_dims(x: Tensor) -> Tensor:
    """The kernels know strides of one or two batch dimensions; more are copied if need be."""
    if x.dim() in (3, 4):
        return x
    return x.reshape(math.prod(x.shape[:-2]), *x.shape[-2:])


def no_second_derivative(ctx, *grads):
    raise RuntimeError(
        "the C scan can be differentiated only once; use the scan backend 'sequential' for more"
    )


# --- the inner block ------------------------------------------------------------------------------
def empty_states(z: Tensor, weights: list[Tensor], keep: bool) -> Tensor:
    """Room for the states that the backward starts its chunks from, none if not `keep`."""
    return z.new_empty(2 * _kept_floats(z, weights[5].shape[1]) if keep else 0)


def inner_struct(x_forward, x_backward, z, weights, out, states) -> ctypes.Structure:
    conv_weight, _, _, dt_proj, _, A, _ = weights[:7]
    return c.Inner(
        c.shape(z, states=A.shape[1], rank=dt_proj.shape[1], taps=conv_weight.shape[-1]),
        (c.View * 2)(c.view(x_forward), c.view(x_backward)),
        c.view(z),
        c.both_weights(weights),
        c.view(out),
        states.data_ptr() if states.numel() else None,
    )


def inner_grads_struct(by_x_forward, by_x_backward, by_z, by_weights) -> ctypes.Structure:
    views = (c.View * 2)(c.view(by_x_forward), c.view(by_x_backward))
    return c.InnerGrads(views, c.view(by_z), c.both_weights(by_weights))


@Operator("mdtf::inner_forward")
def _inner_forward(
    x_forward: Tensor, x_backward: Tensor | None, z: Tensor, weights: list[Tensor], keep: bool
) -> tuple[Tensor, Tensor]:
    """The output, and (if `keep`) the states that the backward starts its chunks from."""
    x_backward = x_forward if x_backward is None else x_backward
    x_forward, x_backward, z = map(dense_channels, (x_forward, x_backward, z))
    weights = [w.contiguous() for w in weights]
    out, states = like(z), empty_states(z, weights, keep)
    struct = inner_struct(x_forward, x_backward, z, weights, out, states)
    c.call(loaded().mdtf_inner_forward, struct)
    return out, states


@_inner_forward.register_fake
def _(x_forward, x_backward, z, weights, keep):
    return like(z), empty_states(z, weights, keep)


def _inner_gradients(x_forward, x_backward, z, weights) -> list[Tensor]:
    inputs = [x for x in (x_forward, x_backward, z) if x is not None]
    return [like(x) for x in inputs] + [
        torch.empty_like(w, memory_format=torch.contiguous_format) for w in weights
    ]


@Operator("mdtf::inner_backward")
def _inner_backward(
    grad: Tensor,
    x_forward: Tensor,
    x_backward: Tensor | None,
    z: Tensor,
    weights: list[Tensor],
    states: Tensor,
) -> list[Tensor]:
    """The derivatives by x_forward, x_backward (if it is another tensor), z, and each weight."""
    grads = _inner_gradients(x_forward, x_backward, z, weights)
    grad_x = grads[: 1 if x_backward is None else 2]
    grad_z, *grad_weights = grads[len(grad_x) :]
    x_backward = x_forward if x_backward is None else x_backward
    grad, x_forward, x_backward, z = map(dense_channels, (grad, x_forward, x_backward, z))
    struct = inner_struct(x_forward, x_backward, z, [w.contiguous() for w in weights], grad, states)
    grads_struct = inner_grads_struct(grad_x[0], grad_x[-1], grad_z, grad_weights)
    c.call(loaded().mdtf_inner_backward, struct, grads_struct)
    return grads


@_inner_backward.register_fake
def _(grad, x_forward, x_backward, z, weights, states):
    return _inner_gradients(x_forward, x_backward, z, weights)


def _inner_context(ctx, inputs, output) -> None:
    x_forward, x_backward, z, weights, keep = inputs
    ctx.save_for_backward(x_forward, x_backward, z, output[1], *weights)
    ctx.kept = keep
    ctx.set_materialize_grads(False)  # the states have none, and zeros for them are megabytes


def _inner_autograd(ctx, grad, _grad_states):
    if not ctx.kept:
        raise RuntimeError("the scan ran without keeping the states that its backward needs")
    x_forward, x_backward, z, states, *weights = ctx.saved_tensors
    grads = torch.ops.mdtf.inner_backward(grad, x_forward, x_backward, z, weights, states)
    grad_x_backward = None if x_backward is None else grads.pop(1)
    grad_x, grad_z, *grad_weights = grads
    return grad_x, grad_x_backward, grad_z, grad_weights, None


_inner_forward.register_autograd(_inner_autograd, setup_context=_inner_context)
_inner_backward.register_autograd(no_second_derivative)


def check_tensors(x: Tensor, shapes: dict[str, tuple[Tensor, tuple[int, ...]]]) -> None:
    """The kernels trust sizes and types: raise ValueError where they are not as they should be."""
    for name, (tensor, size) in shapes.items():
        if tensor.dtype != torch.float32 or tensor.device != x.device or tensor.shape != size:
            raise ValueError(
                f"{name}: the C scan wants float32 {tuple(size)} on {x.device}, this is"
                f" {tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
            )


def check_direction(x: Tensor, weights: DirectionWeights) -> None:
    channels, states = x.shape[-1], weights.A.shape[-1]
    taps, rank = weights.conv_weight.shape[-1], weights.dt_proj.shape[-1]
    if taps > MAX_TAPS:
        raise ValueError(f"the C scan takes up to {MAX_TAPS} taps, not {taps}; use backend 'torch'")
    sizes = DirectionWeights(
        conv_weight=(channels, 1, taps),
        conv_bias=(channels,),
        x_proj=(rank + 2 * states, channels),
        dt_proj=(channels, rank),
        dt_bias=(channels,),
        A=(channels, states),
        D=(channels,),
    )
    check_tensors(x, dict(zip(weights._fields, zip(weights, sizes, strict=True), strict=True)))


def inner_native(
    x_forward: Tensor,
    x_backward: Tensor,
    z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """`definition.inner_composed` by the compiled kernel."""
    check_tensors(z, {"x_forward": (x_forward, z.shape), "x_backward": (x_backward, z.shape)})
    check_direction(z, forward)
    check_direction(z, backward)
    weights = [*forward, *backward]
    xs = [_at_most_two_batch_dims(x_forward)]
    xs.append(None if x_backward is x_forward else _at_most_two_batch_dims(x_backward))
    keep = needs_grad(*xs, z, *weights)
    out, _ = torch.ops.mdtf.inner_forward(*xs, _at_most_two_batch_dims(z), weights, keep)
    return out if out.dim() == z.dim() else out.view(z.shape)


# --- the scan alone -------------------------------------------------------------------------------
def _scan_struct(u, delta, A, B, C, D, y, kept, reverse) -> ctypes.Structure:
    return c.Scan(
        c.shape(u, states=A.shape[1]),
        *(c.view(x) for x in (u, delta, B, C)),
        c.Weights(A=A.data_ptr(), D=D.data_ptr()),
        c.view(y),
        kept.data_ptr() if kept.numel() else None,
        reverse,
    )


@Operator("mdtf::scan_forward")
def _scan_forward(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    reverse: bool,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """The output, and (if `keep`) the states that the backward starts its chunks from."""
    u, delta, B, C = map(dense_channels, (u, delta, B, C))
    y, kept = like(u), u.new_empty(_kept_floats(u, A.shape[1]) if keep else 0)
    struct = _scan_struct(u, delta, A.contiguous(), B, C, D.contiguous(), y, kept, reverse)
    c.call(loaded().mdtf_scan_forward, struct)
    return y, kept


@_scan_forward.register_fake
def _(u, delta, A, B, C, D, reverse, keep):
    return like(u), u.new_empty(_kept_floats(u, A.shape[1]) if keep else 0)


def _scan_gradients(u, delta, A, B, C, D) -> list[Tensor]:
    dense = (torch.empty_like(w, memory_format=torch.contiguous_format) for w in (A, D))
    return [*(like(x) for x in (u, delta, B, C)), *dense]


@Operator("mdtf::scan_backward")
def _scan_backward(
    grad: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    kept: Tensor,
    reverse: bool,
) -> list[Tensor]:
    """The derivatives by u, delta, B, C, A and D."""
    grads = _scan_gradients(u, delta, A, B, C, D)
    grad, u, delta, B, C = map(dense_channels, (grad, u, delta, B, C))
    struct = _scan_struct(u, delta, A.contiguous(), B, C, D.contiguous(), grad, kept, reverse)
    *views, grad_A, grad_D = grads
    weights = c.Weights(A=grad_A.data_ptr(), D=grad_D.data_ptr())
    grads_struct = c.ScanGrads(*map(c.view, views), weights)
    c.call(loaded().mdtf_scan_backward, struct, grads_struct)
    return grads


@_scan_backward.register_fake
def _(grad, u, delta, A, B, C, D, kept, reverse):
    return _scan_gradients(u, delta, A, B, C, D)


def _scan_context(ctx, inputs, output) -> None:
    *tensors, reverse, keep = inputs
    ctx.save_for_backward(*tensors, output[1])
    ctx.reverse, ctx.kept = reverse, keep
    ctx.set_materialize_grads(False)


def _scan_autograd(ctx, grad, _grad_kept):
    if not ctx.kept:
        raise RuntimeError("the scan ran without keeping the states that its backward needs")
    saved = ctx.saved_tensors
    grad_u, grad_delta, grad_B, grad_C, grad_A, grad_D = torch.ops.mdtf.scan_backward(
        grad, *saved, ctx.reverse
    )
    return grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, None, None


_scan_forward.register_autograd(_scan_autograd, setup_context=_scan_context)
_scan_backward.register_autograd(no_second_derivative)


def scan_native(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    *,
    reverse: bool = False,
) -> Tensor:
    """`definition.scan_sequential` by the compiled kernel; A must not be positive."""
    channels, states = A.shape
    per_step = (*u.shape[:-1], states)
    check_tensors(
        u,
        {
            "u": (u, (*u.shape[:-1], channels)),
            "delta": (delta, u.shape),
            "B": (B, per_step),
            "C": (C, per_step),
            "A": (A, A.shape),
            "D": (D, (channels,)),
        },
    )
    u_, delta, B, C = map(_at_most_two_batch_dims, (u, delta, B, C))
    keep = needs_grad(u_, delta, A, B, C, D)
    y, _ = torch.ops.mdtf.scan_forward(u_, delta, A, B, C, D, reverse, keep)
    return y if y.dim() == u.dim() else y.view(u.shape)
