"""Blocks as one kernel call when no gradient is wanted; what they compute stays the same."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.ops import resolve_backend
from model.ops.block import BlockWeights, GraphWeights, block_forward, takes_block

if TYPE_CHECKING:
    from model.blocks import MambaBlock
    from model.mamba import GraphInput


def fused_block(block: "MambaBlock", x: Tensor, axis: int) -> Tensor | None:
    """The block's output by the C kernel, or None where it does not apply.

    It applies in eval mode, without gradients, in float32 on the CPU where the C backend runs.
    """
    if block.training or torch.is_grad_enabled() or torch.is_autocast_enabled(x.device.type):
        return None
    if x.dim() not in (3, 4) or resolve_backend("auto", x.device, x.dtype)[0] != "c":
        return None
    mixer, mlp = block.mixer, block.mlp
    graphs = [mixer.forward_graph, mixer.backward_graph]
    has_graph = any(graph is not None for graph in graphs)
    if has_graph and axis != -2:
        return None
    if not takes_block(x.shape[-1], mlp.fc1.out_features, x.shape[-2] if has_graph else 0):
        return None
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
        mixer.forward_graph.conv.adj if has_graph else None,
        axis=axis,
        norm_eps=block.norm1.eps,
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
