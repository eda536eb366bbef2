"""Stage 1: train the Bone Aware Module (or evaluate it with --eval-only)."""

from lib.cli import run_main
from train import main

if __name__ == "__main__":
    run_main(lambda: main(1, "checkpoint/stage1", "configs/h36m/first.yaml"))
