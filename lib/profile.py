"""The command `python -m lib.profile`: what a model computes, and how long that takes here."""

import argparse
import dataclasses
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from data.benchmarks import skeleton_of
from lib import memory
from lib.batch import Clips, SharedBatch
from lib.checkpoint import BEST, check_agreement, find_checkpoint, load_checkpoint
from lib.cli import CommandParser, run_main
from lib.config import Config, load_config, make_config
from lib.device import choose_device
from lib.errors import UserError
from lib.files import PROJECT_ROOT, check_file_writable, find_path, write_json
from lib.numbers import whole_number
from lib.processes import Processes
from lib.quiet import quiet_stderr
from lib.skeleton import Skeleton
from lib.timing import interleaved, machine, table
from lib.training.optim import make_optimizer
from lib.training.stages import BoneStage, LiftingStage
from lib.training.step import Stepper
from model.bone_aware import BoneAwareModule
from model.build import assemble, build_bone_aware, build_lifter, build_mdtf, load_bone_aware
from model.macs import RULE, WITHOUT_CALLS, Count, count
from model.mdtf import MDTF
from model.ops import backend_asked_for, backend_names, resolve_backend
from model.ops.matmul import fast_matmul

Model = MDTF | BoneAwareModule
Rows = list[dict[str, object]]
# (channel, depth) -> million MACs a frame that the paper states, of both stages.
PAPER = {(64, 8): 12.8, (128, 12): 58.7}
PUBLISHED_STAGE_1 = PROJECT_ROOT / "configs/h36m/first.yaml"
SHOWN = 12  # operators of a training step
MEGA = 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line, by default the process's own; returns its status. Raises UserError."""
    options = parse_options(argv)
    if options.json:
        check_file_writable(options.json)
    subject = Subject.of(options)
    if options.threads:
        torch.set_num_threads(options.threads)
    with fast_matmul(subject.device):
        if options.memory_of:
            backend, frames, batch = options.memory_of
            print(peak_memory(subject, backend, int(frames), int(batch)))
            return 0
        sections = {"parts": subject.parts()}
        print(f"{subject.name}: {RULE}\n\n{table(sections['parts'])}")
        print(subject.beside_the_paper(sections["parts"]))
        where = machine() | {"device": str(subject.device)}
        if not options.count_only:
            print("\n" + " · ".join(f"{key} {value}" for key, value in where.items()))
            sections["speed"] = speed(subject, options)
            print(f"\nA forward\n{table(sections['speed'])}")
            step = training_step(subject, options)
            sections["training step"] = step
            print(f"\nA training step of {options.training_batch} clips\n{table(step)}")
    if options.json:
        write_json(options.json, {"rule": RULE, "machine": where, **sections})
    return 0


def parse_options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser(
        prog="python -m lib.profile",
        description="Parameters and MACs of a model by part; its speed and memory on this machine.",
    )
    add = parser.add_argument
    add("--config", metavar="FILE", help="YAML config, of either stage")
    add("-c", "--checkpoint", metavar="DIR", help="folder or file, in place of random weights")
    add("--count-only", action="store_true", help="parameters and MACs, no measurements")
    add("--device", default="auto", help="auto, cpu, cuda … (auto: CUDA where there is one)")
    add("--threads", type=whole_number(1), help="of the CPU (PyTorch's choice)")
    add("--backends", nargs="+", choices=backend_names()[1:], help="of the scan (all that run)")
    frames = "of a clip, repeatable (the config's)"
    add("--frames", nargs="+", type=whole_number(1), metavar="T", help=frames)
    add("--batch", nargs="+", type=whole_number(1), default=[1, 8], metavar="N", help="clips (1 8)")
    add("--training-batch", type=whole_number(1), default=4, metavar="N", help="clips (4)")
    add("--repeats", type=whole_number(1), default=3, help="of each measurement (3)")
    add("--json", metavar="FILE", help="also write all numbers there")
    add("--memory-of", nargs=3, help=argparse.SUPPRESS)  # a fresh process's peak
    options = parser.parse_args(argv)
    if not options.config and not options.checkpoint:
        raise UserError("what to profile: give --config FILE or --checkpoint DIR")
    return options


