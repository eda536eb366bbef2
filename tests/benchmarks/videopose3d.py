"""How long, and in how much memory, VideoPose3D's files at their full size are cut and scored.

    python -m tests.benchmarks.videopose3d --out DIR [--frames 1559752 543344]

Makes random files in that layout in DIR, cuts them into clips of 243 frames with
data/preprocess/h36m_videopose3d.py, scores noisy ground truth on all test windows, and prints
seconds, CPU time and peak memory of each. DIR needs 2 GB; what is written there is removed at the
end.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from data.benchmarks import BENCHMARKS
from data.sources.h36m_cameras import CAMERAS, PLACEMENTS, project
from data.sources.videopose3d import DETECTIONS, JOINTS, LEFT_OUT, POSES, SUBJECTS
from data.store import ArrayClips
from lib.numbers import whole_number

BENCHMARK = BENCHMARKS["h36m_videopose3d"]
ACTIONS = [
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases",
    "Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "WalkTogether", "Walking",
]  # fmt: skip
TAKES = [f"{action}{take}" for action in ACTIONS for take in ("", " 1")]


def make_files(folder: Path, train: int, test: int) -> None:
    """`train` and `test` frames of all cameras: a random person near the room's middle."""
    rng = np.random.default_rng(0)
    world: dict = {subject: {} for subjects in SUBJECTS.values() for subject in subjects}
    pixels: dict = {subject: {} for subject in world}
    for split, count in (("train", train), ("test", test)):
        takes = [(s, take) for s in SUBJECTS[split] for take in TAKES if (s, take) != LEFT_OUT]
        ends = np.linspace(0, count // len(CAMERAS), len(takes) + 1).astype(int)
        for (subject, take), frames in zip(takes, np.diff(ends), strict=True):
            joints = 0.3 * rng.standard_normal((frames, 32, 3), np.float32) + np.float32([0, 0, 1])
            seen = []
            for camera in CAMERAS:
                points = PLACEMENTS[subject][camera].to_camera(1000.0 * joints[:, JOINTS])
                seen.append(project(points, camera).astype(np.float32))
            world[subject][take], pixels[subject][take] = joints, seen
    np.savez(folder / POSES, positions_3d=np.array(world, dtype=object))
    np.savez(folder / DETECTIONS, positions_2d=np.array(pixels, dtype=object))


def score(folder: Path) -> None:
    """The protocol on all test windows, of the ground truth with noise."""
    clips = ArrayClips(folder, "test")
    truth = clips.read(range(len(clips)))[1]
    noise = np.random.default_rng(1).standard_normal(truth.shape, np.float32)
    (protocol,) = BENCHMARK.protocols
    report = protocol.evaluate(
        truth + 0.05 * noise, clips.frame_ids, clips.test_frames(), BENCHMARK.skeleton
    )
    print(f"{len(clips):,} windows, {report.frames:,} frames, {len(report.per_action)} actions")


def cut(folder: Path, n_frames: int) -> None:
    counts = BENCHMARK.slice(
        folder / DETECTIONS, folder / BENCHMARK.folder(DETECTIONS, n_frames), n_frames
    )
    print(counts)


def in_process(target: Callable[..., None], *arguments: object) -> str:
    """Time and peak memory of a function that runs in a process of its own, in words."""
    process = get_context("spawn").Process(target=target, args=arguments)
    start = time.monotonic()
    process.start()
    _, status, usage = os.wait4(process.pid or 0, 0)
    if status:
        sys.exit(f"{target.__name__} failed")
    seconds, cpu = time.monotonic() - start, usage.ru_utime + usage.ru_stime
    memory = usage.ru_maxrss * 1024 / 1e9  # Linux counts in KiB
    return f"{seconds:.1f} s, {cpu:.1f} s of CPU time, {memory:.2f} GB peak memory"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="a folder with 2 GB to spare")
    parser.add_argument("--frames", type=whole_number(1), nargs=2, default=[1_559_752, 543_344])
    parser.add_argument("--n-frames", type=whole_number(1), default=243)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="videopose3d-", dir=options.out))
    clips = folder / BENCHMARK.folder(DETECTIONS, options.n_frames)
    try:
        in_process(make_files, folder, *options.frames)
        read = sum(path.stat().st_size for path in folder.glob("*.npz")) / 1e9
        cutting = in_process(cut, folder, options.n_frames)
        written = sum(path.stat().st_size for path in clips.rglob("*.npy")) / 1e9
        scoring = in_process(score, clips)
    finally:
        shutil.rmtree(folder)
    frames = " + ".join(f"{n:,}" for n in options.frames)
    print(f"{frames} frames, T = {options.n_frames}; {read:.2f} GB read, {written:.2f} GB written")
    print(f"cutting: {cutting}\nscoring: {scoring}")


if __name__ == "__main__":
    main()
