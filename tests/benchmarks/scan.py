"""The bidirectional inner block by itself, backend against backend, forward and backward.

    python -m tests.benchmarks.scan [--threads 2] [--repeats 5] [--json FILE]

Shapes are those of one 243-frame clip (Tiny: 64 channels, Large: 128, stage 1: down to 8).
"""

import torch
from torch import Tensor

from lib.cli import run_main
from lib.timing import interleaved
from model.mamba import ScanDirection
from model.ops import bidirectional_inner
from tests.benchmarks.timing import parser, report

SHAPES = [(243, 17, 64), (17, 243, 64), (243, 17, 128), (17, 243, 128), (243, 17, 8), (17, 243, 8)]


def directions(channels: int) -> tuple[ScanDirection, ScanDirection]:
    torch.manual_seed(0)
    return ScanDirection(channels, 16, 4), ScanDirection(channels, 16, 4)


def forward(xz: Tensor, pair: tuple[ScanDirection, ScanDirection], backend: str) -> Tensor:
    x, z = xz.chunk(2, dim=-1)
    return bidirectional_inner(x, x, z, *(d.weights() for d in pair), backend=backend)


def measure(rows: int, length: int, channels: int, backend: str):
    pair = directions(channels)
    xz = torch.randn(rows, length, 2 * channels)

    def inference() -> None:
        with torch.inference_mode():
            forward(xz, pair, backend)

    def training() -> None:
        y = forward(xz.clone().requires_grad_(), pair, backend)
        y.backward(torch.ones_like(y))

    return inference, training


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--backends", nargs="+", default=["sequential", "torch", "c"])
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    rows = []
    for shape in SHAPES:
        runs = {backend: measure(*shape, backend) for backend in options.backends}
        inference = interleaved({b: run[0] for b, run in runs.items()}, options.repeats)
        training = interleaved({b: run[1] for b, run in runs.items()}, options.repeats)
        updates = 2 * 16 * shape[0] * shape[1] * shape[2]  # directions, states
        for backend in runs:
            rows.append(
                {
                    "(rows, steps, channels)": str(shape),
                    "backend": backend,
                    "forward ms": inference[backend] * 1e3,
                    "forward + backward ms": training[backend] * 1e3,
                    "G state updates/s": updates / inference[backend] * 1e-9,
                }
            )
    report(options, {"Bidirectional inner block": rows})


if __name__ == "__main__":
    run_main(main)