@dataclass(frozen=True)
class Subject:
    """What is profiled."""

    name: str  # the config's or checkpoint's place
    config: Config
    model: Model
    skeleton: Skeleton
    device: torch.device

    @classmethod
    def of(cls, options: argparse.Namespace) -> "Subject":
        """Raises UserError."""
        checkpoint = None
        if options.checkpoint:
            checkpoint = load_checkpoint(find_checkpoint(options.checkpoint, BEST))
        if options.config:
            config = load_config(options.config)
        elif checkpoint and checkpoint.config:
            config = make_config(checkpoint.config, str(checkpoint.path))
        else:
            raise UserError(f"{options.checkpoint}: carries no config (released); give --config")
        skeleton = skeleton_of(config)
        if checkpoint is None:
            model = random_model(config, skeleton, options.config)
        elif config.stage == 1:
            model = load_bone_aware(checkpoint.path, config, skeleton)
        else:
            check_agreement(config, checkpoint)
            model = build_mdtf(config, checkpoint, None, skeleton, skeleton_of)
        device = choose_device(options.device)
        name = options.checkpoint or options.config
        return cls(name, config, model.to(device), skeleton, device)

    def of_frames(self, frames: int) -> Model:
        """The model for clips of another length, with random weights."""
        if frames == self.config.n_frames or isinstance(self.model, BoneAwareModule):
            return self.model
        config = dataclasses.replace(self.config, n_frames=frames)
        lifter = build_lifter(config, self.skeleton)
        return assemble(config, self.model.bone_aware, lifter, self.skeleton).to(self.device)

    def parts(self) -> Rows:
        """Both stages by part, their sums, and the sums of the whole."""
        if isinstance(self.model, BoneAwareModule):
            stages: dict[str, nn.Module | None] = {"1": self.model}
        else:
            stages = {"1": self.model.bone_aware, "2": self.model.lifter}
        rows, whole = [], []
        for name, stage in stages.items():
            if stage is None:
                continue
            counts = count(stage, self.skeleton.num_joints)
            rows += [row(name, found) for found in counts]
            rows.append(row(name, total("all", counts)))
            whole += counts
        rows.append(row("whole", total("all", whole)))
        twice = total("all, averaged with the mirrored clip", whole)
        rows.append(row("whole", twice._replace(macs=2 * twice.macs)))
        called = [found for found in whole if found.part not in WITHOUT_CALLS]
        rows.append(row("whole", total("of these, in calls of modules", called)))
        return rows

    def beside_the_paper(self, rows: Rows) -> str:
        """How the paper's number of this model, if it has one, differs from ours."""
        stated = PAPER.get((self.config.channel, self.config.st_depth))
        if stated is None or self.config.stage == 1:
            return "the paper states no number for a model of these sizes"
        everything, _, called = (cast(int, found["MACs/frame"]) / 1e6 for found in rows[-3:])
        return (
            f"the paper states {stated:.1f} M MACs a frame, not how it counts: all there is makes"
            f" {everything:.1f} M; hooks on the calls of modules find {called:.1f} M of them, for"
            " the mixers' projections, convolutions and scans read raw weights inside one kernel"
        )


def row(stage: str, found: Count) -> dict[str, object]:
    return {
        "stage": stage,
        "part": found.part,
        "parameters": found.parameters,
        "MACs/frame": found.macs,
    }


def total(name: str, counts: Sequence[Count]) -> Count:
    return Count(name, sum(c.parameters for c in counts), sum(c.macs for c in counts))


def random_model(config: Config, skeleton: Skeleton, path: str) -> Model:
    """Of stage 2's config with the stage 1 of first.yaml beside it, else with the published one."""
    torch.manual_seed(0)
    if config.stage == 1:
        return build_bone_aware(config, skeleton)
    bone_aware = None
    if config.bone_branch:
        beside = find_path(path).parent / "first.yaml"
        first = load_config(beside if beside.is_file() else PUBLISHED_STAGE_1, stage=1)
        first = dataclasses.replace(
            first, input=config.input, bins=config.bins, if_divide_out=config.if_divide_out
        )
        bone_aware = build_bone_aware(first, skeleton)
    return assemble(config, bone_aware, build_lifter(config, skeleton), skeleton)


# --- Measurements ---------------------------------------------------------------------------


