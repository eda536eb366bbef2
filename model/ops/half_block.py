"""The two halves of a residual block around its scan, for training: see csrc/half_block.h.

Registered with torch.library like the scan itself (model/ops/native.py). They keep their inputs
only, and recompute the rest in the backward. float32 on the CPU, differentiable once.
"""

import torch
from torch import Tensor

from model.ops import library as c
from model.ops import native
from model.ops.operator import Operator, constant_result

# Sizes of the weights by name, C channels and H hidden ones.
HEAD_WEIGHTS = ("norm_weight", "norm_bias", "first", "second", "first_bias", "second_bias")
TAIL_WEIGHTS = (
    "out_proj", "norm_weight", "norm_bias", "fc1", "fc1_bias", "fc2", "fc2_bias",
)  # fmt: skip


@constant_result
def takes_halves(dim: int, hidden: int, joints: int) -> bool:
    """Whether the kernels can do blocks of this size: whole vectors of channels."""
    library = native.loaded()
    lanes = library.mdtf_lanes()
    return dim % lanes == 0 and hidden % lanes == 0 and joints <= library.mdtf_row_tile()


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _rows(x: Tensor) -> int:
    return x.numel() // x.shape[-1]


def _dense_like(*tensors: Tensor) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


# --- the head -------------------------------------------------------------------------------------
def _head_struct(x, weights, adjacency, outs, eps):
    norm_weight, norm_bias, first, second, *biases = (w.data_ptr() for w in weights)
    joints = 0 if adjacency is None else adjacency.shape[0]
    return c.Head(
        _rows(x), x.shape[-1], joints, x.data_ptr(), norm_weight, norm_bias,
        (c.Pointer * 2)(first, second), (c.Pointer * 2)(*biases), _pointer(adjacency),
        (c.Pointer * 2)(*(o.data_ptr() for o in outs)), eps,
    )  # fmt: skip


