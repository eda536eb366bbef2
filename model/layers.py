"""Small layers shared by all blocks."""

import torch.nn.functional as F
from torch import Tensor, nn

from lib.random_state import rand_rows

LN_EPS = 1e-6  # of every LayerNorm but the mixer's and the head's, which keep PyTorch's 1e-5


class MLP(nn.Module):
    """Linear, exact (erf) GELU, Linear; (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x)))
        return y


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, drop whole rows of a residual branch.

    A row is one sequence: a frame's joints in a spatial block, a joint's frames in a temporal one.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def mask(self, x: Tensor, axis: int) -> Tensor | None:
        """The factor of each row of a branch x (..., C); None stands for 1. Rows lie along `axis`.

        Kept rows are scaled by 1 / (1 - rate), so the expected value stays the same.
        """
        if not self.training or self.rate == 0:
            return None
        keep = 1 - self.rate
        shape = list(x.shape)
        shape[axis] = shape[-1] = 1
        return (rand_rows(shape, x.device) < keep).to(x.dtype) / keep

    def forward(self, x: Tensor, axis: int = -2) -> Tensor:
        mask = self.mask(x, axis)
        return x if mask is None else x * mask

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"
