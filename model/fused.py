"""Residual blocks by the C kernels where they apply; what they compute stays the same."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from lib.processes import is_parallel
from model.ops import native, resolve_backend
from model.ops.block import BlockWeights, GraphWeights, block_forward, takes_block
from model.ops.operator import constant_result
from model.ops.train_block import block_train, takes_training

if TYPE_CHECKING:
    from model.blocks import MambaBlock
    from model.mamba import GraphInput

FREE_MEMORY_LIMIT = 2**28  # bytes that may lie idle where memory matters


def _takes_kernels(x: Tensor) -> bool:
    """Whether the C backend runs on x: float32 on the CPU, and no other backend asked for."""
    if torch.is_autocast_enabled(x.device.type):
        return False
    return resolve_backend("auto", x.device, x.dtype)[0] == "c"


def _joints(block: "MambaBlock") -> int:
    """The length of the block's graph convolutions, 0 without."""
    for graph in (block.mixer.forward_graph, block.mixer.backward_graph):
        if graph is not None:
            return graph.conv.adj.shape[0]
    return 0


def _applies(block: "MambaBlock", x: Tensor, axis: int, takes: Callable[[int, int, int], bool]):
    """Whether the C backend runs on x, with kernels that take a block of this size.

    The sizes are the weights' and not x's: torch.compile knows those, where x's may be symbols.
    """
    if x.dim() not in (3, 4) or not _takes_kernels(x):
        return False
    joints, mlp = _joints(block), block.mlp
    return (not joints or axis == -2) and takes(mlp.fc1.in_features, mlp.fc1.out_features, joints)


def _arguments(
    block: "MambaBlock", axis: int, norm: nn.LayerNorm | None, log: bool = False
) -> tuple[list, dict]:
    """The weights and settings that both kernels of a block take, after x.

    log: with each direction's A_log in the place of A.
    """
    mixer, mlp, norm1, norm2 = block.mixer, block.mlp, block.norm1, block.norm2
    fc1, fc2 = mlp.fc1, mlp.fc2
    weights = BlockWeights(
        norm1.weight,
        norm1.bias,
        mixer.in_proj.weight,
        mixer.out_weight(),
        norm2.weight,
        norm2.bias,
        fc1.weight,
        fc1.bias,
        fc2.weight,
        fc2.bias,
    )
    directions = mixer.forward_scan.weights(log), mixer.backward_scan.weights(log)
    graphs = mixer.forward_graph, mixer.backward_graph
    settings = {"axis": axis, "norm_eps": norm1.eps}
    if norm is not None:
        settings |= {"last_norm": (norm.weight, norm.bias), "last_eps": norm.eps}
    adjacency = None
    for graph in graphs:
        if graph is not None:
            adjacency, settings["graph_eps"] = graph.conv.adj, graph.norm.eps
    graph_weights = (None if graph is None else _graph_weights(graph) for graph in graphs)
    return [weights, *directions, *graph_weights, adjacency], settings


def _graph_weights(graph: "GraphInput") -> GraphWeights:
    norm, conv = graph.norm, graph.conv
    own, neighbours, batch_norm = conv.own, conv.neighbours, conv.norm
    return GraphWeights(
        norm.weight,
        norm.bias,
        own.weight,
        own.bias,
        neighbours.weight,
        neighbours.bias,
        batch_norm.weight,
        batch_norm.bias,
        batch_norm.running_mean,
        batch_norm.running_var,
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
    arguments, settings = _arguments(block, axis, norm, log=True)
    masks = tuple(block.drop_path.mask(x, axis) for _ in range(2))  # drawn in this order
    y, statistics = block_train(x, *arguments, masks, batch_statistics=block.training, **settings)
    if block.training and (x.numel() or is_parallel()):  # a batch of no clips says nothing
        graphs = (block.mixer.forward_graph, block.mixer.backward_graph)
        for graph, seen in zip((g for g in graphs if g is not None), statistics, strict=True):
            mean, var, count = seen
            count = count if is_parallel() else x.numel() / x.shape[-2]
            graph.conv.norm.track(mean, var, count)
    return y


@constant_result
def _settle_heap(block: "MambaBlock") -> None:
    """What to do with the memory that a step frees: with recomputed blocks it must stay little."""
    native.keep_freed_memory()
    if block.recompute:
        native.give_back_memory(FREE_MEMORY_LIMIT)
