"""Stage 1: train the Bone Aware Module (or evaluate it with --eval-only)."""

from collections.abc import Sequence

import train
from lib.cli import run_main


def main(argv: Sequence[str] | None = None) -> int:
    return train.main(argv, 1, "checkpoint/stage1", "configs/h36m/first.yaml")


if __name__ == "__main__":
    run_main(main)
