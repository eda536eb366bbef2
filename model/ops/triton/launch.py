"""How the kernels are launched: fixed configurations, shapes and strides.

`forward`, `backward`: the contiguous weights of the two directions. The kernels are imported when
they are launched, because Triton need not be installed.
"""

import contextlib
from typing import NamedTuple

import torch
from torch import Tensor

from model.ops.weights import DirectionWeights, sizes_of

# Fixed, so that a first call tries nothing out, and independent of the device, so that sums are
# those of any other one.
CHUNK = 9  # steps between saved states: 27, 81 and 243 are multiples, 17 is one less than one
CONV_TOKENS, CONV_CHANNELS, CONV_WARPS = 16, 32, 4
BACKWARD_CHANNELS = 16
PROGRAMS = 1056  # of a backward: 8 warps on each of 132 multiprocessors


def forward_channels(channels: int) -> int:
    return 32 if channels % 32 == 0 else 16


def groups_of(count: int, programs: int) -> int:
    """How many groups of equal size, but for the last, `count` things are split into."""
    size = -(-count // max(1, programs))
    return -(-count // max(1, size))


def next_power_of_2(number: int) -> int:
    return 1 << (number - 1).bit_length()


class Shape(NamedTuple):
    """What the launches derive from z (..., L, C) with one or two batch dimensions."""

    outer: int
    inner: int
    length: int
    channels: int

    @classmethod
    def of(cls, z: Tensor) -> "Shape":
        return cls(z.shape[0], z.shape[1] if z.dim() == 4 else 1, z.shape[-2], z.shape[-1])

    @property
    def rows(self) -> int:
        return self.outer * self.inner

    @property
    def tokens(self) -> int:
        return self.rows * self.length

    @property
    def chunks(self) -> int:
        return -(-self.length // CHUNK)


def strides(x: Tensor) -> tuple[int, int, int]:
    """Of the outer and the inner rows, and of the steps."""
    return x.stride(0), x.stride(1) if x.dim() == 4 else 0, x.stride(-2)


def device_of(x: Tensor) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device."""
    return torch.cuda.device(x.device) if x.is_cuda else contextlib.nullcontext()


def backward_blocks(channels: int) -> int:
    """How many blocks of channels scan_backward() has."""
    return -(-channels // BACKWARD_CHANNELS)


def _pairs(forward: DirectionWeights, backward: DirectionWeights, *names: str) -> list[Tensor]:
    return [getattr(direction, name) for name in names for direction in (forward, backward)]


# --- conv + SiLU ----------------------------------------------------------------------------------
def conv_forward(
    x_forward: Tensor,
    x_backward: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
    u: Tensor,
) -> None:
    """Fill u (2, tokens, C)."""
    from model.ops.triton.conv import conv_silu

    shape = Shape.of(x_forward)
    blocks = -(-shape.channels // CONV_CHANNELS)
    conv_silu[-(-shape.tokens // CONV_TOKENS), blocks](
        x_forward,
        x_backward,
        *_pairs(forward, backward, "conv_weight", "conv_bias"),
        u,
        shape.tokens,
        shape.length,
        shape.inner,
        *strides(x_forward),
        *strides(x_backward),
        shape.channels,
        TAPS=sizes_of(forward).taps,
        BT=CONV_TOKENS,
        BC=CONV_CHANNELS,
        num_warps=CONV_WARPS,
    )


def conv_backward(
    x_forward: Tensor,
    x_backward: Tensor,
    by_u: Tensor,
    by_x_forward: Tensor,
    by_x_backward: Tensor | None,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """Fill the gradients of x; returns those of taps and bias: (2, C · K + C).

    by_x_backward: None if both directions read one x, whose gradient by_x_forward is then.
    """
    from model.ops.triton.conv import conv_silu_backward

    shape, taps = Shape.of(x_forward), sizes_of(forward).taps
    other = by_x_forward if by_x_backward is None else by_x_backward
    blocks = -(-shape.channels // CONV_CHANNELS)
    groups = groups_of(-(-shape.tokens // CONV_TOKENS), PROGRAMS // blocks)
    partial = x_forward.new_empty(2, groups, shape.channels * (taps + 1), dtype=torch.float32)
    conv_silu_backward[groups, blocks](
        x_forward,
        x_backward,
        *_pairs(forward, backward, "conv_weight", "conv_bias"),
        by_u,
        by_x_forward,
        other,
        partial,
        shape.tokens,
        shape.length,
        shape.inner,
        *strides(x_forward),
        *strides(x_backward),
        *strides(by_x_forward),
        *strides(other),
        shape.channels,
        TAPS=taps,
        BT=CONV_TOKENS,
        BC=CONV_CHANNELS,
        SHARED=by_x_backward is None,
        num_warps=CONV_WARPS,
    )
    return partial.sum(1)


# --- the scan -------------------------------------------------------------------------------------
def _scan_constants(weights: DirectionWeights) -> dict[str, int]:
    sizes = sizes_of(weights)
    return {
        "N": sizes.states,
        "NP": next_power_of_2(sizes.states),
        "R": sizes.rank,
        "K": CHUNK,
        "num_warps": 1,
        "num_stages": 1,
    }


def scan_forward(
    y: Tensor,
    u: Tensor,
    projected: Tensor,
    states: Tensor,
    z: Tensor,
    out: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
    *,
    keep: bool,
) -> None:
    """Fill y, out and, if `keep`, states."""
    from model.ops.triton.scan import scan_forward as kernel

    shape, channels = Shape.of(z), forward_channels(z.shape[-1])
    kernel[shape.rows, -(-shape.channels // channels)](
        u,
        projected,
        z,
        y,
        out,
        states,
        *_pairs(forward, backward, "A_log", "dt_proj", "dt_bias", "D"),
        shape.rows,
        shape.length,
        shape.inner,
        *strides(z),
        *strides(out),
        shape.channels,
        # Four numbers a lane at least: with another layout of dt_proj registers spill (sm_90).
        RP=max(128 // channels, next_power_of_2(sizes_of(forward).rank)),
        BC=channels,
        EVEN=shape.length % (CHUNK // 3) == 0,
        KEEP=keep,
        **_scan_constants(forward),
    )


def scan_backward(
    y: Tensor,
    u: Tensor,
    projected: Tensor,
    states: Tensor,
    z: Tensor,
    grad: Tensor,
    by_u: Tensor,
    by_wide: Tensor,
    by_z: Tensor,
    forward: DirectionWeights,
    backward: DirectionWeights,
) -> Tensor:
    """Fill by_u, by_wide and by_z; returns those of A_log, dt_bias and D: (2, C · (N + 2))."""
    from model.ops.triton.scan import scan_backward as kernel

    shape, blocks = Shape.of(z), backward_blocks(z.shape[-1])
    groups = groups_of(shape.rows, PROGRAMS // (2 * blocks))
    size = shape.channels * (states.shape[-1] + 2)
    partial = z.new_empty(2, groups, size, dtype=torch.float32)
    kernel[groups, blocks, 2](
        u,
        projected,
        z,
        y,
        states,
        grad,
        by_u,
        by_wide,
        by_z,
        partial,
        *_pairs(forward, backward, "A_log", "dt_proj", "dt_bias", "D"),
        shape.rows,
        shape.length,
        shape.inner,
        *strides(z),
        *strides(grad),
        *strides(by_z),
        shape.channels,
        BC=BACKWARD_CHANNELS,
        EVEN=shape.length % CHUNK == 0,
        **_scan_constants(forward),
    )
    return partial.sum(1)