def clips(subject: Subject, batch: int, frames: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    pose = torch.rand(batch, frames, subject.skeleton.num_joints, 3, generator=generator)
    return pose.to(subject.device)


def forward(subject: Subject, backend: str, frames: int, batch: int) -> Callable[[], None]:
    model, pose = subject.of_frames(frames).eval(), clips(subject, batch, frames)

    def run() -> None:
        with torch.inference_mode(), backend_asked_for(backend):
            model(pose)
        if subject.device.type == "cuda":
            torch.cuda.synchronize()

    return run


def usable_backends(subject: Subject) -> list[str]:
    found = []
    for name in backend_names()[1:]:
        try:
            found.append(resolve_backend(name, subject.device, torch.float32)[0])
        except UserError:
            continue
    return found


def speed(subject: Subject, options: argparse.Namespace) -> Rows:
    """A forward of each backend, clip length and number of clips, without mirror averaging."""
    cases = {
        f"{backend} {frames} {batch}": (backend, frames, batch)
        for frames in options.frames or [subject.config.n_frames]
        for batch in options.batch
        for backend in options.backends or usable_backends(subject)
    }
    runs = {name: forward(subject, *case) for name, case in cases.items()}
    seconds = interleaved(runs, options.repeats)
    return [
        {
            "backend": backend,
            "T": frames,
            "clips": batch,
            "ms": 1e3 * seconds[name],
            "frames/s": batch * frames / seconds[name],
            "peak MB": peak_memory_of_a_process(subject, options, backend, frames, batch),
        }
        for name, (backend, frames, batch) in cases.items()
    ]


def peak_memory_of_a_process(
    subject: Subject, options: argparse.Namespace, backend: str, frames: int, batch: int
) -> float:
    command = [sys.executable, "-m", "lib.profile", "--device", str(subject.device)]
    for flag, value in (("--config", options.config), ("--checkpoint", options.checkpoint)):
        command += [flag, str(Path(find_path(value)).absolute())] if value else []
    command += ["--threads", str(torch.get_num_threads())]
    command += ["--memory-of", backend, str(frames), str(batch)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=True)
    return float(done.stdout.split()[-1])


def peak_memory(subject: Subject, backend: str, frames: int, batch: int) -> float:
    """MB that this process, on a GPU its tensors, have taken at most, after one forward."""
    forward(subject, backend, frames, batch)()
    if subject.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MEGA
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's peak begins with that of the process that started this one
        found = re.search(r"VmHWM:\s+(\d+)", status.read_text())
        if found:
            return int(found[1]) * 1024 / MEGA
    import resource  # Windows has none

    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / MEGA


def training_step(subject: Subject, options: argparse.Namespace) -> Rows:
    """Where the time of the training's own step goes: the operators that take most of it."""
    config, batch = subject.config, options.training_batch
    if subject.device.type == "cpu":
        memory.keep_freed()  # as training does
    model = subject.model.train()
    stage: BoneStage | LiftingStage
    if isinstance(model, BoneAwareModule):
        stage = BoneStage(model, subject.skeleton, cast(Clips, []), batch, subject.device)
    else:
        stage = LiftingStage(model, config, subject.skeleton, [], subject.device)
    optimizer = make_optimizer(
        model, config.learning_rate, config.weight_decay, config.weight_decay_on, config.optimizer
    )
    step = Stepper(stage.losses, optimizer, device=subject.device, processes=Processes())
    pose = clips(subject, batch, config.n_frames)
    taken = SharedBatch(pose, pose / 10, list(range(batch)), [(0, batch)], batch)

    def run() -> None:
        step(taken)
        step.check()  # waits for the device

    milliseconds = 1e3 * interleaved({"step": run}, options.repeats)["step"]
    activities = [ProfilerActivity.CPU]
    on_gpu = subject.device.type == "cuda"
    if on_gpu:
        activities.append(ProfilerActivity.CUDA)
    with quiet_stderr(), profile(activities=activities) as seen:  # it talks about itself
        run()
    spent = {
        event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event)
        for event in seen.key_averages()
    }
    whole = sum(time for time, _ in spent.values())
    rows: Rows = [{"operator": "all", "calls": 1, "share": 1.0, "ms": milliseconds}]
    for name, (time, event) in sorted(spent.items(), key=lambda item: -item[1][0])[:SHOWN]:
        share = time / whole
        rows.append(
            {
                "operator": name,
                "calls": event.count,
                "share": share,
                "ms": share * milliseconds,
            }
        )
    return rows


if __name__ == "__main__":
    run_main(main)
