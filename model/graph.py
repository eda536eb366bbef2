"""The graph convolution of the GCN-enhanced Mamba (GEM)."""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from model.norm import JointNorm
from model.ops import GraphWeights
from model.plain import is_plain


class GraphConv(nn.Module):
    """Each joint mixes with its neighbours in the skeleton: relu(x + BN(Â V x + U x)).

    Sources: Kipf & Welling 2017, eq. 2 (Â = D^-1/2 A D^-1/2, here without self loops); the split
    into U and V is MotionAGFormer's. Shapes: N frames, J joints, C channels.
    """

    adj: Tensor  # (J, J), Â

    def __init__(self, dim: int, adjacency: Tensor) -> None:
        """adjacency: (J, J), 0 or 1, in the order of the input's joints."""
        super().__init__()
        inv_sqrt_degree = adjacency.sum(-1).rsqrt()
        normalised = inv_sqrt_degree[:, None] * adjacency * inv_sqrt_degree
        # A buffer follows .to(device); derived from the skeleton, it stays out of checkpoints.
        self.register_buffer("adj", normalised.float(), persistent=False)
        self.own = nn.Linear(dim, dim)  # U
        self.neighbours = nn.Linear(dim, dim)  # V
        self.norm = JointNorm(adjacency.shape[0])  # one statistic for each joint
        for linear in (self.own, self.neighbours):
            nn.init.normal_(linear.weight, std=math.sqrt(2 / dim))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, J, C) -> (N, J, C)."""
        own, neighbours = self.own(x), self.neighbours(x)
        mixed = self.adj.to(own.dtype) @ neighbours + own
        return F.relu(x + self.norm(mixed))


class GraphInput(nn.Module):
    """What a GEM direction reads: LayerNorm, then the graph convolution over the joints.

    Both directions have one, with the joints in the skeleton's order. Published weights of the
    backward one have the joints reversed; lib/released.py turns them round.
    """

    def __init__(self, dim: int, adjacency: Tensor) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.conv = GraphConv(dim, adjacency)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., J, C) -> (..., J, C)."""
        y: Tensor = self.conv(self.norm(x).flatten(0, -3))
        return y.view(x.shape)

    @property
    def is_plain(self) -> bool:
        """Whether weights() and one eps alone decide what it computes."""
        conv = self.conv
        return (
            is_plain(self, GraphInput)
            and is_plain(self.norm, nn.LayerNorm)
            and is_plain(conv, GraphConv)
            and is_plain(conv.own, nn.Linear)
            and is_plain(conv.neighbours, nn.Linear)
            and is_plain(conv.norm, JointNorm)
            and self.norm.eps == conv.norm.eps
        )

    def weights(self) -> GraphWeights:
        norm, conv = self.norm, self.conv
        return GraphWeights(
            norm_weight=norm.weight,
            norm_bias=norm.bias,
            own=conv.own.weight,
            own_bias=conv.own.bias,
            neighbours=conv.neighbours.weight,
            neighbours_bias=conv.neighbours.bias,
            bn_weight=conv.norm.weight,
            bn_bias=conv.norm.bias,
            bn_mean=conv.norm.running_mean,
            bn_var=conv.norm.running_var,
        )
