"""Small layers shared by all blocks."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.parallel import rand_rows

LN_EPS = 1e-6  # of every LayerNorm but the mixer's and the head's, which keep PyTorch's 1e-5


class _GeluLinear(torch.autograd.Function):
    """linear(gelu(x)), whose backward computes gelu(x) again.

    A kept gelu(x) would be an eighth of all memory that a training step takes.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(F.gelu(x), weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        rows = grad.flatten(0, -2)
        grad_weight = rows.T @ F.gelu(x).flatten(0, -2)
        grad_x = torch.ops.aten.gelu_backward(grad @ weight, x)
        return grad_x, grad_weight, rows.sum(0)


class MLP(nn.Module):
    """Linear, exact (erf) GELU, Linear; (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.fc1(x)
        in_float32 = not torch.is_autocast_enabled(x.device.type)
        if torch.is_grad_enabled() and in_float32 and not torch.compiler.is_compiling():
            return _GeluLinear.apply(hidden, self.fc2.weight, self.fc2.bias)
        return self.fc2(F.gelu(hidden))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training, drop whole rows of a residual branch.

    A row is one sequence: a frame's joints in a spatial block, a joint's frames in a temporal one.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def mask(self, x: Tensor, axis: int = -2) -> Tensor | None:
        """What a branch x (..., C) is multiplied with; None for 1. A row lies along `axis`.

        Kept rows are scaled by 1 / (1 - rate), so the expectation stays.
        """
        if not self.training or self.rate == 0:
            return None
        keep = 1 - self.rate
        shape = list(x.shape)
        shape[axis] = shape[-1] = 1
        mask = (rand_rows(math.prod(shape), x.device) < keep).to(x.dtype) / keep
        return mask.view(shape)

    def forward(self, x: Tensor, axis: int = -2) -> Tensor:
        mask = self.mask(x, axis)
        return x if mask is None else x * mask

    def add(self, x: Tensor, branch: Tensor, axis: int = -2) -> Tensor:
        """x + forward(branch), in one pass over memory."""
        mask = self.mask(branch, axis)
        return x + branch if mask is None else torch.addcmul(x, branch, mask)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"
