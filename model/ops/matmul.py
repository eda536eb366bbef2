"""Matrix products on the CPU by the fastest library that computes them in float32.

PyTorch's matmul precision "medium" hands them to oneDNN. With AVX-512 but no AMX, oneDNN still
computes in true float32, up to twice as fast as MKL on an AMD CPU. With AMX or bfloat16
instructions it may round the factors to 8 bits. So its results are first compared with float64.
"""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

import torch

TOLERANCE = 2e-6  # relative to the largest element; bfloat16 gives some 5e-3


@contextmanager
def matmul_precision(name: str) -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(name)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _error() -> float:
    """The largest relative error of products with the shapes of the model and its gradients."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for rows, depth, columns in ((512, 64, 128), (512, 256, 128), (128, 512, 64)):
        a, b = (torch.randn(s, generator=generator) for s in ((rows, depth), (columns, depth)))
        exact = a.double() @ b.double().T
        for product in (a @ b.T, torch.nn.functional.linear(a, b), (b @ a.T).T):
            worst = max(worst, ((product - exact).abs().max() / exact.abs().max()).item())
    return worst


@functools.cache
def medium_is_float32() -> bool:
    """Whether this CPU computes in float32 under the precision "medium"."""
    with torch.inference_mode(), matmul_precision("medium"):
        return _error() < TOLERANCE


@contextmanager
def fast_matmul(device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, products on the CPU take the fastest path found to be float32; restored after.

    Does nothing for another device, or if a precision has been chosen already. A training step's
    backward must be inside, too.
    """
    chosen = torch.get_float32_matmul_precision() != "highest"
    if torch.device(device).type != "cpu" or chosen or not medium_is_float32():
        yield
        return
    with matmul_precision("medium"):
        yield
