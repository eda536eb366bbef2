"""The depthwise convolution of both directions with its SiLU, forward and backward.

C channels, TAPS of the convolution; a token is a step of a row, numbered (row, step). x and its
gradient may lie at any stride of rows and steps; u and its gradient are contiguous (direction,
token, C). Direction 0 sees the steps before, direction 1 those after.
"""

import triton
import triton.language as tl

from model.ops.triton.functions import sigmoid


@triton.jit
def _conv(x, at, step, step_stride, is_token, L, weight, bias, c, is_c,
          SIGN: tl.constexpr, SHIFT: tl.constexpr, TAPS: tl.constexpr):  # fmt: skip
    """The convolution, before SiLU, at the steps SHIFT · SIGN after `step`: (BT, BC).

    SIGN 1: a step sees those before it; -1: those after it. Out of the sequence x is 0.
    """
    pre = tl.load(bias + c, mask=is_c, other=0.0).to(tl.float32)[None, :]
    for tap in tl.static_range(TAPS):
        offset = (SHIFT - tap) * SIGN
        value = _shifted(x, at, step, step_stride, is_token, L, c, is_c, offset)
        factor = tl.load(weight + c * TAPS + (TAPS - 1 - tap), mask=is_c, other=0.0)
        pre += value * factor.to(tl.float32)[None, :]
    return pre


