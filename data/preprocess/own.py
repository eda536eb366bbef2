"""Cut your own 2D-3D pairs (docs/own_data.md) into clips: FILE.npz -> the folder FILE-T."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.benchmarks import BENCHMARKS
from data.preprocess.common import slice_command
from lib.cli import run_main


def main(argv: Sequence[str] | None = None) -> int:
    return slice_command(BENCHMARKS["own"], __doc__, argv)


if __name__ == "__main__":
    run_main(main)
