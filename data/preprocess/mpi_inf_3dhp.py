"""Cut MPI-INF-3DHP into clips: data_train_3dhp.npz and data_test_3dhp.npz in --data-root, or the
files as published in --raw DIR -> data_root/MPI-INF-3DHP-{T}/.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from data.benchmarks import BENCHMARKS
from data.preprocess.common import slice_command
from lib.cli import run_main

RAW = (
    "folder with S1/Seq1/annot.mat … and TS1/annot_data.mat … (also one level below), in place of"
    " the .npz files; needs requirements-mpi.txt"
)


def main(argv: Sequence[str] | None = None) -> int:
    return slice_command(BENCHMARKS["mpi_inf_3dhp"], __doc__, argv, n_frames=81, raw=RAW)


if __name__ == "__main__":
    run_main(main)
