"""Pre-norm residual blocks over sequences, and how they meet the two axes of a clip."""

from torch import Tensor, nn

from model.layers import LN_EPS, MLP, DropPath
from model.mamba import BiMamba


class MambaBlock(nn.Module):
    """x + DropPath(mixer(LN(x))), then x + DropPath(MLP(LN(x))); (N, L, C) -> (N, L, C)."""

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

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mixer(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


def over_joints(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block over the J joints of each frame; x: (B, T, J, C) -> same."""
    return block(x.flatten(0, 1)).view(x.shape)


def over_frames(block: nn.Module, x: Tensor) -> Tensor:
    """Run a block over the T frames of each joint; x: (B, T, J, C) -> same."""
    batch, _, joints, _ = x.shape
    rows = x.transpose(1, 2).flatten(0, 1)  # (B J, T, C)
    return block(rows).unflatten(0, (batch, joints)).transpose(1, 2)
