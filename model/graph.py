"""The graph convolution of the GCN-enhanced Mamba (GEM)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.norm import JointNorm


class GraphConv(nn.Module):
    """Each joint mixes with its neighbours in the skeleton: relu(x + BN(Â V x + U x)).

    Sources: Kipf & Welling 2017, eq. 2 (Â = D^-1/2 A D^-1/2, here without self loops); the split
    into U and V is MotionAGFormer's. Shapes: N frames, J joints, C channels.
    """

    def __init__(self, dim: int, adjacency: Tensor) -> None:
        """adjacency: (J, J), 0 or 1, in the joint order this layer sees."""
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
        mixed = torch.matmul(self.adj, self.neighbours(x)) + self.own(x)
        return F.relu(x + self.norm(mixed))
