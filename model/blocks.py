"""The pre-norm residual block over sequences, and its use along the two axes of a clip."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lib import memory
from lib.processes import is_parallel
from model.layers import LN_EPS, MLP, DropPath
from model.mamba import BiMamba
from model.norm import statistics_seen_before
from model.ops import BlockWeights, Settings, residual_block
from model.ops.operator import constant_result
from model.plain import has_global_hooks, is_plain

# Axes of a clip (B, T, J, C). Activations keep this order in memory; a scan along the frames reads
# with a stride.
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

    def forward(self, x: Tensor, axis: int = JOINTS, norm: nn.Module | None = None) -> Tensor:
        """axis: the one the mixer scans; norm: applied to the block's output."""
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

    def _forward(self, x: Tensor, axis: int, norm: nn.Module | None) -> Tensor:
        if self.recompute and not torch.compiler.is_compiling():
            memory.give_back_idle()
        if not weights_say_all(self, norm):
            return self._call_parts(x, axis, norm)
        masks = self.drop_path.mask(x, axis), self.drop_path.mask(x, axis)
        settings = self.settings(axis, norm)
        y, statistics = residual_block(
            x, self.weights(norm), settings, masks, batch_statistics=self.training
        )
        if x.numel() or is_parallel():  # a batch without clips has no statistics
            for graph, seen in zip(self.mixer.graphs, statistics, strict=True):
                if graph is not None and seen is not None:
                    graph.conv.norm.track(seen)
        return y

    def _call_parts(self, x: Tensor, axis: int, norm: nn.Module | None) -> Tensor:
        """Computes the same by calling each part, so that hooks run and replaced parts are used."""
        x = x + self._dropped(self.mixer(self.norm1(x), axis), axis)
        x = x + self._dropped(self.mlp(self.norm2(x)), axis)
        return x if norm is None else norm(x)

    def _dropped(self, branch: Tensor, axis: int) -> Tensor:
        drop = self.drop_path
        y: Tensor = drop(branch, axis) if isinstance(drop, DropPath) else drop(branch)
        return y

    def weights(self, norm: nn.Module | None = None) -> BlockWeights:
        """norm: the LayerNorm that the output goes through."""
        mixer, mlp = self.mixer, self.mlp
        assert norm is None or isinstance(norm, nn.LayerNorm)  # for the type
        forward, backward = mixer.graphs
        graph = forward or backward
        return BlockWeights(
            norm1_weight=self.norm1.weight,
            norm1_bias=self.norm1.bias,
            in_proj=mixer.in_proj.weight,
            out_proj=mixer.out_weight(),
            norm2_weight=self.norm2.weight,
            norm2_bias=self.norm2.bias,
            fc1=mlp.fc1.weight,
            fc1_bias=mlp.fc1.bias,
            fc2=mlp.fc2.weight,
            fc2_bias=mlp.fc2.bias,
            forward=mixer.forward_scan.weights(),
            backward=mixer.backward_scan.weights(),
            forward_graph=None if forward is None else forward.weights(),
            backward_graph=None if backward is None else backward.weights(),
            adjacency=None if graph is None else graph.conv.adj,
            last_weight=None if norm is None else norm.weight,
            last_bias=None if norm is None else norm.bias,
        )

    def settings(self, axis: int, norm: nn.Module | None = None) -> Settings:
        assert norm is None or isinstance(norm, nn.LayerNorm)  # for the type
        found = Settings(axis, self.norm1.eps)
        graph = self.mixer.forward_graph or self.mixer.backward_graph
        if graph is not None:
            found = found._replace(graph_eps=graph.norm.eps)
        return found if norm is None else found._replace(last_eps=norm.eps)


@constant_result
def weights_say_all(block: MambaBlock, norm: nn.Module | None) -> bool:
    """Whether a block, and the norm after it, compute what weights() and settings() say."""
    mixer, mlp = block.mixer, block.mlp
    return (
        not has_global_hooks()
        and (norm is None or is_plain(norm, nn.LayerNorm))
        and is_plain(block.norm1, nn.LayerNorm)
        and is_plain(block.norm2, nn.LayerNorm)
        and block.norm1.eps == block.norm2.eps
        and is_plain(block.drop_path, DropPath)
        and is_plain(mlp, MLP)
        and is_plain(mlp.fc1, nn.Linear)
        and is_plain(mlp.fc2, nn.Linear)
        and is_plain(mixer, BiMamba)
        and mixer.is_plain
    )


def recompute_blocks(model: nn.Module, recompute: bool) -> None:
    """Let every block keep only its input and compute the rest again in the backward pass.

    Results stay the same. A training step takes about a third longer and much less memory.
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
