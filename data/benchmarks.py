"""The data sets: one entry for each, with all that the rest of the project needs to know of it.

A new data set is a source (data/sources/), a protocol (lib/evaluation/) and an entry here.
"""

import os
from collections.abc import Iterator, Sequence

from data.benchmark import Benchmark
from data.clips import (
    adjacent_clips,
    centred_windows,
    covering_windows,
    overlapping_clips,
)
from data.sequences import Sequences, in_metres, on_screen
from data.sources import h36m, mpi_inf_3dhp, own, videopose3d
from data.windows import half_overlapping_windows, stretched_windows, windows_around
from lib.config import Config
from lib.errors import UserError, did_you_mean
from lib.evaluation.clips import evaluate_clips
from lib.evaluation.h36m import evaluate_h36m
from lib.evaluation.mocap import evaluate_mocap
from lib.evaluation.mpi_inf_3dhp import evaluate_mpi_inf_3dhp
from lib.evaluation.protocol import Protocol
from lib.evaluation.videopose3d import LAST_WINDOW, PREDICTED_ROOT, evaluate_videopose3d
from lib.skeleton import H36M, MPI_INF_3DHP, Skeleton


def no_file(path: str | os.PathLike[str], splits: Sequence[str]) -> Iterator[tuple[str, Sequences]]:
    """The motion capture benchmark is made of several files at once."""
    raise UserError(f"{path}: mocap has folders of clips, no file; {MOCAP_DOOR} makes them")


MOCAP_DOOR = "data/preprocess/mocap_benchmark.py --mocap FOLDER"

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        # mocap.py's and synthetic.py's files have Human3.6M's format and protocol.
        Benchmark(
            name="h36m",
            skeleton=H36M,
            source="h36m_sh_conf_cam_source_final.pkl",
            read=h36m.read,
            door="data/preprocess/h36m.py",
            prefix="H36M",
            units=on_screen,
            train_windows=overlapping_clips,
            test_windows=adjacent_clips,
            protocols=(
                Protocol(
                    "h36m",
                    "Human3.6M's 2.5D ground truth in mm, mean over the actions",
                    evaluate_h36m,
                ),
            ),
            projects=True,
        ),
        Benchmark(
            name="h36m_videopose3d",
            skeleton=H36M,
            source=videopose3d.DETECTIONS,
            read=videopose3d.read,
            door="data/preprocess/h36m_videopose3d.py",
            prefix="{file}",
            units=in_metres,
            train_windows=centred_windows,
            test_windows=covering_windows,
            protocols=(
                Protocol(
                    "videopose3d",
                    "VideoPose3D's, mean over the 15 actions (not comparable with h36m)",
                    evaluate_videopose3d,
                ),
            ),
            projects=False,
            choices={"last_window": tuple(LAST_WINDOW), "predicted_root": tuple(PREDICTED_ROOT)},
            each_mirrored=True,
        ),
        Benchmark(
            name="own",
            skeleton=H36M,
            source="own.npz",
            read=own.read,
            door="data/preprocess/own.py",
            prefix="{file}",
            units=in_metres,
            train_windows=overlapping_clips,
            test_windows=adjacent_clips,
            protocols=(
                Protocol("own", "mean over the actions, predicted root set to 0", evaluate_clips),
            ),
            projects=False,
            read_joints=own.read_joints,
        ),
        Benchmark(
            name="mocap",
            skeleton=H36M,
            source="",
            read=no_file,
            door=MOCAP_DOOR,
            prefix="mocap",
            units=on_screen,
            train_windows=covering_windows,
            test_windows=covering_windows,
            protocols=(
                Protocol(
                    "mocap",
                    "2.5D in mm as Human3.6M's, each video frame once, plain mean over all",
                    evaluate_mocap,
                    once=True,
                ),
            ),
            projects=True,
            rendered=True,
        ),
        Benchmark(
            name="mpi_inf_3dhp",
            skeleton=MPI_INF_3DHP,
            source=mpi_inf_3dhp.TRAIN,
            read=mpi_inf_3dhp.read,
            door="data/preprocess/mpi_inf_3dhp.py",
            prefix="MPI-INF-3DHP",
            units=mpi_inf_3dhp.mm_from_root,
            train_windows=stretched_windows,
            test_windows=lambda test, frames: windows_around(test.video, test.is_valid, frames),
            protocols=(
                Protocol(
                    "window",
                    "the centre of a window of T frames around each valid frame",
                    evaluate_mpi_inf_3dhp,
                    centre_only=True,
                    once=True,
                ),
                Protocol(
                    "dense",
                    "valid frames in clips that overlap by half and are blended",
                    evaluate_mpi_inf_3dhp,
                    windows=lambda test, frames: half_overlapping_windows(test.video, frames),
                    once=True,
                ),
            ),
            projects=False,
            saves_predictions=True,
        ),
    )
}


def find_benchmark(name: str) -> Benchmark:
    """By the config key `dataset`. Raises UserError."""
    if name not in BENCHMARKS:
        hint = did_you_mean(name, BENCHMARKS)
        raise UserError(
            f"dataset {name}: not part of this version; there is {', '.join(BENCHMARKS)}{hint}"
        )
    return BENCHMARKS[name]


def benchmark_of(config: Config) -> Benchmark:
    """The data set of a config, with the joints that a completed one names. Raises UserError."""
    return find_benchmark(config.dataset).of(config)


def skeleton_of(config: Config) -> Skeleton:
    """The skeleton of the data set of a checkpoint's config. Raises UserError."""
    return benchmark_of(config).skeleton
