"""What a GPU makes of the scan and of the model: speed, shares of its limits, errors, memory.

    python -m tests.benchmarks.gpu [--repeats 20] [--parts kernels resources sweep first model]
        [--sizes tiny large] [--json FILE]

Without a CUDA device it says so and ends. Floors are computed from bytes, instructions and
exponentials at the card's own clock, not measured.
"""

import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lib.cli import run_main
from lib.cuda_graphs import Replayed
from lib.device import numerics
from lib.evaluation.predict import predict_batch
from lib.files import write_json
from lib.numbers import whole_number
from lib.timing import table
from lib.training.optim import make_optimizer
from model.blocks import recompute_blocks
from model.ops import bidirectional_inner, resolve_backend
from model.ops.triton import launch
from tests.benchmarks.model import build, clips, training_step
from tests.benchmarks.scan import directions
from tests.benchmarks.timing import parser
from tests.scan_cases import inner_inputs, relative_errors, results, run_inner

PARTS = ("kernels", "resources", "sweep", "first", "model")
LENGTHS, CHANNELS, BATCHES = (17, 27, 81, 243), (64, 128), (1, 16)
JOINTS, STATES = 17, 16
FORWARD_INSTRUCTIONS, BACKWARD_INSTRUCTIONS = 0.4, 2.2  # of a warp for a state's step, from SASS
BACKWARD_EXPONENTIALS = 2.7  # the states are computed again, some of them twice
EXPONENTIALS_A_CLOCK = 16  # of a multiprocessor
CLIPS_AN_EPOCH, EPOCHS, BATCH = 19_534, 120, 16  # Human3.6M in clips of 243 frames, as published
Rows = list[dict[str, object]]


# --- time -----------------------------------------------------------------------------------------
def microseconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """The median of several runs, after some that warm up."""
    times = []
    for turn in range(repeats + 3):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            spent = start.elapsed_time(end) * 1e3
        else:
            began = time.perf_counter()
            run()
            spent = (time.perf_counter() - began) * 1e6
        if turn >= 3:
            times.append(spent)
    return statistics.median(times)


