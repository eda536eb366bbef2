"""Any video in, 3D poses out: `python demo/vis.py --video sample_video.mp4`."""

import sys
from pathlib import Path

if not __package__:  # run as a script: `demo/lib` must not be taken for the project's `lib`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from demo.command import main
from lib.cli import run_main

if __name__ == "__main__":
    run_main(main)
