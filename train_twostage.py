"""Stage 2: train fusion and refinement on a frozen Bone Aware Module (or evaluate it)."""

from lib.cli import run_main
from train import main

if __name__ == "__main__":
    run_main(lambda: main(2, "checkpoint/stage2", "configs/h36m/large.yaml"))
