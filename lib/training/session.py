"""What a training or an evaluation starts with: config, checkpoint, seed, device and processes."""

import dataclasses
import logging
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from lib.checkpoint import (
    BEST,
    LATEST,
    PATTERN,
    Checkpoint,
    check_agreement,
    find_checkpoint,
    load_checkpoint,
    newest_readable,
)
from lib.cli import log_to_stdout, logger
from lib.config import Config, load_config, make_config
from lib.device import choose_device
from lib.errors import UserError
from lib.files import check_file_writable, find_path, refuse_same_file
from lib.processes import Processes, joined_processes
from lib.random_state import seed_everything
from lib.training.options import Options
from lib.training.run import CONFIG, HISTORY, RUN, Run, SilentRun

# What a resumed run may change without becoming another run.
FREE_ON_RESUME = ("epochs", "data_root", "dt_file", "dt_init")


@dataclass(frozen=True)
class Session:
    """The command line, the files it names, and where it runs."""

    options: Options
    config: Config
    checkpoint: Checkpoint | None = None
    seed: int = 0
    device: torch.device = dataclasses.field(default_factory=lambda: torch.device("cpu"))
    processes: Processes = dataclasses.field(default_factory=Processes)

    @property
    def resumed(self) -> Checkpoint | None:
        """The checkpoint that a resumed run goes on from."""
        return self.checkpoint if self.options.resume else None


@contextmanager
def open_session(
    options: Options,
    complete: Callable[[Config], Config],
    *,
    stage: int | None,
    default_config: str | None,
) -> Iterator[Session]:
    """Join the run's processes, read config and checkpoint, choose the device, seed everything.

    complete: fills in the keys that a data set decides; stage: the only one that the command takes;
    default_config: taken if neither the command line nor the checkpoint has one.
    Raises UserError before anything is written.
    """
    with joined_processes(options.device) as processes:
        log_to_stdout(logging.INFO if processes.is_main else logging.WARNING)
        checkpoint = _read_checkpoint(options)
        config = complete(_read_config(options, checkpoint, stage, default_config))
        if checkpoint:
            check_agreement(config, checkpoint)
        if checkpoint and checkpoint.config:
            trained = make_config(checkpoint.config, str(checkpoint.path))
            if options.resume:
                _check_same_run(config, complete(trained))
                tell_schedule(config, trained)
            if trained.frame_rate != config.frame_rate:
                of_both = (config.frame_rate, trained.frame_rate)
                logger.info("frame_rate %g instead of the checkpoint's %g", *of_both)
        device = choose_device(options.device, processes)
        _protect_sources(options, config, checkpoint)
        seed = _choose_seed(options, checkpoint)
        seed_everything(seed)
        logger.info(
            "device %s, %d process(es) of %d thread(s), torch %s, Python %s",
            device,
            processes.world,
            torch.get_num_threads(),
            torch.__version__,
            platform.python_version(),
        )
        yield Session(options, config, checkpoint, seed, device, processes)


def open_run(session: Session) -> Run | SilentRun:
    """The run that writes this training's folder: the main process's. Raises UserError."""
    options, resumed = session.options, session.resumed
    if not session.processes.is_main:
        return SilentRun(options.new_checkpoint)
    return Run(
        options.new_checkpoint,
        is_resumed=options.resume,
        config=session.config.as_dict(),
        seed=session.seed,
        command=options.command,
        use_log=options.use_log,
        use_tensorboard=options.use_tensorboard,
        use_wandb=options.use_wandb,
        wandb_artifacts=options.wandb_artifacts,
        wandb_name=options.wandb_name,
        wandb_id=options.wandb_run_id or (resumed.wandb_id if resumed else None),
    )


def _read_checkpoint(options: Options) -> Checkpoint | None:
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


def _read_config(
    options: Options,
    checkpoint: Checkpoint | None,
    stage: int | None,
    default_config: str | None,
) -> Config:
    """From --config, else from the checkpoint, else the command's own; with --set."""
    trained = checkpoint.config if checkpoint else None
    if options.config:
        likely_stage = checkpoint.stage if checkpoint else None
        return load_config(options.config, options.set, stage, likely_stage)
    if checkpoint and trained:
        return make_config(trained, str(checkpoint.path), stage, options.set)
    if default_config:
        logger.info("config %s (this script's default)", default_config)
        return load_config(default_config, options.set, stage)
    raise UserError("--config FILE is missing, for instance --config configs/h36m/tiny.yaml")


def _check_same_run(config: Config, trained: Config) -> None:
    for field in dataclasses.fields(Config):
        before, now = getattr(trained, field.name), getattr(config, field.name)
        if before != now and field.name not in FREE_ON_RESUME:
            raise UserError(
                f"--resume: {field.name} is {now!r}, the run was trained with {before!r};"
                " resume with the same config, or start anew without --resume"
            )


def tell_schedule(config: Config, trained: Config) -> None:
    """A rate that counts the steps to the end moves where a resumed run has another end."""
    if config.epochs != trained.epochs and (config.warmup or config.schedule != "exponential"):
        logger.info(
            "%d epochs, not %d: the learning rate goes on as if it had been %d from the start",
            config.epochs,
            trained.epochs,
            config.epochs,
        )


def _protect_sources(options: Options, config: Config, checkpoint: Checkpoint | None) -> None:
    """Before any work: no result may replace what the run reads."""
    sources = [options.config, checkpoint.path if checkpoint else None, *config.clips_dirs]
    if config.dt_file:
        sources.append(find_path(config.data_root) / config.dt_file)
    if options.stage1_checkpoint:
        stage1 = find_path(options.stage1_checkpoint)
        sources.append(stage1 / BEST if stage1.is_dir() else stage1)
    results = [path for path in (options.report, options.save_predictions) if path is not None]
    if options.eval_only:
        if checkpoint:  # what only a later --resume reads is as precious
            folder = checkpoint.path.parent
            sources += [*folder.glob(PATTERN), *(folder / name for name in (CONFIG, RUN, HISTORY))]
        for path in results:
            refuse_same_file(path, sources)
            check_file_writable(path)
    elif not options.resume:  # a resumed run writes its own files anew
        refuse_same_file(Path(options.new_checkpoint) / CONFIG, sources)


def _choose_seed(options: Options, checkpoint: Checkpoint | None) -> int:
    """A resumed run keeps its seed; else --seed, else 0."""
    saved = (checkpoint.training or {}).get("seed") if checkpoint and options.resume else None
    if saved is None:
        return options.seed or 0
    if options.seed not in (None, saved):
        raise UserError(f"--seed {options.seed}: the run was trained with {saved}; leave it out")
    return int(saved)
