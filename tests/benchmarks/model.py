"""The whole model on a CPU: forward, training step, scaling and memory.

    python -m tests.benchmarks.model [--threads 2] [--repeats 5] [--sizes tiny large]
        [--parts forward training batch length memory stage1] [--json FILE]

Everything is of 243-frame clips in float32, with the settings that training and evaluation have.
Peak memory is of a fresh process for each case.
"""

import argparse
import dataclasses
import json
import math
import re
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lib.cli import run_main
from lib.config import load_config
from lib.geometry import polar_bins
from lib.losses import lifting_losses
from lib.memory import keep_freed
from lib.numbers import whole_number
from lib.skeleton import H36M
from lib.timing import interleaved
from model.blocks import recompute_blocks
from model.build import assemble, build_bone_aware, build_lifter
from model.mamba import BiMamba
from model.mdtf import MDTF
from model.ops import set_default_backend
from model.ops.matmul import fast_matmul
from tests.benchmarks.timing import parser, report

PARTS = ["forward", "training", "batch", "length", "memory", "stage1"]
LENGTHS = [27, 81, 243, 729, 2187]
FLOPS_OF_AN_UPDATE = 22  # issue slots of exp, decay, input and read-out, as multiply-adds


def build(size: str, frames: int = 243) -> MDTF:
    """Stage 2 of configs/h36m/{size}.yaml with stage 1 of first.yaml, random weights."""
    torch.manual_seed(0)
    config = dataclasses.replace(load_config(f"configs/h36m/{size}.yaml"), n_frames=frames)
    bone_aware = build_bone_aware(load_config("configs/h36m/first.yaml"))
    return assemble(config, bone_aware, build_lifter(config))


def clips(batch: int, frames: int = 243) -> Tensor:
    return torch.randn(batch, frames, 17, 3, generator=torch.Generator().manual_seed(0))


def forward(model: nn.Module, pose: Tensor, backend: str = "auto") -> Callable[[], None]:
    def run() -> None:
        set_default_backend(backend)
        if model.training:  # as evaluation does: once, not for every clip
            model.eval()
        with torch.inference_mode():
            model(pose)

    return run


def training_step(model: MDTF, pose: Tensor, backend: str = "auto") -> Callable[[], None]:
    keep_freed()  # as the training command does
    target = clips(len(pose), pose.shape[1]).to(pose.device) / 10
    weights = load_config("configs/h36m/tiny.yaml").loss_weights

    def run() -> None:
        set_default_backend(backend)
        if not model.training:
            model.train()
        model.zero_grad()
        lifting_losses(model(pose), target, model.skeleton, weights)["total"].backward()

    return run


def stage_1_step(batch: int) -> Callable[[], None]:
    config = load_config("configs/h36m/first.yaml")
    model, skeleton, pose = build_bone_aware(config), H36M, clips(batch)
    labels = polar_bins(pose, skeleton).flatten()
    keep_freed()

    def run() -> None:
        model.train().zero_grad()
        F.cross_entropy(model(pose).flatten(0, 2), labels).backward()

    return run


# --- the floor: what the arithmetic alone would take ----------------------------------------------
def floor_seconds(model: MDTF, frames: int) -> float:
    """All products and state updates of a forward, at the speed of a large matrix product."""
    products = updates = 0
    for module in model.modules():
        if isinstance(module, nn.Linear):
            products += 2 * module.weight.numel()
        elif isinstance(module, BiMamba):
            updates += 2 * module.forward_scan.A_log.numel()
    a = torch.randn(1024, 1024)
    best = min(interleaved({"product": lambda: a @ a}, 1)["product"] for _ in range(15))
    return 17 * frames * (products + FLOPS_OF_AN_UPDATE * updates) * best / (2 * 1024**3)


# --- parts ----------------------------------------------------------------------------------------
def compare_forward(size: str, repeats: int) -> list[dict[str, object]]:
    model, pose = build(size), clips(1)
    seconds = interleaved(
        {b: forward(model, pose, b) for b in ("sequential", "torch", "auto")}, repeats
    )
    floor = floor_seconds(model, 243)
    return [
        {
            "model": size,
            "backend": backend,
            "ms": s * 1e3,
            "times sequential": seconds["sequential"] / s,
            "fraction of floor": floor / s,
        }
        for backend, s in seconds.items()
    ]


