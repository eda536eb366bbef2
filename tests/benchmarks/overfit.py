"""Can Tiny learn four clips by heart? Fails if it stays above 5 mm.

    python -m tests.benchmarks.overfit [--frames 27] [--steps 2400] [--threads 2]

Four clips of synthetic motion, training and evaluation by the project's own parts; stage 1 is
frozen with random weights, so its bins are a fixed, arbitrary function of the clip.
"""

import argparse
import contextlib
import io
import math
import tempfile
from pathlib import Path

import torch

from data.benchmarks import BENCHMARKS
from data.clips import ClipDataset
from data.preprocess import synthetic
from lib.cli import CommandParser, run_main
from lib.config import load_config
from lib.evaluation.predict import predict
from lib.losses import lifting_losses
from lib.numbers import whole_number
from lib.skeleton import H36M
from lib.training.optim import make_optimizer
from model.build import build_bone_aware, build_lifter
from model.mdtf import MDTF

BENCHMARK = BENCHMARKS["h36m"]
CLIPS, LIMIT = 4, 5.0  # mm
LEARNING_RATE, WARM_UP = 1e-3, 50  # a linear start of that many steps, then a cosine to 0


def make_clips(folder: Path, frames: int) -> ClipDataset:
    """The test split: only there the file says how many millimetres a pixel is."""
    flags = ["--data-root", str(folder), "--frames", str(4 * frames)]
    flags += ["--train-subjects", "1", "--test-subjects", "1"]
    with contextlib.redirect_stdout(io.StringIO()):
        synthetic.main(flags)
    BENCHMARK.slice(folder / "synthetic.pkl", folder / "clips", frames)
    return ClipDataset(folder / "clips", "test", frames, dt_file="synthetic.pkl")


def overfit(dataset: ClipDataset, options: argparse.Namespace) -> float:
    """MPJPE in mm on the clips that were trained on."""
    config = load_config("configs/mocap/tiny.yaml", [f"n_frames={options.frames}"])
    bone_aware = build_bone_aware(load_config("configs/h36m/first.yaml"))
    model = MDTF(bone_aware, build_lifter(config), H36M)
    # Evenly from the whole split, so that several motions are among them.
    clips = list(range(0, len(dataset), len(dataset) // CLIPS))[:CLIPS]
    batch = dataset.__getitems__(clips)
    target = batch.pose_3d - batch.pose_3d[..., :1, :]
    optimizer = make_optimizer(model, LEARNING_RATE, 0.0, decay_all=True)
    for step in range(options.steps):
        rate = LEARNING_RATE * min(1, (step + 1) / WARM_UP)
        rate *= (1 + math.cos(math.pi * step / options.steps)) / 2
        optimizer.param_groups[0]["lr"] = rate
        losses = lifting_losses(model.train()(batch.pose_2d), target, H36M, config.loss_weights)
        optimizer.zero_grad()
        losses["total"].backward()
        optimizer.step()
        if (step + 1) % 100 == 0:
            print(f"step {step + 1}: loss {losses['total'].item():.5f}", flush=True)
    ids, frames = BENCHMARK.test_frames(dataset.source, Path())
    poses = predict(model.eval(), batch.pose_2d, H36M, flip=False)
    return BENCHMARK.evaluate(poses, ids[clips], frames, H36M).scores()["mpjpe"]


def main() -> int:
    parser = CommandParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--frames", type=whole_number(1), default=27)
    parser.add_argument("--steps", type=whole_number(1), default=2400)
    parser.add_argument("--threads", type=whole_number(1), default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        error = overfit(make_clips(Path(folder), options.frames), options)
    print(f"MPJPE on the {CLIPS} clips after {options.steps} steps: {error:.2f} mm")
    return 0 if error < LIMIT else 1


if __name__ == "__main__":
    run_main(main)