@triton.jit
def _shifted(x, at, step, step_stride, is_token, L, c, is_c, offset):
    """x, `offset` steps after `step`: (BT, BC)."""
    there = step + offset
    mask = (is_token & (there >= 0) & (there < L))[:, None] & is_c[None, :]
    where = at + offset * step_stride
    return tl.load(x + where[:, None] + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _position(token, L, inner, outer_stride, inner_stride, step_stride):
    """Where the tokens, numbered by (row, step), lie in a strided tensor."""
    row, step = token // L, token % L
    outer_row, inner_row = (row // inner).to(tl.int64), (row % inner).to(tl.int64)
    return outer_row * outer_stride + inner_row * inner_stride + step.to(tl.int64) * step_stride


@triton.jit(do_not_specialize=["tokens", "L", "inner"])
def conv_silu(
    x_forward, x_backward, weight_forward, weight_backward, bias_forward, bias_backward, u,
    tokens, L, inner,
    forward_outer, forward_inner, forward_step, backward_outer, backward_inner, backward_step,
    C, TAPS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """u (2, tokens, C): SiLU of the convolution of both directions."""
    token = tl.program_id(0) * BT + tl.arange(0, BT)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    step, is_token, is_c = token % L, token < tokens, c < C
    mask = is_token[:, None] & is_c[None, :]
    out = u + token.to(tl.int64)[:, None] * C + c[None, :]
    at = _position(token, L, inner, forward_outer, forward_inner, forward_step)
    pre = _conv(x_forward, at, step, forward_step, is_token, L, weight_forward, bias_forward,
                c, is_c, 1, 0, TAPS)  # fmt: skip
    tl.store(out, (pre * sigmoid(pre)).to(u.dtype.element_ty), mask=mask)
    at = _position(token, L, inner, backward_outer, backward_inner, backward_step)
    pre = _conv(x_backward, at, step, backward_step, is_token, L, weight_backward, bias_backward,
                c, is_c, -1, 0, TAPS)  # fmt: skip
    out = u + (token.to(tl.int64) + tokens)[:, None] * C + c[None, :]
    tl.store(out, (pre * sigmoid(pre)).to(u.dtype.element_ty), mask=mask)


@triton.jit
def _conv_backward(x, by_u, at, token, step, step_stride, is_token, L, C, weight, bias, c, is_c,
                   sums, SIGN: tl.constexpr, TAPS: tl.constexpr):  # fmt: skip
    """The gradient of x of one direction (BT, BC), and `sums` with what this adds to the gradients
    of the taps and the bias."""
    by_x = tl.zeros((token.shape[0], c.shape[0]), dtype=tl.float32)
    for shift in tl.static_range(TAPS):
        # The steps that have seen this one, with the tap that did.
        pre = _conv(x, at, step, step_stride, is_token, L, weight, bias, c, is_c, SIGN, shift, TAPS)
        there = step + shift * SIGN
        mask = (is_token & (there >= 0) & (there < L))[:, None] & is_c[None, :]
        seen = (token + shift * SIGN)[:, None] * C + c[None, :]
        by_out = tl.load(by_u + seen, mask=mask, other=0.0).to(tl.float32)
        s = sigmoid(pre)
        by_pre = tl.where(mask, by_out * s * (1.0 + pre * (1.0 - s)), 0.0)
        factor = tl.load(weight + c * TAPS + (TAPS - 1 - shift), mask=is_c, other=0.0)
        by_x += by_pre * factor.to(tl.float32)[None, :]
        if shift == 0:
            added = ()
            for tap in tl.static_range(TAPS):
                value = _shifted(x, at, step, step_stride, is_token, L, c, is_c, -tap * SIGN)
                added = added + (sums[tap] + by_pre * value,)
            sums = added + (sums[TAPS] + by_pre,)
    return by_x, sums


@triton.jit
def _store_sums(partial, sums, c, is_c, C, TAPS: tl.constexpr):
    """The gradients of the taps (C, TAPS), then of the bias (C)."""
    for tap in tl.static_range(TAPS):
        tl.store(partial + c * TAPS + (TAPS - 1 - tap), tl.sum(sums[tap], axis=0), mask=is_c)
    tl.store(partial + C * TAPS + c, tl.sum(sums[TAPS], axis=0), mask=is_c)


@triton.jit(do_not_specialize=["tokens", "L", "inner"])
def conv_silu_backward(
    x_forward, x_backward, weight_forward, weight_backward, bias_forward, bias_backward,
    by_u, by_x_forward, by_x_backward, partial,
    tokens, L, inner,
    forward_outer, forward_inner, forward_step, backward_outer, backward_inner, backward_step,
    by_forward_outer, by_forward_inner, by_forward_step,
    by_backward_outer, by_backward_inner, by_backward_step,
    C, TAPS: tl.constexpr, BT: tl.constexpr, BC: tl.constexpr, SHARED: tl.constexpr,
):  # fmt: skip
    """partial (2, groups, C · TAPS + C): gradients of taps and bias, summed over a group's tokens.

    SHARED: both directions read one x, and by_x_forward is its whole gradient.
    """
    group, groups = tl.program_id(0), tl.num_programs(0)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    is_c = c < C
    zero = tl.zeros((BT, BC), dtype=tl.float32)
    forward_sums, backward_sums = (zero,), (zero,)
    for _ in tl.static_range(TAPS):
        forward_sums = forward_sums + (zero,)
        backward_sums = backward_sums + (zero,)
    for start in range(group * BT, tokens, groups * BT):
        token = tl.arange(0, BT) + start
        step, is_token = token % L, token < tokens
        mask = is_token[:, None] & is_c[None, :]
        at = _position(token, L, inner, forward_outer, forward_inner, forward_step)
        by_x, forward_sums = _conv_backward(
            x_forward, by_u, at, token.to(tl.int64), step, forward_step, is_token, L, C,
            weight_forward, bias_forward, c, is_c, forward_sums, 1, TAPS,
        )  # fmt: skip
        at = _position(token, L, inner, backward_outer, backward_inner, backward_step)
        by_other, backward_sums = _conv_backward(
            x_backward, by_u, at, token.to(tl.int64) + tokens, step, backward_step, is_token, L, C,
            weight_backward, bias_backward, c, is_c, backward_sums, -1, TAPS,
        )  # fmt: skip
        if SHARED:
            by_x += by_other
        else:
            at = _position(token, L, inner, by_backward_outer, by_backward_inner, by_backward_step)
            tl.store(by_x_backward + at[:, None] + c[None, :],
                     by_other.to(by_x_backward.dtype.element_ty), mask=mask)  # fmt: skip
        at = _position(token, L, inner, by_forward_outer, by_forward_inner, by_forward_step)
        tl.store(by_x_forward + at[:, None] + c[None, :],
                 by_x.to(by_x_forward.dtype.element_ty), mask=mask)  # fmt: skip
    size = C * (TAPS + 1)
    _store_sums(partial + group * size, forward_sums, c, is_c, C, TAPS)
    _store_sums(partial + (groups + group) * size, backward_sums, c, is_c, C, TAPS)
