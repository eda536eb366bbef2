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

    adj: Tensor  # (J, J), Â

    def __init__(self, dim: int, adjacency: Tensor, reverse_joints: bool = False) -> None:
        """adjacency: (J, J), 0 or 1, in the skeleton's order, as the input's joints are.

        reverse_joints: BatchNorm's parameters are in the reversed order, as published weights of
        the backward direction are. All else is the same for it: Â reversed on reversed joints.
        """
        super().__init__()
        inv_sqrt_degree = adjacency.sum(-1).rsqrt()
        normalised = inv_sqrt_degree[:, None] * adjacency * inv_sqrt_degree
        # A buffer follows .to(device); derived from the skeleton, it stays out of checkpoints.
        self.register_buffer("adj", normalised.float(), persistent=False)
        self.own = nn.Linear(dim, dim)  # U
        self.neighbours = nn.Linear(dim, dim)  # V
        self.norm = JointNorm(adjacency.shape[0], reverse_joints)  # one statistic for each joint
        for linear in (self.own, self.neighbours):
            nn.init.normal_(linear.weight, std=math.sqrt(2 / dim))

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, J, C) -> (N, J, C)."""
        # V and U in one product: the input is read once.
        weight = torch.cat((self.neighbours.weight, self.own.weight))
        bias = torch.cat((self.neighbours.bias, self.own.bias))
        neighbours, own = F.linear(x, weight, bias).chunk(2, dim=-1)
        adjacency = self.adj.to(own.dtype).expand(len(x), -1, -1)
        mixed = torch.baddbmm(own, adjacency, neighbours)
        return F.relu(x + self.norm(mixed))
