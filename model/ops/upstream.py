"""The CUDA kernels of mamba-ssm and causal-conv1d, where they are installed.

Both want (batch, channels, length) and know one direction only: the transposes and flips that the
rest of the project avoids happen here.
Sources: github.com/state-spaces/mamba, github.com/Dao-AILab/causal-conv1d.
"""

import importlib

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from model.ops.backend import Backend
from model.ops.weights import DirectionWeights


def missing() -> str | None:
    """Why the upstream kernels cannot run, or None if they can.

    The packages can be imported without their compiled parts, and then fail or are very slow when
    called. So this imports the compiled parts.
    """
    for module in ("selective_scan_cuda", "causal_conv1d_cuda"):
        try:
            importlib.import_module(module)
        except Exception as error:  # a broken CUDA build fails with much more than ImportError
            return f"{module} does not import ({type(error).__name__}: {error})".splitlines()[0]
    return None


def _channels_first(x: Tensor, reverse: bool) -> Tensor:
    """(..., L, C) -> (rows, C, L), flipped in time for the backward direction."""
    x = rearrange(x, "... l c -> (...) c l")
    return (x.flip(-1) if reverse else x).contiguous()


def _channels_last(x: Tensor, shape: tuple[int, ...], reverse: bool) -> Tensor:
    x = x.flip(-1) if reverse else x
    return rearrange(x, "rows c l -> rows l c").reshape(shape)


def _direction(x: Tensor, weights: DirectionWeights, reverse: bool) -> Tensor:
    """One direction before its gate; stays channels-first between the two kernels."""
    from causal_conv1d import causal_conv1d_fn
    from mamba_ssm.ops.selective_scan_interface import selective_scan_fn

    rank, states = weights.dt_proj.shape[1], weights.A_log.shape[1]
    u = causal_conv1d_fn(
        _channels_first(x, reverse),
        weights.conv_weight.squeeze(1),
        weights.conv_bias,
        activation="silu",
    )
    projected = F.linear(rearrange(u, "rows c l -> rows l c"), weights.x_proj)
    dt, B, C = projected.split([rank, states, states], dim=-1)
    delta = F.linear(dt, weights.dt_proj)
    y = selective_scan_fn(
        u,
        _channels_first(delta, False),
        -torch.exp(weights.A_log),
        _channels_first(B, False),
        _channels_first(C, False),
        weights.D,
        delta_bias=weights.dt_bias,
        delta_softplus=True,
    )
    return _channels_last(y, x.shape, reverse)


class Upstream(Backend):
    name = "mamba_ssm"
    device = "cuda"

    def obstacle(self, device: torch.device, dtype: torch.dtype) -> str | None:
        if device.type != "cuda":
            return f"the upstream kernels need CUDA tensors, these are on {device.type}"
        return missing()

    def inner(
        self,
        x_forward: Tensor,
        x_backward: Tensor,
        z: Tensor,
        forward: DirectionWeights,
        backward: DirectionWeights,
    ) -> Tensor:
        y = _direction(x_forward, forward, False) + _direction(x_backward, backward, True)
        return 0.5 * y * F.silu(z)