def card(device: torch.device) -> dict[str, Any]:
    import triton

    properties = torch.cuda.get_device_properties(device)
    found: dict[str, Any] = {
        "card": properties.name,
        "multiprocessors": properties.multi_processor_count,
        "torch": torch.__version__,
        "triton": triton.__version__,
        "CUDA": torch.version.cuda,
    }
    if shutil.which("nvidia-smi"):
        names = "driver_version,clocks.max.sm,clocks.max.mem,power.limit"
        command = ["nvidia-smi", f"--query-gpu={names}", "--format=csv,noheader,nounits"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout
        values = answer.splitlines()[0].split(", ") if answer else []
        found |= dict(zip(("driver", "MHz", "memory MHz", "watts"), values, strict=False))
    return found


def bytes_a_second(device: torch.device) -> float:
    """Of copying one GB, both ways counted."""
    x = torch.empty(1 << (28 if device.type == "cuda" else 20), device=device)
    y = torch.empty_like(x)
    return 2 * x.nbytes / (microseconds(lambda: y.copy_(x), 5, device) * 1e-6)


# --- the inner block ------------------------------------------------------------------------------
def inner_runs(
    batch: int, length: int, channels: int, axis: int, backend: str, device: torch.device
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Forward alone, and forward with backward, of both directions over one axis of a clip."""
    pair = [d.to(device).weights() for d in directions(channels)]
    rows = JOINTS if axis == -3 else 243
    shape = (batch, length, rows) if axis == -3 else (batch, rows, length)
    x, z = (torch.randn(*shape, channels, device=device) for _ in range(2))
    leaf = x.clone().requires_grad_()

    def forward() -> None:
        with torch.inference_mode():
            bidirectional_inner(x, x, z, *pair, axis=axis, backend=backend)

    def both() -> None:
        y = bidirectional_inner(leaf, leaf, z, *pair, axis=axis, backend=backend)
        y.backward(z)

    return forward, both


def kernels(
    device: torch.device,
    repeats: int,
    backends: list[str],
    cases: list[tuple[int, int, int]],
    clocks: float | None = None,
) -> Rows:
    """cases: (length, channels, batch); clocks: see floors(), which are the Triton kernels'."""
    found: Rows = []
    bandwidth = bytes_a_second(device)
    for (length, channels, batch), axis in itertools.product(cases, (-2, -3)):
        if axis == -2 and length != JOINTS:
            continue  # the joints are 17; frames are scanned along the other axis
        tokens = batch * length * (JOINTS if axis == -3 else 243)
        steps = 2 * tokens * channels * STATES
        moved = 4 * tokens * (2 * channels * 6 + 2 * (channels // 16 + 2 * STATES) * 2)
        for backend in backends:
            runs = inner_runs(batch, length, channels, axis, backend, device)
            forward, both = (microseconds(run, repeats, device) for run in runs)
            row: dict[str, object] = {
                "L": length,
                "C": channels,
                "batch": batch,
                "axis": "joints" if axis == -2 else "frames",
                "backend": backend,
                "forward us": forward,
                "backward us": both - forward,
                "GB/s": moved / forward * 1e-3,
                "share of bandwidth": moved / forward * 1e6 / bandwidth,
            }
            if clocks:
                row |= floors(steps, forward, both - forward, clocks)
            found.append(row)
    return found


def floors(steps: int, forward: float, backward: float, clocks: float) -> dict[str, object]:
    """What share of the time the instructions, and the exponentials, would take by themselves.

    steps: of one state; clocks: of all multiprocessors, a microsecond.
    """
    instructions = (FORWARD_INSTRUCTIONS / forward, BACKWARD_INSTRUCTIONS / backward)
    exponentials = (1 / forward, BACKWARD_EXPONENTIALS / backward)
    return {
        "instructions": " ".join(f"{steps * n / (4 * clocks):.2f}" for n in instructions),
        "exponentials": " ".join(
            f"{steps * n / (EXPONENTIALS_A_CLOCK * clocks):.2f}" for n in exponentials
        ),
    }


def errors(device: torch.device, backends: list[str], lengths: tuple[int, ...]) -> Rows:
    """Against float64, the worst output or gradient; and whether two runs give the same bits."""
    found: Rows = []
    for length, backend in itertools.product(lengths, backends):
        inputs = {k: t.to(device) for k, t in inner_inputs((2, 3), length, 64, rank=4).items()}
        exact = results(run_inner, inputs, "sequential", torch.float64)
        runs = [results(run_inner, inputs, backend, torch.float32) for _ in range(2)]
        off = relative_errors(runs[0], exact)
        worst = max(off, key=lambda name: off[name])
        equal = all(torch.equal(runs[0][name], runs[1][name]) for name in exact)
        found.append(
            {
                "L": length,
                "backend": backend,
                "output": f"{off['output']:.1e}",
                "worst": f"{worst} {off[worst]:.1e}",
                "two runs": "equal" if equal else "not equal",
            }
        )
    return found


def resource_rows(device: torch.device) -> Rows:
    """Registers, spills and occupancy of what Tiny and Large launch."""
    from tests.triton_compiled import compile_launch, launches_of, resources

    major, minor = torch.cuda.get_device_capability(device)
    found: Rows = []
    for channels, length in itertools.product(CHANNELS, (17, 27)):
        for name, recorded in launches_of(length, channels).items():
            used = resources(compile_launch(recorded, f"cuda:{10 * major + minor}"))
            warps = recorded.constants.get("num_warps", 4)
            by_registers = 65536 // (max(used["REG"], 1) * 32 * warps) * warps
            found.append(
                {
                    "kernel": name,
                    "C": channels,
                    "L": length,
                    "registers": used["REG"],
                    "stack bytes": used["STACK"],
                    "warps a multiprocessor": min(64, 32 * warps, by_registers),
                }
            )
    return found


def sweep(device: torch.device, repeats: int) -> Rows:
    """Other configurations than the fixed ones: blocks of channels and steps between states."""
    found: Rows = []
    kept = launch.CHUNK, launch.BACKWARD_CHANNELS, launch.forward_channels
    try:
        for block, chunk, length in itertools.product((8, 16, 32, 64), (3, 9, 15), (17, 243)):
            launch.CHUNK, launch.BACKWARD_CHANNELS = chunk, block
            launch.forward_channels = lambda _, block=block: block  # type: ignore[misc]
            axis = -2 if length == JOINTS else -3
            runs = inner_runs(16, length, 64, axis, "triton", device)
            forward, both = (microseconds(run, repeats, device) for run in runs)
            found.append(
                {
                    "channels": block,
                    "steps": chunk,
                    "L": length,
                    "forward us": forward,
                    "backward us": both - forward,
                }
            )
    finally:
        launch.CHUNK, launch.BACKWARD_CHANNELS, launch.forward_channels = kept  # type: ignore[misc]
    return found


def first_call() -> Rows:
    """Seconds until a training step of the inner block has run, with an empty Triton cache."""
    code = (
        "import time, torch; from tests.benchmarks.gpu import inner_runs; t = time.perf_counter();"
        " inner_runs(1, 17, 64, -2, 'triton', torch.device('cuda'))[1](); torch.cuda.synchronize();"
        " print(time.perf_counter() - t)"
    )
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "TRITON_CACHE_DIR": folder}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
    return [{"first call, s": float(done.stdout.split()[-1])}]


# --- the model ------------------------------------------------------------------------------------
def model_rows(
    size: str, precision: str, device: torch.device, repeats: int, batch: int = BATCH
) -> Rows:
    """Prediction of one clip, and training steps: eager and compiled, plain and recomputed."""
    found: Rows = []
    model = build(size).to(device)

    def row(what: str, us: float, count: int, **more: object) -> None:
        hours = CLIPS_AN_EPOCH * us / count * 1e-6 * EPOCHS / 3600
        found.append(
            {
                "model": size,
                "precision": precision,
                "what": what,
                "ms": us / 1e3,
                "clips/s": count / us * 1e6,
                "peak GB": more.get("peak", ""),
                "kernels": more.get("kernels", ""),
                "idle": more.get("idle", ""),
                f"h for {EPOCHS} epochs": hours if count == batch else "",
            }
        )

    with numerics(device, precision):
        pose = clips(1).to(device)
        model.eval()

        def lift(clip: Tensor) -> Tensor:
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                return predict_batch(model, clip, model.skeleton, flip=False)

        with torch.inference_mode():
            row("1 clip", microseconds(lambda: lift(pose), repeats, device), 1)
        if device.type == "cuda":
            replayed = Replayed(lift)
            row("1 clip, CUDA graph", microseconds(lambda: replayed(pose), repeats, device), 1)
        many = clips(batch).to(device)
        for recomputed in (False, True):
            recompute_blocks(model.lifter, recomputed)
            step = optimizer_step(model, many, precision, device)
            peak = peak_gb(step, device)
            what = f"step, {batch} clips" + (", blocks recomputed" if recomputed else "")
            launched = kernels_and_idle(step, device)
            row(what, microseconds(step, repeats, device), batch, peak=peak, **launched)
        recompute_blocks(model.lifter, False)
        host = clips(batch).pin_memory() if device.type == "cuda" else clips(batch)
        step = optimizer_step(model, host, precision, device)
        row(f"step, {batch} clips from the CPU", microseconds(step, repeats, device), batch)
        for mode in ("default", "reduce-overhead") if device.type == "cuda" else ():
            compiled: Any = torch.compile(model, mode=mode)
            step = optimizer_step(compiled, many, precision, device)
            row(f"step, compiled, {mode}", microseconds(step, repeats, device), batch)
    return found


def optimizer_step(
    model: Any, pose: Tensor, precision: str, device: torch.device
) -> Callable[[], None]:
    optimizer = make_optimizer(model, 5e-4, 0.01, "all")
    backward = training_step(model, pose.to(device))

    def run() -> None:
        pose.to(device, non_blocking=True)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            backward()
        optimizer.step()

    return run


def peak_gb(step: Callable[[], None], device: torch.device) -> object:
    if device.type != "cuda":
        return ""
    step()
    torch.cuda.reset_peak_memory_stats(device)
    step()
    return torch.cuda.max_memory_allocated(device) / 1e9


def kernels_and_idle(step: Callable[[], None], device: torch.device) -> dict[str, object]:
    """How many kernels a step launches, and the share of its time in which none runs."""
    if device.type != "cuda":
        return {}
    us = microseconds(step, 5, device)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize(device)
    events = [e for e in profile.events() if e.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(e.self_device_time_total for e in events)
    return {"kernels": len(events), "idle": f"{max(0.0, 1 - busy / us):.0%}"}


def main() -> None:
    command = parser(__doc__)
    command.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    command.add_argument("--sizes", nargs="+", default=["tiny", "large"])
    command.add_argument("--batch", type=whole_number(1), default=BATCH, help="clips of a step")
    options = command.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA device")
        return
    device = torch.device("cuda", torch.cuda.current_device())
    names = ("triton", "mamba_ssm", "torch")
    backends, sections = [], {}
    where = card(device)
    for name in names:
        try:
            where[name] = resolve_backend(name, device, torch.float32)[1]
            backends.append(name)
        except Exception as error:  # another reason for each of the ways in which one can lack
            where[name] = str(error)
    print(json.dumps(where, indent=1))

    def run(part: str, title: str, measure: Callable[[], Rows]) -> None:
        if part in options.parts:
            sections[title] = measure()
            print(f"\n{title}\n{table(sections[title])}", flush=True)

    cases = list(itertools.product(LENGTHS, CHANNELS, BATCHES))
    run("kernels", "Errors against float64", lambda: errors(device, backends, LENGTHS))
    clocks = float(where["MHz"]) * where["multiprocessors"] if "MHz" in where else None
    run("kernels", "Inner block", lambda: kernels(device, options.repeats, backends, cases, clocks))
    if "triton" in backends:
        run("resources", "Registers", lambda: resource_rows(device))
        run("sweep", "Configurations", lambda: sweep(device, options.repeats))
        run("first", "First call", first_call)
    for size, precision in itertools.product(options.sizes, ("fp32", "tf32", "bf16")):
        run(
            "model",
            f"{size}, {precision}",
            lambda s=size, p=precision: model_rows(s, p, device, options.repeats, options.batch),
        )
    if options.json:
        write_json(options.json, {"machine": where, **sections})


if __name__ == "__main__":
    run_main(main)
