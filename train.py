"""Train or evaluate any stage: flags -> session, data, model -> the one loop or the one table."""

from collections.abc import Sequence
from contextlib import closing

import torch

from data.benchmark import Benchmark
from data.benchmarks import benchmark_of, find_benchmark, skeleton_of
from data.loader import ClipLoader
from data.resident import on_device
from lib import memory
from lib.checkpoint import Checkpoint, load_weights
from lib.cli import logger, run_main
from lib.config import Config, make_config
from lib.device import numerics
from lib.errors import UserError
from lib.evaluation.matlab import check_can_write, write_predictions
from lib.evaluation.report import Report
from lib.files import write_json
from lib.skeleton import Skeleton
from lib.training.compiled import check_graphs, compile_model, graph_model
from lib.training.fit import Fit
from lib.training.joint import JointStage
from lib.training.options import parse_options
from lib.training.progress import progress_bar
from lib.training.session import Session, open_run, open_session
from lib.training.signals import Interrupted
from lib.training.stages import BoneStage, LiftingStage, Stage
from model.bone_aware import BoneAwareModule
from model.build import build_bone_aware, build_mdtf
from model.ops import backend_asked_for, backend_names, resolve_backend
from model.ops.matmul import fast_matmul


def main(
    argv: Sequence[str] | None = None,
    stage: int | None = None,
    output: str | None = None,
    default_config: str | None = None,
) -> int:
    """Run a command line, this process's if none is given; returns its exit status.

    stage, output and default_config: what train_firststage.py and train_twostage.py fix, with the
    defaults of the released scripts. Raises UserError.
    """
    options = parse_options(
        argv, __doc__ or "", backend_names(), output=output, config=default_config
    )
    with (
        open_session(options, complete, stage=stage, default_config=default_config) as session,
        backend_asked_for(options.scan_backend),
        fast_matmul(session.device),
        numerics(session.device, options.precision),
    ):
        backend, reason = resolve_backend("auto", session.device, torch.float32)
        logger.info("scan backend %s (%s)", backend, reason)
        task = make_stage(session)
        return evaluate(session, task) if options.eval_only else train(session, task)


def complete(config: Config) -> Config:
    return find_benchmark(config.dataset).complete(config)


def check_joints(config: Config, checkpoint: Checkpoint) -> None:
    """Raise UserError if the checkpoint's model knows other joints than the config's data set."""
    if checkpoint.config is None:
        return
    trained = benchmark_of(make_config(checkpoint.config, str(checkpoint.path)))
    benchmark = benchmark_of(config)
    if trained.skeleton != benchmark.skeleton:
        raise UserError(
            f"{checkpoint.path}: trained on the joints of {trained.name}, which are not those of"
            f" {benchmark.name}; use a config of {trained.name}"
        )


def check_units(config: Config, checkpoint: Checkpoint) -> None:
    """Raise UserError if a checkpoint's poses, scored as they are, have other units than the data
    set's labels: millimetres at the root's depth, or metres, for instance."""
    if checkpoint.config is None or config.stage == 1:  # angles have none
        return
    trained = benchmark_of(make_config(checkpoint.config, str(checkpoint.path)))
    benchmark = benchmark_of(config)
    if trained.units is not benchmark.units:
        raise UserError(
            f"{checkpoint.path}: trained on the labels of {trained.name}, whose unit is not that of"
            f" {benchmark.name}; evaluate it with a config of {trained.name}"
        )


def make_stage(session: Session) -> Stage:
    """The model with its weights, and the test set it is scored on. Raises UserError."""
    config, checkpoint, device = session.config, session.checkpoint, session.device
    if checkpoint:
        check_joints(config, checkpoint)
        if session.options.eval_only:
            check_units(config, checkpoint)
    benchmark = benchmark_of(config)
    skeleton = benchmark.skeleton
    if config.stage == 1:
        bone_aware = build_bone_aware(config, skeleton)
        if checkpoint:
            load_weights(bone_aware, checkpoint.model, checkpoint.path)
        return make_bone_stage(config, benchmark, bone_aware, device)
    stage1 = session.options.stage1_checkpoint
    if session.resumed and config.train_bone_aware and stage1:
        raise UserError(
            "--stage1-checkpoint: this run trains its stage 1 along and goes on with its own;"
            " leave the flag out"
        )
    model = build_mdtf(config, checkpoint, stage1, skeleton, skeleton_of).to(device)
    lifting = LiftingStage(
        model, config, skeleton, benchmark.test_sets(config), device, session.seed
    )
    if not config.train_bone_aware or model.bone_aware is None:
        return lifting
    bones = make_bone_stage(config, benchmark, model.bone_aware, device)
    return JointStage(lifting, bones, config.lambda_bins)


def make_bone_stage(
    config: Config, benchmark: Benchmark, bone_aware: BoneAwareModule, device: torch.device
) -> BoneStage:
    test, protocol, counted = benchmark.bone_test(config)
    bone_aware.to(device)
    return BoneStage(
        bone_aware, benchmark.skeleton, test, config.batch_size, device, protocol, counted
    )


def make_loader(session: Session, skeleton: Skeleton) -> ClipLoader:
    """The training clips, epoch after epoch. Raises UserError."""
    config = session.config
    benchmark = benchmark_of(config)
    clips = benchmark.open_training(config)
    resident = on_device(clips, session.device, session.options.data_on_device)
    if resident is not None:
        logger.info("training frames on %s", session.device)
    return ClipLoader(
        clips if resident is None else resident,
        config.batch_size,
        skeleton=skeleton,
        seed=session.seed,
        flip=config.flip,
        each_mirrored=benchmark.each_mirrored,
        workers=session.options.num_cpus - 1,
        processes=session.processes,
        parts=config.accumulate,
        pin=session.device.type == "cuda",
    )


def evaluate(session: Session, task: Stage) -> int:
    processes, options = session.processes, session.options
    if options.save_predictions:
        if not find_benchmark(session.config.dataset).saves_predictions or task.metric != "mpjpe":
            raise UserError(
                "--save-predictions is for stage 2 on mpi_inf_3dhp, whose benchmark has a script"
                " that reads them; leave it out"
            )
        check_can_write(options.save_predictions)
    report = task.evaluate(
        task.model, lambda clips: progress_bar(clips, "evaluating", processes), processes
    )
    if processes.is_main:
        print(report.table())
        if options.report:
            write_json(options.report, report.as_dict())
        if options.save_predictions and isinstance(report, Report):
            write_predictions(options.save_predictions, report.predictions)
    return 0


def train(session: Session, task: Stage) -> int:
    config, options = session.config, session.options
    if session.device.type == "cpu":
        memory.keep_freed()
    check_graphs(session)
    loader = make_loader(session, task.skeleton)
    with closing(open_run(session)) as run:
        if options.compile:
            compile_model(task, next(loader.batches(0)), run)
        if options.cuda_graphs:
            graph_model(task, next(loader.batches(0)), run)
        fit = Fit(session, task, loader, run)
        trained = sum(p.numel() for p in task.model.parameters() if p.requires_grad)
        run.log(
            f"stage {config.stage}: {trained:,} trained parameters, {len(loader.dataset):,}"
            f" training and {len(task.test):,} test clips of {config.n_frames} frames, writing to"
            f" {run.folder}"
        )
        try:
            fit()
        except Interrupted as stop:
            return stop.exit_status
    return 0


if __name__ == "__main__":
    run_main(main)
