"""How long, and in how much memory, Human3.6M at its full size is cut into clips of 243 frames.

    python -m tests.benchmarks.slicing --out DIR [--frames 1559752 566920]

Makes a file of random numbers in Human3.6M's layout in DIR, slices it with data/preprocess/h36m.py
and prints seconds and peak memory. DIR needs 3 GB; what is written there is removed at the end.
"""

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from lib.camera import H36M_CAMERAS
from lib.files import PROJECT_ROOT
from lib.numbers import whole_number

VIDEO = 1800  # frames of a video, about as long as Human3.6M's
ACTIONS = 15


def random_rows(rng: np.random.Generator, count: int, is_test: bool) -> dict:
    """`count` frames of one split, random numbers in the published layout."""

    def numbers(*shape: int) -> np.ndarray:
        return 1000 * rng.random((count, *shape), np.float32)

    videos = np.arange(count) // VIDEO
    cameras = list(H36M_CAMERAS)
    rows = {
        "joint_2d": numbers(17, 2),
        "confidence": numbers(17, 1) / 1000,
        "joint3d_image": numbers(17, 3),
        "camera_name": [cameras[video % 4] for video in videos],
        "source": [
            f"s_01_act_{video // 4 % ACTIONS:02d}_subact_{video // 60:02d}_ca_{video % 4:02d}"
            for video in videos
        ],
    }
    if is_test:
        rows |= {
            "action": [f"Action {video // 4 % ACTIONS}" for video in videos],
            "2.5d_factor": numbers() / 1000 + 3,
            "joints_2.5d_image": numbers(17, 3),
        }
    return rows


def make_file(path: Path, train: int, test: int) -> None:
    rng = np.random.default_rng(0)
    content = {"train": random_rows(rng, train, False), "test": random_rows(rng, test, True)}
    with open(path, "wb") as file:
        pickle.dump(content, file, protocol=4)


def slice_file(path: Path, n_frames: int) -> tuple[float, float]:
    """Seconds and peak memory (GB) of the command."""
    command = [sys.executable, str(PROJECT_ROOT / "data" / "preprocess" / "h36m.py")]
    command += ["--n-frames", str(n_frames), "--data-root", str(path.parent)]
    command += ["--dt-file", path.name]
    start = time.monotonic()
    process = os.posix_spawn(sys.executable, command, os.environ)
    _, status, usage = os.wait4(process, 0)
    if status:
        sys.exit("slicing failed")
    return time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder with 3 GB to spare")
    parser.add_argument("--frames", type=whole_number(1), nargs=2, default=[1_559_752, 566_920])
    parser.add_argument("--n-frames", type=whole_number(1), default=243)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="slicing-", dir=options.out))
    try:
        path = folder / "random.pkl"
        # In a process of its own: a child's peak memory begins with its parent's.
        maker = get_context("spawn").Process(target=make_file, args=(path, *options.frames))
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit("making the file failed")
        size = path.stat().st_size / 1e9
        seconds, memory = slice_file(path, options.n_frames)
        written = sum(p.stat().st_size for p in folder.rglob("*.npy")) / 1e9
    finally:
        shutil.rmtree(folder)
    frames = " + ".join(f"{n:,}" for n in options.frames)
    print(f"{frames} frames, T = {options.n_frames}: {seconds:.1f} s, {memory:.2f} GB peak memory")
    print(f"({size:.2f} GB read, {written:.2f} GB written)")


if __name__ == "__main__":
    main()
