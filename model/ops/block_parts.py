"""A block's tensors as csrc/train.h wants them: its weights, what its forward keeps, structures."""

from collections import namedtuple
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from model.ops import library as c
from model.ops import native
from model.ops.block import BlockWeights, GraphWeights
from model.ops.definition import DirectionWeights

# What is learnt of a graph convolution: all but BatchNorm's running statistics.
GraphLearnt = namedtuple("GraphLearnt", GraphWeights._fields[:-2])

# Where the list of both directions' weights has A_log.
_A = DirectionWeights._fields.index("A")
LOGS = (_A, len(DirectionWeights._fields) + _A)


def dense(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [t.contiguous() for t in tensors]


def empty_like(tensors: Iterable[Tensor]) -> list[Tensor]:
    return [torch.empty_like(t, memory_format=torch.contiguous_format) for t in tensors]


def _pointers(*tensors: Tensor | None) -> list[int | None]:
    return [None if t is None else t.data_ptr() for t in tensors]


class Block(NamedTuple):
    """A block's input and weights: dense, with decay rates A for A_log, joints in order."""

    x: Tensor  # (..., C)
    masks: tuple[Tensor | None, Tensor | None]
    weights: BlockWeights
    directions: list[Tensor]
    graphs: list[GraphLearnt | None]  # of both directions
    adjacency: Tensor | None
    last_norm: list[Tensor]
    axis: int
    eps: tuple[float, float, float]  # of the block's norms, of the last one, of the graphs'

    @classmethod
    def of(
        cls,
        x: Tensor,
        mask1: Tensor | None,
        mask2: Tensor | None,
        block: list[Tensor],
        directions: list[Tensor],
        graph_forward: list[Tensor],
        graph_backward: list[Tensor],
        adjacency: Tensor | None,
        last_norm: list[Tensor],
        axis: int,
        *eps: float,
    ) -> "Block":
        directions = dense(directions)
        for at in LOGS:
            directions[at] = directions[at].exp().neg_()
        graphs = [GraphLearnt(*dense(g)) if g else None for g in (graph_forward, graph_backward)]
        if graphs[1]:  # its BatchNorm's joints are reversed
            weight, bias = graphs[1].bn_weight.flip(0), graphs[1].bn_bias.flip(0)
            graphs[1] = graphs[1]._replace(bn_weight=weight, bn_bias=bias)
        x, mask1, mask2, adjacency = (
            t if t is None else t.contiguous() for t in (x, mask1, mask2, adjacency)
        )
        weights, last_norm = BlockWeights(*dense(block)), dense(last_norm)
        return cls(x, (mask1, mask2), weights, directions, graphs, adjacency, last_norm, axis, eps)

    def scanned(self, *tensors: Tensor) -> list[Tensor]:
        """Views (..., L, C) with the scanned axis at L."""
        return [t.transpose(self.axis, -2) for t in tensors]


class Kept(NamedTuple):
    """What the forward leaves for the backward."""

    inner_x: Tensor  # the head's outputs, (..., C)
    z: Tensor
    inner: Tensor  # the scan's output, (..., C)
    states: Tensor
    before_last: list[Tensor]  # with a last norm: what that is of
    graphs: list[list[Tensor]]  # of each that there is: output, mix and statistics (3, J)

    @classmethod
    def room_for(cls, block: Block, keep: bool) -> "Kept":
        x = block.x
        inner_x, z, inner = empty_like([x] * 3)
        states = native.empty_states(*block.scanned(z), block.directions, keep)
        graphs = [[*empty_like([x, x]), x.new_empty(3, x.shape[-2])] for g in block.graphs if g]
        return cls(inner_x, z, inner, states, empty_like([x] * bool(block.last_norm)), graphs)

    def flat(self) -> list[Tensor]:
        return [*self[:4], *self.before_last, *(t for graph in self.graphs for t in graph)]

    @classmethod
    def of(cls, tensors: list[Tensor], block: Block) -> "Kept":
        """flat(), backwards."""
        start = 5 if block.last_norm else 4
        graphs = [tensors[i : i + 3] for i in range(start, len(tensors), 3)]
        return cls(*tensors[:4], tensors[4:start], graphs)

    def per_direction(self, block: Block) -> list[list[Tensor] | None]:
        """graphs, with None where a direction has none."""
        rest = iter(self.graphs)
        return [next(rest) if graph else None for graph in block.graphs]


def train_struct(
    block: Block, kept: Kept, head_out: tuple[Tensor, Tensor], inner_out: Tensor, out: Tensor
) -> tuple[c.Train, list[Tensor]]:
    """The structure, and scratch that must live as long.

    head_out, inner_out, out: outputs, or the derivatives by them.
    """
    x, w = block.x, block.weights
    rows, channels = x.numel() // x.shape[-1], x.shape[-1]
    norm_eps, last_eps, graph_eps = block.eps
    head = c.Head(
        rows, channels, *_pointers(x, w.norm1_weight, w.norm1_bias, w.in_proj),
        (c.Pointer * 2)(*_pointers(*head_out)), norm_eps,
    )  # fmt: skip
    graphs, scratch, scans = [], [], []
    for weights, saved in zip(block.graphs, kept.per_direction(block), strict=True):
        if saved is None:
            graphs.append(c.Graph())
            scans.append(kept.inner_x)
            continue
        graph_out, mixed, statistics = saved
        scratch.append(x.new_empty(rows, 2))
        pointers = _pointers(
            kept.inner_x, *weights, block.adjacency, mixed, graph_out, scratch[-1], statistics
        )
        graphs.append(c.Graph(rows, channels, x.shape[-2], *pointers, graph_eps))
        scans.append(graph_out)
    forward, backward, gate, y = block.scanned(*scans, kept.z, inner_out)
    inner = native.inner_struct(forward, backward, gate, block.directions, y, kept.states)
    last_norm, before_last = block.last_norm or (None, None), kept.before_last or (None,)
    tail = c.Tail(
        rows, channels, w.fc1.shape[0],
        *_pointers(x, kept.inner, *block.masks, *w[3:], *last_norm, *before_last, out),
        norm_eps, last_eps,
    )  # fmt: skip
    return c.Train(head, (c.Graph * 2)(*graphs), inner, tail), scratch


class Gradients(NamedTuple):
    """Of a block, to be written; the graphs' in the order of Block.graphs, joints in order."""

    x: Tensor
    weights: BlockWeights
    directions: list[Tensor]
    graphs: list[GraphLearnt | None]
    last_norm: list[Tensor]

    @classmethod
    def room_for(cls, block: Block) -> "Gradients":
        graphs = [GraphLearnt(*empty_like(g)) if g else None for g in block.graphs]
        (x,), directions, last = map(empty_like, ([block.x], block.directions, block.last_norm))
        return cls(x, BlockWeights(*empty_like(block.weights)), directions, graphs, last)

    def flat(self, block: Block) -> list[Tensor]:
        """By x and the weights as they were given: A_log, reversed joints."""
        for at in LOGS:
            self.directions[at].mul_(block.directions[at])  # dA / dA_log = A
        forward, backward = (list(g or ()) for g in self.graphs)
        backward[-2:] = [t.flip(0) for t in backward[-2:]]
        return [self.x, *self.weights, *self.directions, *forward, *backward, *self.last_norm]


def grads_struct(
    block: Block, by: Gradients, by_head: tuple[Tensor, Tensor], by_inner: Tensor
) -> tuple[c.TrainGrads, list[Tensor | None]]:
    """The structure, and of each graph the totals (2, J) that it exchanges.

    by_head, by_inner: scratch for the derivatives by the head's outputs and the scan's output.
    """
    by_inner_x, by_z = by_head
    w = by.weights
    graphs, totals, by_scans = [], [], []
    for weights in by.graphs:
        if weights is None:
            graphs.append(c.GraphGrads())
            totals.append(None)
            by_scans.append(by_inner_x)
            continue
        by_scans.append(torch.empty_like(by_inner_x))
        totals.append(by_z.new_empty(2, by_z.shape[-2]))
        graphs.append(c.GraphGrads(*_pointers(by_scans[-1], totals[-1], by_inner_x, *weights)))
    inner = native.inner_grads_struct(*block.scanned(*by_scans, by_z), by.directions)
    last_norm = by.last_norm or (None, None)
    struct = c.TrainGrads(
        c.HeadGrads(*_pointers(by.x, w.norm1_weight, w.norm1_bias, w.in_proj)),
        (c.GraphGrads * 2)(*graphs),
        inner,
        c.TailGrads(*_pointers(by.x, by_inner, *w[3:], *last_norm)),
    )
    return struct, [*totals, *by_scans]
