"""Residual blocks by the C kernels where they apply; what they compute stays the same."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.ops import bidirectional_inner, native, resolve_backend
from model.ops.block import BlockWeights, GraphWeights, block_forward, takes_block
from model.ops.half_block import block_tail, norm_graph, norm_linears, takes_halves
from model.ops.operator import constant_result

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


def fused_inference(
    block: "MambaBlock", x: Tensor, axis: int, norm: nn.LayerNorm | None = None
) -> Tensor | None:
    """norm(block(x)) in one kernel, or None where it does not apply.

    It applies in eval mode without gradients.
    """
    if block.training or torch.is_grad_enabled() or x.dim() not in (3, 4) or not _takes_kernels(x):
        return None
    mixer, mlp = block.mixer, block.mlp
    joints = _joints(block, x)
    if joints and axis != -2:
        return None
    if not takes_block(x.shape[-1], mlp.fc1.out_features, joints):
        return None
    graphs = (mixer.forward_graph, mixer.backward_graph)
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
    return block_forward(
        x,
        weights,
        mixer.forward_scan.weights(),
        mixer.backward_scan.weights(),
        *(None if graph is None else _graph_weights(graph) for graph in graphs),
        mixer.forward_graph.conv.adj if joints else None,
        axis=axis,
        norm_eps=block.norm1.eps,
        last_norm=None if norm is None else (norm.weight, norm.bias),
        last_eps=0.0 if norm is None else norm.eps,
    )


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


def fused_training(block: "MambaBlock", x: Tensor, axis: int) -> Tensor | None:
    """The block's output with gradients, its scan and the halves around it by one kernel each.

    None where they do not apply.
    """
    mixer, mlp, norm1, norm2 = block.mixer, block.mlp, block.norm1, block.norm2
    if not _takes_kernels(x):
        return None
    if not takes_halves(x.shape[-1], mlp.fc1.out_features, _joints(block, x)):
        return None
    _settle_heap(block)
    halves = mixer.in_proj.weight.chunk(2)
    inner_x, z = norm_linears(x, norm1.weight, norm1.bias, *halves, norm1.eps)
    inner = bidirectional_inner(
        *(
            inner_x if graph is None else _graph_input(graph, inner_x)
            for graph in (mixer.forward_graph, mixer.backward_graph)
        ),
        z,
        mixer.forward_scan.weights(),
        mixer.backward_scan.weights(),
        axis=axis,
    )
    weights = (
        mixer.out_proj.weight,
        norm2.weight,
        norm2.bias,
        mlp.fc1.weight,
        mlp.fc1.bias,
        mlp.fc2.weight,
        mlp.fc2.bias,
    )
    masks = (block.drop_path.mask(x, axis) for _ in range(2))  # drawn in this order
    return block_tail(x, inner, *masks, weights, norm2.eps)


@constant_result
def _settle_heap(block: "MambaBlock") -> None:
    """What to do with the memory that a step frees: with recomputed blocks it must stay little."""
    native.keep_freed_memory()
    if block.recompute:
        native.give_back_memory(FREE_MEMORY_LIMIT)


def _graph_input(graph: "GraphInput", x: Tensor) -> Tensor:
    norm, conv = graph.norm, graph.conv
    normed, mixed = norm_graph(
        x,
        norm.weight,
        norm.bias,
        conv.neighbours.weight,
        conv.own.weight,
        conv.neighbours.bias,
        conv.own.bias,
        conv.adj,
        norm.eps,
    )
    return F.relu(normed + conv.norm(mixed.flatten(0, -3)).view(x.shape))
