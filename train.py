"""Train or evaluate any stage: flags -> config, data and model -> the one loop or the one table."""

import argparse
import dataclasses
import platform

import torch

from data.clips import ClipDataset
from data.h36m import load_test_frames
from data.loader import ClipLoader
from lib.checkpoint import BEST, LATEST, Checkpoint, find_checkpoint, load_checkpoint, load_weights
from lib.cli import DEFAULT_STAGE1, choose_device, parse_options
from lib.config import Config, load_config, make_config
from lib.errors import UserError, run_main
from lib.files import find_path, write_json
from lib.run import Run, logger
from lib.stages import BoneStage, LiftingStage, Stage
from lib.trainer import Fit, Interrupted, progress_bar, seed_everything
from model.bone_aware import BoneAwareModule
from model.build import (
    bone_aware_from_weights,
    build_bone_aware,
    build_lifter,
    check_agreement,
    load_bone_aware,
    skeleton_of,
)
from model.mdtf import MDTF
from model.ops import BACKENDS, resolve_backend, set_default_backend

# What a resumed run may change without becoming another run.
FREE_ON_RESUME = ("epochs", "data_root", "dt_file")


def main(stage: int | None = None, output: str | None = None) -> int:
    """Run one command line; stage and output: what train_firststage/twostage.py fix."""
    options = parse_options(__doc__ or "", output, BACKENDS)
    checkpoint = read_checkpoint(options)
    config = read_config(options, checkpoint, stage)
    device = choose_device(options.device)
    if options.scan_backend:
        set_default_backend(options.scan_backend)
    backend, reason = resolve_backend("auto", device, torch.float32)
    logger.info(
        "scan backend %s (%s), device %s, %d threads, torch %s, Python %s",
        *(backend, reason, device, torch.get_num_threads()),
        *(torch.__version__, platform.python_version()),
    )
    seed = choose_seed(options, checkpoint)
    seed_everything(seed)
    task = make_stage(config, options, checkpoint, device)
    if options.eval_only:
        evaluate(task, options)
        return 0
    return train(task, config, options, checkpoint, seed)


def read_checkpoint(options: argparse.Namespace) -> Checkpoint | None:
    if not options.checkpoint:
        return None
    default = LATEST if options.resume else BEST
    return load_checkpoint(find_checkpoint(options.checkpoint, options.checkpoint_file or default))


def read_config(
    options: argparse.Namespace, checkpoint: Checkpoint | None, stage: int | None
) -> Config:
    """From --config, or else from the checkpoint; with --set. Raises UserError."""
    own = checkpoint.config if checkpoint else None
    if options.config:
        config = load_config(options.config, options.set, stage)
    elif own:
        config = make_config(own, str(checkpoint.path), stage, options.set)
    else:
        raise UserError("--config FILE is missing, for instance --config configs/h36m/tiny.yaml")
    if config.dataset != "h36m":
        raise UserError(
            f"{options.config}: training and evaluation on {config.dataset} are not part of this"
            " version yet; use a Human3.6M config"
        )
    if checkpoint:
        check_agreement(config, checkpoint)
    if options.resume and own:
        trained = make_config(own, str(checkpoint.path))
        for field in dataclasses.fields(Config):
            before, now = getattr(trained, field.name), getattr(config, field.name)
            if before != now and field.name not in FREE_ON_RESUME:
                raise UserError(
                    f"--resume: {field.name} is {now!r}, the run was trained with {before!r};"
                    " resume with the same config, or start anew without --resume"
                )
    return config


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
) -> Stage:
    """The model with its weights, and the test set it is scored on. Raises UserError."""
    skeleton = skeleton_of(config)
    if config.stage == 1:
        bone_aware = build_bone_aware(config)
        if checkpoint:
            load_weights(bone_aware, checkpoint.model, checkpoint.path)
        test = open_dataset(config, "test")
        return BoneStage(bone_aware.to(device), skeleton, test, config.batch_size, device)
    lifter = build_lifter(config)
    if checkpoint:
        load_weights(lifter, checkpoint.model, checkpoint.path)
    bone_aware = read_bone_aware(options, checkpoint) if config.bone_branch else None
    model = MDTF(bone_aware, lifter, skeleton, config.bone_slots).to(device)
    test = open_dataset(config, "test")
    pickle_path = find_path(config.data_root) / config.dt_file
    clip_frames, test_frames = load_test_frames(test.source, pickle_path)
    return LiftingStage(model, config, skeleton, test, clip_frames, test_frames, device)


def read_bone_aware(options: argparse.Namespace, checkpoint: Checkpoint | None) -> BoneAwareModule:
    """Stage 1 of stage 2: from --stage1-checkpoint, else from the checkpoint, else the default."""
    if options.stage1_checkpoint:
        return load_bone_aware(options.stage1_checkpoint)
    if checkpoint and checkpoint.bone_aware is not None:
        return bone_aware_from_weights(checkpoint.bone_aware, checkpoint.path)
    if not find_path(DEFAULT_STAGE1).is_file():
        raise UserError(
            f"{DEFAULT_STAGE1}: no stage-1 checkpoint; train it with train_firststage.py, or give"
            " another one with --stage1-checkpoint FILE"
        )
    return load_bone_aware(DEFAULT_STAGE1)


def open_dataset(config: Config, split: str) -> ClipDataset:
    return ClipDataset(config.clips_dir, split, config.n_frames, config.use_proj_as_2d)


def evaluate(task: Stage, options: argparse.Namespace) -> None:
    report = task.evaluate(lambda items: progress_bar(items, "evaluating"))
    print(report.table())
    if options.report:
        write_json(options.report, report.as_dict())


def train(
    task: Stage,
    config: Config,
    options: argparse.Namespace,
    checkpoint: Checkpoint | None,
    seed: int,
) -> int:
    dataset = open_dataset(config, "train")
    loader = ClipLoader(
        dataset,
        config.batch_size,
        skeleton=task.skeleton,
        seed=seed,
        flip=config.flip,
        workers=options.num_cpus - 1,
    )
    saved_id = (
        (checkpoint.training or {}).get("wandb_id") if checkpoint and options.resume else None
    )
    run = Run(
        options.new_checkpoint,
        is_resumed=options.resume,
        use_log=options.use_log,
        use_wandb=options.use_wandb,
        wandb_name=options.wandb_name,
        wandb_id=options.wandb_run_id or saved_id,
        settings={**config.as_dict(), "seed": seed, "command": options.command},
    )
    fit = Fit(task, loader, config, run, seed)
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


if __name__ == "__main__":
    run_main(main)
