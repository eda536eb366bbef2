"""Can Tiny learn four clips by heart? Fails if it stays above 5 mm.

    python -m tests.benchmarks.overfit [--frames 27] [--steps 2400] [--threads 2]

Four clips of synthetic motion, trained on and evaluated by the project's own loop; stage 1 is
frozen with random weights, so its bins are a fixed, arbitrary function of the clip.
"""

import contextlib
import io
import tempfile
from collections.abc import Iterator, Sequence
from itertools import repeat
from pathlib import Path

import torch

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset
from data.preprocess import synthetic
from lib.batch import Batch, SharedBatch
from lib.cli import CommandParser, log_to_stdout, run_main
from lib.config import Config, load_config
from lib.evaluation.protocol import TestSet
from lib.numbers import whole_number
from lib.random_state import seed_everything
from lib.training.fit import Fit
from lib.training.options import Options
from lib.training.session import Session, open_run
from lib.training.signals import Interrupted
from lib.training.stages import LiftingStage
from model.build import assemble, build_bone_aware, build_lifter

BENCHMARK = BENCHMARKS["h36m"]
CLIPS, LIMIT = 4, 5.0  # mm
EPOCH = 100  # steps
LEARNING_RATE = 1e-3  # at first


class Few:
    """A few clips of a data set: what is tested, and the batch of every step."""

    def __init__(self, dataset: ClipDataset, clips: list[int]) -> None:
        self.dataset, self.clips = dataset, clips

    def __getitems__(self, numbers: Sequence[int]) -> Batch:
        return self.dataset.__getitems__([self.clips[number] for number in numbers])

    def __len__(self) -> int:
        return len(self.clips)


class SameBatch:
    """Loads all of the clips in each of an epoch's steps."""

    def __init__(self, clips: Few) -> None:
        batch, count = clips.__getitems__(range(len(clips))), len(clips)
        self.batch = SharedBatch(batch.pose_2d, batch.pose_3d, batch.clips, [(0, count)], count)

    def __len__(self) -> int:
        return EPOCH

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[SharedBatch]:
        return repeat(self.batch, EPOCH - start_step)


def make_clips(folder: Path, frames: int) -> ClipDataset:
    """The test split: only there the file says how many millimetres a pixel is."""
    flags = ["--data-root", str(folder), "--frames", str(4 * frames)]
    flags += ["--train-subjects", "1", "--test-subjects", "1"]
    with contextlib.redirect_stdout(io.StringIO()):
        synthetic.main(flags)
    BENCHMARK.slice(folder / "synthetic.pkl", folder / "clips", frames)
    return ClipDataset(folder / "clips", "test", frames, dt_file="synthetic.pkl")


def make_config(frames: int, steps: int) -> Config:
    keys = {
        "n_frames": frames,
        "batch_size": CLIPS,
        "epochs": max(1, steps // EPOCH),
        "learning_rate": LEARNING_RATE,
        "schedule": "cosine",
        "weight_decay": 0,
        "flip": "false",
        "ema_decay": 0,
    }
    return load_config("configs/mocap/tiny.yaml", [f"{key}={value}" for key, value in keys.items()])


def overfit(dataset: ClipDataset, config: Config, folder: Path) -> float:
    """MPJPE in mm on the clips that were trained on."""
    skeleton = BENCHMARK.skeleton
    bone_aware = build_bone_aware(load_config("configs/h36m/first.yaml"))
    model = assemble(config, bone_aware, build_lifter(config, skeleton), skeleton)
    # Evenly from the whole split, so that several motions are among them.
    clips = list(range(0, len(dataset), len(dataset) // CLIPS))[:CLIPS]
    ids, frames = BENCHMARK.test_frames(dataset.source, Path())
    few = Few(dataset, clips)
    test = TestSet(few, ids[clips], frames, BENCHMARK.protocols[0])
    stage = LiftingStage(model, config, skeleton, [test], "cpu")
    session = Session(Options(new_checkpoint=str(folder / "run")), config)
    fit = Fit(session, stage, SameBatch(few), open_run(session))
    fit()
    return fit.history[-1]["test/mpjpe"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=whole_number(1), default=27)
    parser.add_argument("--steps", type=whole_number(1), default=2400, help="in hundreds (2400)")
    parser.add_argument("--threads", type=whole_number(1), default=2)
    options = parser.parse_args(argv)
    torch.set_num_threads(options.threads)
    log_to_stdout()
    seed_everything(0)
    config = make_config(options.frames, options.steps)
    with tempfile.TemporaryDirectory() as folder:
        try:
            error = overfit(make_clips(Path(folder), options.frames), config, Path(folder))
        except Interrupted as stop:
            return stop.exit_status
    print(f"MPJPE on the {CLIPS} clips after {config.epochs * EPOCH} steps: {error:.2f} mm")
    return 0 if error < LIMIT else 1


if __name__ == "__main__":
    run_main(main)
