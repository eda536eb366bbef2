"""Train or evaluate any stage: flags -> config, data and model -> the one loop or the one table."""

import argparse
import dataclasses
import logging
import platform
from pathlib import Path

import torch

from data.benchmarks import find_benchmark
from data.loader import ClipLoader, SharedBatch
from lib import memory
from lib.checkpoint import (
    BEST,
    LATEST,
    Checkpoint,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    newest_readable,
)
from lib.cli import logger, run_main
from lib.config import Config, load_config, make_config
from lib.device import choose_device
from lib.errors import UserError
from lib.files import find_path, refuse_same_file, write_json
from lib.processes import Processes, is_lost_process, start_processes, stop_processes
from lib.random_state import random_states, seed_everything, set_random_states
from lib.training.fit import Fit, progress_bar
from lib.training.options import parse_options
from lib.training.run import CONFIG, Run, SilentRun
from lib.training.signals import Interrupted
from lib.training.stages import BoneStage, LiftingStage, Stage
from model.build import build_bone_aware, build_mdtf, check_agreement
from model.ops import backend_names, resolve_backend, set_default_backend
from model.ops.matmul import fast_matmul

# What a resumed run may change without becoming another run.
FREE_ON_RESUME = ("epochs", "data_root", "dt_file", "dt_init")


def main(
    stage: int | None = None, output: str | None = None, default_config: str | None = None
) -> int:
    """Run one command line.

    stage, output and default_config: what train_firststage.py and train_twostage.py fix, with the
    defaults of the released scripts.
    """
    options = parse_options(__doc__ or "", output, default_config, backend_names())
    processes = start_processes(options.device)
    try:
        return run_command(options, processes, stage, default_config)
    except RuntimeError as error:
        if processes.world == 1 or not is_lost_process(error):
            raise
        raise UserError(
            "another process of this run ended, so this one ends too; the other's message says why"
        ) from error
    finally:
        stop_processes()


def run_command(
    options: argparse.Namespace,
    processes: Processes,
    stage: int | None,
    default_config: str | None,
) -> int:
    checkpoint = read_checkpoint(options)
    config = read_config(options, checkpoint, stage, default_config)
    device = choose_device(options.device, processes.local_rank if processes.world > 1 else None)
    protect_sources(config, options, checkpoint)
    if options.scan_backend:
        set_default_backend(options.scan_backend)
    backend, reason = resolve_backend("auto", device, torch.float32)
    if not processes.is_main:
        logger.setLevel(logging.WARNING)
    logger.info(
        "scan backend %s (%s), device %s, %d process(es) of %d thread(s), torch %s, Python %s",
        *(backend, reason, device, processes.world, torch.get_num_threads()),
        *(torch.__version__, platform.python_version()),
    )
    seed = choose_seed(options, checkpoint)
    seed_everything(seed)
    task = make_stage(config, options, checkpoint, device, seed)
    if not options.eval_only and device.type == "cpu":
        memory.keep_freed()
    with fast_matmul(device):
        if options.eval_only:
            evaluate(task, options, processes)
            return 0
        return train(task, config, options, checkpoint, seed, processes)


def read_checkpoint(options: argparse.Namespace) -> Checkpoint | None:
    if not options.checkpoint:
        return None
    default = LATEST if options.resume else BEST
    path = find_checkpoint(options.checkpoint, options.checkpoint_file or default)
    try:
        return load_checkpoint(path)
    except UserError as error:
        other = newest_readable(path.parent, to_resume=options.resume)
        if other is None:
            raise
        raise UserError(
            f"{error}; the newest readable one there: --checkpoint-file {other.name}"
        ) from error


def read_config(
    options: argparse.Namespace,
    checkpoint: Checkpoint | None,
    stage: int | None,
    default_config: str | None,
) -> Config:
    """From --config, else from the checkpoint, else the script's; with --set. Raises UserError."""
    own = checkpoint.config if checkpoint else None
    if options.config:
        config = load_config(options.config, options.set, stage)
    elif own:
        config = make_config(own, str(checkpoint.path), stage, options.set)
    elif default_config:
        config = load_config(default_config, options.set, stage)
        logger.info("config %s (this script's default)", default_config)
    else:
        raise UserError("--config FILE is missing, for instance --config configs/h36m/tiny.yaml")
    benchmark = find_benchmark(config.dataset)
    config = benchmark.complete(config)
    if checkpoint:
        check_agreement(config, checkpoint)
    if checkpoint and own is not None:
        trained = make_config(own, str(checkpoint.path))
        others = find_benchmark(trained.dataset)
        if others.skeleton != benchmark.skeleton:
            raise UserError(
                f"{checkpoint.path}: trained on the joints of {others.name}, which are not those"
                f" of {benchmark.name}; use a config of {others.name}"
            )
        trained = others.complete(trained)
    if options.resume and own:
        for field in dataclasses.fields(Config):
            before, now = getattr(trained, field.name), getattr(config, field.name)
            if before != now and field.name not in FREE_ON_RESUME:
                raise UserError(
                    f"--resume: {field.name} is {now!r}, the run was trained with {before!r};"
                    " resume with the same config, or start anew without --resume"
                )
    return config


