"""Cut Human3.6M as VideoPose3D published it into clips: data_3d_h36m.npz and a data_2d_h36m_*.npz
(--dt-file) beside it -> a folder of the latter's name and T."""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.benchmarks import BENCHMARKS
from data.preprocess.common import slice_command
from lib.cli import run_main


def main(argv: Sequence[str] | None = None) -> int:
    return slice_command(BENCHMARKS["h36m_videopose3d"], __doc__, argv)


if __name__ == "__main__":
    run_main(main)
