"""Pre-norm residual blocks over sequences, and how they meet the two axes of a clip."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.fused import fused_inference, fused_training
from model.layers import LN_EPS, MLP, DropPath
from model.mamba import BiMamba
from model.norm import statistics_seen_before

# Axes of a clip (B, T, J, C). Activations stay in this order in memory; a scan along the frames
# steps over it with strides.
JOINTS, FRAMES = -2, -3


class MambaBlock(nn.Module):
    """x + DropPath(mixer(LN(x))), then x + DropPath(MLP(LN(x))); (..., C) -> (..., C)."""

    def __init__(
        self,
        dim: int,
        d_state: int,
        d_conv: int,
        drop_path: float = 0.0,
        adjacency: Tensor | None = None,
        backward_graph: bool = True,
    ) -> None:
        """adjacency: makes the mixer a GEM over joints, see BiMamba."""
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=LN_EPS)
        self.mixer = BiMamba(dim, d_state, d_conv, adjacency, backward_graph)
        self.norm2 = nn.LayerNorm(dim, eps=LN_EPS)
        self.mlp = MLP(dim, 2 * dim)
        self.drop_path = DropPath(drop_path)
        self.recompute = False  # see recompute_blocks()

    def forward(self, x: Tensor, axis: int = JOINTS, norm: nn.LayerNorm | None = None) -> Tensor:
        """axis: the one the mixer scans; norm: applied to the block's output."""
        fused = fused_inference(self, x, axis, norm)
        if fused is not None:
            return fused
        if self.recompute and torch.is_grad_enabled():
            recomputed: Tensor = checkpoint(
                self._forward,
                x,
                axis,
                norm,
                use_reentrant=False,
                context_fn=lambda: (nullcontext(), statistics_seen_before(self)),
            )
            return recomputed
        return self._forward(x, axis, norm)

    def _forward(self, x: Tensor, axis: int, norm: nn.LayerNorm | None) -> Tensor:
        fused = fused_training(self, x, axis, norm)
        if fused is not None:
            return fused
        x = self.drop_path.add(x, self.mixer(self.norm1(x), axis), axis)
        x = self.drop_path.add(x, self.mlp(self.norm2(x)), axis)
        return x if norm is None else norm(x)


def recompute_blocks(model: nn.Module, recompute: bool = True) -> None:
    """Have every block keep its input only and compute the rest again in the backward.

    Results are the same; a training step takes about a third longer and a fraction of the memory.
    """
    for module in model.modules():
        if isinstance(module, MambaBlock):
            module.recompute = recompute


def over_joints(block: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    """norm(block) over the J joints of each frame; x: (B, T, J, C) -> same."""
    y: Tensor = block(x, JOINTS, norm)
    return y


def over_frames(block: nn.Module, x: Tensor, norm: nn.Module | None = None) -> Tensor:
    """norm(block) over the T frames of each joint; x: (B, T, J, C) -> same."""
    y: Tensor = block(x, FRAMES, norm)
    return y