def protect_sources(
    config: Config, options: argparse.Namespace, checkpoint: Checkpoint | None
) -> None:
    """Before any work: no result may replace what the run reads. Raises UserError."""
    sources = [options.config, checkpoint.path if checkpoint else None, *config.clips_dirs]
    sources.append(find_path(config.data_root) / config.dt_file)
    if options.stage1_checkpoint:
        stage1 = find_path(options.stage1_checkpoint)
        sources.append(stage1 / BEST if stage1.is_dir() else stage1)
    if options.eval_only and options.report:
        refuse_same_file(options.report, sources)
    elif not options.eval_only and not options.resume:  # a resumed run writes its own files anew
        refuse_same_file(Path(options.new_checkpoint) / CONFIG, sources)


def choose_seed(options: argparse.Namespace, checkpoint: Checkpoint | None) -> int:
    """A resumed run keeps its seed; else --seed, else 0."""
    saved = (checkpoint.training or {}).get("seed") if checkpoint and options.resume else None
    if saved is not None and options.seed not in (None, saved):
        raise UserError(f"--seed {options.seed}: the run was trained with {saved}; leave it out")
    return saved if saved is not None else options.seed or 0


def make_stage(
    config: Config,
    options: argparse.Namespace,
    checkpoint: Checkpoint | None,
    device: torch.device,
    seed: int,
) -> Stage:
    """The model with its weights, and the test set it is scored on. Raises UserError."""
    benchmark = find_benchmark(config.dataset)
    skeleton = benchmark.skeleton
    if config.stage == 1:
        bone_aware = build_bone_aware(config)
        if checkpoint:
            load_weights(bone_aware, checkpoint.model, checkpoint.path)
        test = benchmark.open(config, "test")
        return BoneStage(bone_aware.to(device), skeleton, test, config.batch_size, device)
    model = build_mdtf(config, checkpoint, options.stage1_checkpoint, skeleton).to(device)
    test = benchmark.open(config, "test")
    source = find_path(config.data_root) / config.dt_file
    clip_frames, test_frames = benchmark.test_frames(test.source, source)
    protocol = benchmark.evaluate
    return LiftingStage(
        model, config, skeleton, test, clip_frames, test_frames, protocol, device, seed
    )


def evaluate(task: Stage, options: argparse.Namespace, processes: Processes) -> None:
    off = not processes.is_main
    report = task.evaluate(
        task.model, lambda items: progress_bar(items, "evaluating", off=off), processes
    )
    if report is None:
        return
    print(report.table())
    if options.report:
        write_json(options.report, report.as_dict())


def train(
    task: Stage,
    config: Config,
    options: argparse.Namespace,
    checkpoint: Checkpoint | None,
    seed: int,
    processes: Processes,
) -> int:
    dataset = find_benchmark(config.dataset).open(config, "train")
    loader = ClipLoader(
        dataset,
        config.batch_size,
        skeleton=task.skeleton,
        seed=seed,
        flip=config.flip,
        workers=options.num_cpus - 1,
        processes=processes,
        parts=config.accumulate,
    )
    run = open_run(config, options, checkpoint, seed, processes)
    if options.compile:
        compile_model(task, next(loader.batches(0)), run)
    fit = Fit(
        task,
        loader,
        config,
        run,
        seed=seed,
        precision=options.precision,
        save_every=options.save_every,
        processes=processes,
    )
    if options.resume:
        fit.restore(checkpoint)
    trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
    run.log(
        f"stage {config.stage}: {trained:,} trained parameters, {len(dataset):,} training and"
        f" {len(task.test):,} test clips of {config.n_frames} frames, writing to {run.folder}"
    )
    try:
        fit()
    except Interrupted as stop:
        return stop.exit_status
    finally:
        run.close()
    return 0


def open_run(
    config: Config,
    options: argparse.Namespace,
    checkpoint: Checkpoint | None,
    seed: int,
    processes: Processes,
) -> Run | SilentRun:
    if not processes.is_main:
        return SilentRun(options.new_checkpoint)
    saved_id = checkpoint.wandb_id if checkpoint and options.resume else None
    return Run(
        options.new_checkpoint,
        is_resumed=options.resume,
        config=config.as_dict(),
        seed=seed,
        command=options.command,
        use_log=options.use_log,
        use_tensorboard=options.use_tensorboard,
        use_wandb=options.use_wandb,
        wandb_artifacts=options.wandb_artifacts,
        wandb_name=options.wandb_name,
        wandb_id=options.wandb_run_id or saved_id,
    )


def compile_model(task: Stage, batch: SharedBatch, run: Run | SilentRun) -> None:
    """torch.compile for the training steps, tried on a batch; where it fails, a message.

    The batch has the size of the others: for another one torch would compile once more.
    """
    states = random_states()
    weights = {name: value.clone() for name, value in task.model.state_dict().items()}
    task.train_model = torch.compile(task.model)
    (_, count), *_ = batch.shares
    part = batch.part(0, count).to(next(task.model.parameters()).device)
    try:
        task.losses(part)["total"].backward()
    except Exception as error:  # compilers fail in many ways, and none of them is the user's
        task.train_model = task.model
        run.log(f"--compile: torch.compile fails here ({type(error).__name__}); going on without")
    finally:
        task.model.zero_grad(set_to_none=True)
        task.model.load_state_dict(weights)  # the batch moved BatchNorm's running statistics
        set_random_states(states)


if __name__ == "__main__":
    run_main(main)