def compare_training(size: str, repeats: int) -> list[dict[str, object]]:
    model, pose = build(size), clips(1)
    seconds = interleaved({b: training_step(model, pose, b) for b in ("torch", "auto")}, repeats)
    return [
        {"model": size, "backend": b, "ms": s * 1e3, "times torch": seconds["torch"] / s}
        for b, s in seconds.items()
    ]


def per_clip(size: str, repeats: int) -> list[dict[str, object]]:
    """Batch 16 against batch 1."""
    model, cases = build(size), {}
    for batch in (1, 16):
        cases[f"forward {batch}"] = forward(model, clips(batch))
        cases[f"training step {batch}"] = training_step(model, clips(batch))
    seconds = interleaved(cases, repeats)
    return [
        {"model": size, "case": c, "ms a clip": s * 1e3 / int(c.split()[-1])}
        for c, s in seconds.items()
    ]


def by_length(size: str, repeats: int) -> list[dict[str, object]]:
    cases = {t: forward(build(size, t), clips(1, t)) for t in LENGTHS}
    seconds = interleaved({str(t): run for t, run in cases.items()}, repeats)
    logs = [(math.log(t), math.log(seconds[str(t)])) for t in LENGTHS]
    mean_x, mean_y = (sum(v) / len(logs) for v in zip(*logs, strict=True))
    slope = sum((x - mean_x) * (y - mean_y) for x, y in logs)
    slope /= sum((x - mean_x) ** 2 for x, _ in logs)
    return [
        {"model": size, "frames": t, "ms": seconds[str(t)] * 1e3, "exponent of all": slope}
        for t in LENGTHS
    ]


MEMORY_CASES = ["16", "16 recomputed"]


def peak_memory(size: str, case: str) -> float:
    """GB of this process after a training step."""
    model = build(size)
    recompute_blocks(model.lifter, "recomputed" in case)
    training_step(model, clips(int(case.split()[0])))()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's peak begins with that of the process that started this one
        return int(re.search(r"VmHWM:\s+(\d+)", status.read_text())[1]) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def memory(size: str, threads: int) -> list[dict[str, object]]:
    rows = []
    for case in MEMORY_CASES:
        command = [sys.executable, "-m", "tests.benchmarks.model", "--threads", str(threads)]
        done = subprocess.run(
            [*command, "--memory-of", size, case], capture_output=True, text=True, check=True
        )
        rows.append(
            {"model": size, "training step of clips": case, "peak GB": json.loads(done.stdout)}
        )
    return rows


def stage_1(batch: int, repeats: int) -> list[dict[str, object]]:
    cases = {str(n): stage_1_step(n) for n in (1, batch)}
    seconds = interleaved(cases, repeats)
    return [{"batch": int(n), "ms a clip": s * 1e3 / int(n)} for n, s in seconds.items()]


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--sizes", nargs="+", default=["tiny", "large"])
    command.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    command.add_argument("--stage1-batch", type=whole_number(1), default=128)
    command.add_argument("--memory-of", nargs=2, metavar=("SIZE", "CASE"), help="only print it")
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    with fast_matmul():
        if options.memory_of:
            print(json.dumps(peak_memory(*options.memory_of)))
        else:
            measure_parts(options)


def measure_parts(options: argparse.Namespace) -> None:
    sections: dict[str, list[dict[str, object]]] = {}

    def run(part: str, title: str, measure: Callable[[str], list[dict[str, object]]]) -> None:
        if part in options.parts:
            sections[title] = [row for size in options.sizes for row in measure(size)]

    repeats = options.repeats
    run("forward", "Forward of one clip", lambda size: compare_forward(size, repeats))
    run("training", "Training step of one clip", lambda size: compare_training(size, repeats))
    run("batch", "A clip's share of a batch", lambda size: per_clip(size, min(repeats, 3)))
    run("length", "Forward by length", lambda size: by_length(size, min(repeats, 3)))
    run("memory", "Peak memory", lambda size: memory(size, options.threads))
    if "stage1" in options.parts:
        sections["Stage 1, training step"] = stage_1(options.stage1_batch, min(repeats, 3))
    report(options, sections)


if __name__ == "__main__":
    run_main(main)
