"""Residual blocks by the C kernels where they apply; what they compute stays the same."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from model.ops import native, resolve_backend
from model.ops.block import BlockWeights, GraphWeights, block_forward, takes_block
from model.ops.operator import constant_result
from model.ops.train_block import block_train, takes_training

if TYPE_CHECKING:
    from model.blocks import MambaBlock
    from model.mamba import GraphInput

FREE_MEMORY_LIMIT = 3 * 2**28  # bytes that may lie idle where memory matters


def _takes_kernels(x: Tensor) -> bool:
    """Whether the C backend runs on x: float32 on the CPU, and no other backend asked for."""
    if torch.is_autocast_enabled(x.device.type):
        return False
    return resolve_backend("auto", x.device, x.dtype)[0] == "c"


def _joints(block: "MambaBlock", x: Tensor) -> int:
    """The length of the block's graph convolutions, 0 without."""
    mixer = block.mixer
    has_graph = mixer.forward_graph is not None or mixer.backward_graph is not None
    return x.shape[-2] if has_graph else 0


def _applies(block: "MambaBlock", x: Tensor, axis: int, takes: Callable[[int, int, int], bool]):
    """Whether the C backend runs on x, with kernels that take a block of this size."""
    if x.dim() not in (3, 4) or not _takes_kernels(x):
        return False
    joints = _joints(block, x)
    return (not joints or axis == -2) and takes(x.shape[-1], block.mlp.fc1.out_features, joints)


def _arguments(block: "MambaBlock", axis: int, norm: nn.LayerNorm | None) -> tuple[list, dict]:
    """The weights and settings that both kernels of a block take, after x."""
    mixer, mlp = block.mixer, block.mlp
    weights = BlockWeights(
        block.norm1.weight,
        block.norm1.bias,
        mixer.in_proj.weight,
        mixer.out_proj.weight,
        block.norm2.weight,
        block.norm2.bias,
        mlp.fc1.weight,
        mlp.fc1.bias,
        mlp.fc2.weight,
        mlp.fc2.bias,
    )
    graphs = [g for g in (mixer.forward_graph, mixer.backward_graph) if g is not None]
    arguments = [
        weights,
        mixer.forward_scan.weights(),
        mixer.backward_scan.weights(),
        None if mixer.forward_graph is None else _graph_weights(mixer.forward_graph),
        None if mixer.backward_graph is None else _graph_weights(mixer.backward_graph),
        graphs[0].conv.adj if graphs else None,
    ]
    settings = {"axis": axis, "norm_eps": block.norm1.eps}
    if norm is not None:
        settings |= {"last_norm": (norm.weight, norm.bias), "last_eps": norm.eps}
    if graphs:
        settings["graph_eps"] = graphs[0].norm.eps
    return arguments, settings


def _graph_weights(graph: "GraphInput") -> GraphWeights:
    conv = graph.conv
    return GraphWeights(
        graph.norm.weight,
        graph.norm.bias,
        conv.own.weight,
        conv.own.bias,
        conv.neighbours.weight,
        conv.neighbours.bias,
        conv.norm.weight,
        conv.norm.bias,
        conv.norm.running_mean,
        conv.norm.running_var,
    )


def fused_inference(
    block: "MambaBlock", x: Tensor, axis: int, norm: nn.LayerNorm | None = None
) -> Tensor | None:
    """norm(block(x)) in one kernel, or None where it does not apply.

    It applies in eval mode without gradients.
    """
    if block.training or torch.is_grad_enabled() or not _applies(block, x, axis, takes_block):
        return None
    arguments, settings = _arguments(block, axis, norm)
    return block_forward(x, *arguments, **settings)


def fused_training(
    block: "MambaBlock", x: Tensor, axis: int, norm: nn.LayerNorm | None = None
) -> Tensor | None:
    """norm(block(x)) with gradients as one operator, or None where it does not apply."""
    if not _applies(block, x, axis, takes_training):
        return None
    _settle_heap(block)
    arguments, settings = _arguments(block, axis, norm)
    masks = tuple(block.drop_path.mask(x, axis) for _ in range(2))  # drawn in this order
    y, statistics = block_train(x, *arguments, masks, batch_statistics=block.training, **settings)
    if block.training:
        graphs = (block.mixer.forward_graph, block.mixer.backward_graph)
        for graph, seen in zip((g for g in graphs if g is not None), statistics, strict=True):
            graph.conv.norm.track(*seen)
    return y


@constant_result
def _settle_heap(block: "MambaBlock") -> None:
    """What to do with the memory that a step frees: with recomputed blocks it must stay little."""
    native.keep_freed_memory()
    if block.recompute:
        native.give_back_memory(FREE_MEMORY_LIMIT)
