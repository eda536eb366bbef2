"""Functions of single numbers, for both kernels. exp2 instead of exp, which calls a library."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def sigmoid(x):
    return 1.0 / (1.0 + tl.exp2(-x * LOG2E))


@triton.jit
def softplus(x):
    """max(x, 0) + log1p(e) with e = exp(-|x|), by log1p(e) = 2 atanh(e / (2 + e)).

    The series ends at s^15, s <= 1/3: 1e-7 of the result, even where that is 1e-4 (log(1 + e) would
    round e away).
    """
    e = tl.exp2(-tl.abs(x) * LOG2E)
    s = e / (2.0 + e)
    q = s * s
    p = 1.0 / 15
    p = p * q + 1.0 / 13
    p = p * q + 1.0 / 11
    p = p * q + 1.0 / 9
    p = p * q + 1.0 / 7
    p = p * q + 1.0 / 5
    p = p * q + 1.0 / 3
    p = p * q + 1.0
    return tl.maximum(x, 0.0) + 2.0 * s * p