@Operator("mdtf::head_forward")
def _head_forward(
    x: Tensor, weights: list[Tensor], adjacency: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    x, weights = x.contiguous(), [w.contiguous() for w in weights]
    outs = _dense_like(x, x)
    if x.numel():
        struct = _head_struct(x, weights, adjacency, outs, eps)
        c.call(native.loaded().mdtf_head_forward, struct)
    return outs[0], outs[1]


@_head_forward.register_fake
def _(x, weights, adjacency, eps):
    first, second = _dense_like(x, x)
    return first, second


@Operator("mdtf::head_backward")
def _head_backward(
    grad_first: Tensor,
    grad_second: Tensor,
    x: Tensor,
    weights: list[Tensor],
    adjacency: Tensor | None,
    eps: float,
) -> list[Tensor]:
    """The derivatives by x and by each weight."""
    grads = _dense_like(x, *weights)
    if x.numel() == 0:
        return [g.zero_() for g in grads]
    x, weights = x.contiguous(), [w.contiguous() for w in weights]
    by_outs = grad_first.contiguous(), grad_second.contiguous()
    struct = _head_struct(x, weights, adjacency, by_outs, eps)
    by_x, by_norm_weight, by_norm_bias, first, second, *biases = (g.data_ptr() for g in grads)
    grads_struct = c.HeadGrads(
        by_x, by_norm_weight, by_norm_bias, (c.Pointer * 2)(first, second),
        (c.Pointer * 2)(*biases),
    )  # fmt: skip
    c.call(native.loaded().mdtf_head_backward, struct, grads_struct)
    return grads


@_head_backward.register_fake
def _(grad_first, grad_second, x, weights, adjacency, eps):
    return _dense_like(x, *weights)


def _head_context(ctx, inputs, output) -> None:
    x, weights, adjacency, eps = inputs
    ctx.save_for_backward(x, adjacency, *weights)
    ctx.eps = eps


def _head_autograd(ctx, grad_first, grad_second):
    x, adjacency, *weights = ctx.saved_tensors
    by_x, *by_weights = torch.ops.mdtf.head_backward(
        grad_first, grad_second, x, weights, adjacency, ctx.eps
    )
    return by_x, by_weights, None, None


_head_forward.register_autograd(_head_autograd, setup_context=_head_context)
_head_backward.register_autograd(native.no_second_derivative)


def _check_head(x: Tensor, weights: tuple[Tensor, ...]) -> None:
    channels = x.shape[-1]
    vector, square = (channels,), (channels, channels)
    sizes = (vector, vector, square, square, vector, vector)
    native.check_tensors(x, {"x": (x, tuple(x.shape))})
    native.check_tensors(
        x, {n: (w, s) for n, w, s in zip(HEAD_WEIGHTS, weights, sizes, strict=False)}
    )


def norm_linears(
    x: Tensor, norm_weight: Tensor, norm_bias: Tensor, first: Tensor, second: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """LN(x) times two weights (C, C), each dense; x: (..., C) -> twice (..., C)."""
    weights = (norm_weight, norm_bias, first, second)
    _check_head(x, weights)
    return torch.ops.mdtf.head_forward(x, list(weights), None, eps)


def norm_graph(
    x: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    neighbours: Tensor,
    own: Tensor,
    neighbours_bias: Tensor,
    own_bias: Tensor,
    adjacency: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """n = LN(x) and Â V n + U n, both (..., J, C); adjacency: (J, J), symmetric, normalised."""
    weights = (norm_weight, norm_bias, neighbours, own, neighbours_bias, own_bias)
    _check_head(x, weights)
    joints = x.shape[-2]
    native.check_tensors(x, {"adjacency": (adjacency, (joints, joints))})
    return torch.ops.mdtf.head_forward(x, list(weights), adjacency.contiguous(), eps)


# --- the tail -------------------------------------------------------------------------------------
def _tail_struct(x, inner, mask1, mask2, weights, out, eps):
    return c.Tail(
        _rows(x), x.shape[-1], weights[3].shape[0], x.data_ptr(), inner.data_ptr(),
        _pointer(mask1), _pointer(mask2), *(w.data_ptr() for w in weights), out.data_ptr(), eps,
    )  # fmt: skip


@Operator("mdtf::tail_forward")
def _tail_forward(
    x: Tensor,
    inner: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: list[Tensor],
    eps: float,
) -> Tensor:
    x, inner, weights = x.contiguous(), inner.contiguous(), [w.contiguous() for w in weights]
    (out,) = _dense_like(x)
    if x.numel():
        struct = _tail_struct(x, inner, mask1, mask2, weights, out, eps)
        c.call(native.loaded().mdtf_tail_forward, struct)
    return out


@_tail_forward.register_fake
def _(x, inner, mask1, mask2, weights, eps):
    return _dense_like(x)[0]


@Operator("mdtf::tail_backward")
def _tail_backward(
    grad: Tensor,
    x: Tensor,
    inner: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: list[Tensor],
    eps: float,
) -> list[Tensor]:
    """The derivatives by x, inner and each weight."""
    grads = _dense_like(x, inner, *weights)
    if x.numel() == 0:
        return [g.zero_() for g in grads]
    # The structures hold addresses only: every copy made here needs a name until the call is over.
    x, inner, weights = x.contiguous(), inner.contiguous(), [w.contiguous() for w in weights]
    grad = grad.contiguous()
    struct = _tail_struct(x, inner, mask1, mask2, weights, grad, eps)
    grads_struct = c.TailGrads(*(g.data_ptr() for g in grads))
    c.call(native.loaded().mdtf_tail_backward, struct, grads_struct)
    return grads


@_tail_backward.register_fake
def _(grad, x, inner, mask1, mask2, weights, eps):
    return _dense_like(x, inner, *weights)


def _tail_context(ctx, inputs, output) -> None:
    x, inner, mask1, mask2, weights, eps = inputs
    ctx.save_for_backward(x, inner, mask1, mask2, *weights)
    ctx.eps = eps


def _tail_autograd(ctx, grad):
    x, inner, mask1, mask2, *weights = ctx.saved_tensors
    by_x, by_inner, *by_weights = torch.ops.mdtf.tail_backward(
        grad, x, inner, mask1, mask2, weights, ctx.eps
    )
    return by_x, by_inner, None, None, by_weights, None


_tail_forward.register_autograd(_tail_autograd, setup_context=_tail_context)
_tail_backward.register_autograd(native.no_second_derivative)


def block_tail(
    x: Tensor,
    inner: Tensor,
    mask1: Tensor | None,
    mask2: Tensor | None,
    weights: tuple[Tensor, ...],
    eps: float,
) -> Tensor:
    """y = x + mask1 W inner, then y + mask2 MLP(LN(y)); x, inner: (..., C) -> (..., C).

    weights: as TAIL_WEIGHTS names them; masks: one factor a row (..., 1), None for 1.
    """
    channels, hidden = x.shape[-1], weights[3].shape[0]
    vector = (channels,)
    sizes = (
        (channels, channels), vector, vector, (hidden, channels), (hidden,), (channels, hidden),
        vector,
    )  # fmt: skip
    native.check_tensors(x, {"x": (x, tuple(x.shape)), "inner": (inner, tuple(x.shape))})
    native.check_tensors(
        x, {n: (w, s) for n, w, s in zip(TAIL_WEIGHTS, weights, sizes, strict=True)}
    )
    rows = (
        None if m is None else m.to(x.dtype).expand(*x.shape[:-1], 1).contiguous()
        for m in (mask1, mask2)
    )
    return torch.ops.mdtf.tail_forward(x, inner, *rows, list(weights), eps)
