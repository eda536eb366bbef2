"""Stage 2: train fusion and refinement on a frozen Bone Aware Module (or evaluate it)."""

from collections.abc import Sequence

import train
from lib.cli import run_main


def main(argv: Sequence[str] | None = None) -> int:
    return train.main(argv, 2, "checkpoint/stage2", "configs/h36m/large.yaml")


if __name__ == "__main__":
    run_main(main)
