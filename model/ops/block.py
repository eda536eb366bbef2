"""A whole residual block in one kernel, for inference: see csrc/block.h."""

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

from model.ops import library as c
from model.ops import native
from model.ops.definition import DirectionWeights
from model.ops.operator import Operator, constant_result


class BlockWeights(NamedTuple):
    """What is around the mixer's inner block, C channels and H hidden ones."""

    norm1_weight: Tensor  # (C,)
    norm1_bias: Tensor  # (C,)
    in_proj: Tensor  # (2C, C)
    out_proj: Tensor  # (C, C)
    norm2_weight: Tensor  # (C,)
    norm2_bias: Tensor  # (C,)
    fc1: Tensor  # (H, C)
    fc1_bias: Tensor  # (H,)
    fc2: Tensor  # (C, H)
    fc2_bias: Tensor  # (C,)


class GraphWeights(NamedTuple):
    """LayerNorm, graph convolution and BatchNorm (in eval mode) of one direction, J joints."""

    norm_weight: Tensor  # (C,)
    norm_bias: Tensor  # (C,)
    own: Tensor  # (C, C): U
    own_bias: Tensor  # (C,)
    neighbours: Tensor  # (C, C): V
    neighbours_bias: Tensor  # (C,)
    bn_weight: Tensor  # (J,)
    bn_bias: Tensor  # (J,)
    bn_mean: Tensor  # (J,)
    bn_var: Tensor  # (J,)


@constant_result
def takes_block(dim: int, hidden: int, joints: int) -> bool:
    """Whether the kernel can do blocks of this size: whole vectors of channels."""
    library = native.loaded()
    lanes = library.mdtf_lanes()
    return dim % lanes == 0 and hidden % lanes == 0 and joints <= library.mdtf_max_joints()


@Operator("mdtf::block_forward")
def _block_forward(
    x: Tensor,
    block: list[Tensor],
    directions: list[Tensor],
    graph_forward: list[Tensor],
    graph_backward: list[Tensor],
    adjacency: Tensor | None,
    last_norm: list[Tensor],
    norm_eps: float,
    last_eps: float,
    graph_eps: float,
) -> Tensor:
    x = native.dense_channels(x)
    out = native.like(x)
    conv_weight, _, _, dt_proj, _, A, _ = directions[:7]
    block, directions, graph_forward, graph_backward, last_norm = (
        [w.contiguous() for w in weights]
        for weights in (block, directions, graph_forward, graph_backward, last_norm)
    )
    if adjacency is not None:
        adjacency = adjacency.contiguous()
    graphs = (
        c.GraphWeights(*(w.data_ptr() for w in graph)) for graph in (graph_forward, graph_backward)
    )
    struct = c.Block(
        c.shape(x, states=A.shape[1], rank=dt_proj.shape[1], taps=conv_weight.shape[-1]),
        c.view(x),
        c.view(out),
        *(w.data_ptr() for w in block),
        *([w.data_ptr() for w in last_norm] or (None, None)),
        c.both_weights(directions),
        (c.GraphWeights * 2)(*graphs),
        None if adjacency is None else adjacency.data_ptr(),
        block[6].shape[0],
        (ctypes.c_int64 * 2)(0, 1),
        norm_eps,
        last_eps,
        graph_eps,
    )
    c.call(native.loaded().mdtf_block_forward, struct)
    return out


@_block_forward.register_fake
def _(
    x,
    block,
    directions,
    graph_forward,
    graph_backward,
    adjacency,
    last_norm,
    norm_eps,
    last_eps,
    graph_eps,
):
    return native.like(x)


def _named(weights: NamedTuple, sizes: NamedTuple) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    return dict(zip(weights._fields, zip(weights, sizes, strict=True), strict=True))


def check_block(
    x: Tensor,
    block: BlockWeights,
    forward: DirectionWeights,
    backward: DirectionWeights,
    graph_forward: GraphWeights | None,
    graph_backward: GraphWeights | None,
    adjacency: Tensor | None,
    last_norm: tuple[Tensor, Tensor] | None,
) -> None:
    """Raise ValueError where a size, type or device is not as the kernels trust it to be."""
    channels, hidden = x.shape[-1], block.fc1.shape[0]
    square, vector = (channels, channels), (channels,)
    sizes = BlockWeights(
        vector, vector, (2 * channels, channels), square, vector, vector,
        (hidden, channels), (hidden,), (channels, hidden), vector,
    )  # fmt: skip
    native.check_tensors(x, _named(block, sizes))
    if last_norm:
        names = ("last_norm.weight", "last_norm.bias")
        native.check_tensors(x, {n: (w, vector) for n, w in zip(names, last_norm, strict=True)})
    native.check_direction(x, forward)
    native.check_direction(x, backward)
    for graph in (graph_forward, graph_backward):
        if graph is not None:
            joints = (x.shape[-2],)
            sizes = GraphWeights(vector, vector, square, vector, square, vector, *[joints] * 4)
            native.check_tensors(x, _named(graph, sizes))
            native.check_tensors(x, {"adjacency": (adjacency, joints * 2)})


def block_forward(
    x: Tensor,
    block: BlockWeights,
    forward: DirectionWeights,
    backward: DirectionWeights,
    graph_forward: GraphWeights | None,
    graph_backward: GraphWeights | None,
    adjacency: Tensor | None,
    *,
    axis: int,
    norm_eps: float,
    last_norm: tuple[Tensor, Tensor] | None = None,
    last_eps: float = 1e-5,
    graph_eps: float = 1e-5,
) -> Tensor:
    """x (B, T, J, C) or (N, L, C) -> same, without gradients.

    axis: the scanned one; adjacency: (J, J) normalised, needed with a graph. The backward graph's
    BatchNorm has its joints in the reversed order. last_norm: weight and bias of a LayerNorm that
    the output goes through.
    """
    check_block(x, block, forward, backward, graph_forward, graph_backward, adjacency, last_norm)
    out = torch.ops.mdtf.block_forward(
        x.transpose(axis, -2),
        list(block),
        [*forward, *backward],
        list(graph_forward or ()),
        list(graph_backward or ()),
        adjacency,
        list(last_norm or ()),
        norm_eps,
        last_eps,
        graph_eps,
    )
    return out.transpose(axis, -2)
