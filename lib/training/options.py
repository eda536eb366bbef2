"""The flags of train.py, train_firststage.py and train_twostage.py."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lib.checkpoint import DEFAULT_STAGE1
from lib.cli import CommandParser
from lib.errors import UserError
from lib.numbers import whole_number
from lib.training.step import PRECISIONS


@dataclass(kw_only=True)
class Options:
    """A command line, flag by flag; `command`: as it was typed, script first."""

    config: str | None = None
    set: list[str] = field(default_factory=list)
    checkpoint: str | None = None
    checkpoint_file: str | None = None
    new_checkpoint: str = ""  # only an evaluation has none
    stage1_checkpoint: str | None = None
    resume: bool = False
    eval_only: bool = False
    report: str | None = None
    save_predictions: str | None = None
    seed: int | None = None
    device: str = "auto"
    scan_backend: str | None = None
    precision: str = "fp32"
    compile: bool = False
    cuda_graphs: bool = False
    save_every: float | None = None  # minutes
    data_on_device: bool | None = None
    num_cpus: int = 1
    use_log: bool = False
    use_tensorboard: bool = False
    use_wandb: bool = False
    wandb_name: str | None = None
    wandb_run_id: str | None = None
    wandb_artifacts: bool = False
    command: list[str] = field(default_factory=list)


def parse_options(
    argv: Sequence[str] | None,
    description: str,
    backends: Sequence[str],
    *,
    output: str | None = None,
    config: str | None = None,
) -> Options:
    """The command line, checked as far as it can be without files.

    argv: None for this process's own. backends: the choices of --scan-backend; output, config: the
    defaults of --new-checkpoint and --config. Raises UserError.
    """
    parser = CommandParser(description=description)
    add = parser.add_argument
    add(
        "--config",
        metavar="FILE",
        help="YAML config; without it the checkpoint's own, if it carries one"
        + (f", else {config}" if config else ""),
    )
    add(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="override a key; repeatable"
    )
    add(
        "-c",
        "--checkpoint",
        metavar="DIR",
        help="folder (or file) to evaluate, resume or start from",
    )
    add(
        "--checkpoint-file",
        metavar="FILE",
        help="file in it (evaluate, start from: best_epoch.pth.tr; resume: latest_epoch.pth.tr)",
    )
    add(
        "--new-checkpoint",
        metavar="DIR",
        default="",
        help=f"folder this run writes to ({output or 'required'})",
    )
    add(
        "--stage1-checkpoint",
        metavar="FILE",
        help="stage-1 weights of stage 2, in place of the checkpoint's own"
        f" (where it has none: {DEFAULT_STAGE1})",
    )
    add("--resume", action="store_true", help="go on with the run in --checkpoint")
    add("--eval-only", action="store_true", help="evaluate --checkpoint and print the table")
    add("--report", metavar="FILE.json", help="also write the evaluation as JSON")
    add(
        "--save-predictions",
        metavar="FILE.mat",
        help="also write the predictions (mpi_inf_3dhp: for the benchmark's MATLAB script)",
    )
    add("-sd", "--seed", type=whole_number(), help="random seed (0)")
    add(
        "--device", default="auto", help="auto, cpu, cuda, cuda:1 … (auto: CUDA where there is one)"
    )
    add("--scan-backend", choices=backends, help="how the scan is computed (auto)")
    add("--precision", default="fp32", choices=PRECISIONS, help="of the training steps (fp32)")
    add("--compile", action="store_true", help="torch.compile the model for training")
    add("--cuda-graphs", action="store_true", help="replay training steps as CUDA graphs")
    add("--save-every", type=float, metavar="MINUTES", help="also save inside an epoch")
    add(
        "--data-on-device",
        action=argparse.BooleanOptionalAction,
        help="keep the training frames on the GPU (where they take a quarter of its free memory)",
    )
    add(
        "--num-cpus",
        type=whole_number(1),
        default=1,
        help="processes that load data, this one included (1)",
    )
    add("--use-log", action="store_true", help="also write the log lines to the run's train.log")
    add("--use-tensorboard", action="store_true", help="write the run's TensorBoard files")
    add("--use-wandb", action="store_true", help="track the run with Weights & Biases")
    add("--wandb-name", metavar="NAME", help="the run's name at Weights & Biases")
    add("--wandb-run-id", metavar="ID", help="the run's id at Weights & Biases")
    add("--wandb-artifacts", action="store_true", help="upload each new best checkpoint too")
    typed = sys.argv[1:] if argv is None else list(argv)
    options = Options(**vars(parser.parse_args(typed)), command=[sys.argv[0], *typed])
    if not options.new_checkpoint:
        options.new_checkpoint = (options.checkpoint if options.resume else output) or ""
    _check(options)
    return options


def _check(options: Options) -> None:
    for flag, name in ((options.eval_only, "--eval-only"), (options.resume, "--resume")):
        if flag and not options.checkpoint:
            raise UserError(f"{name} needs --checkpoint DIR, the folder with the checkpoint")
    if options.eval_only and options.resume:
        raise UserError("--eval-only and --resume exclude each other; leave one out")
    if not options.eval_only and not options.new_checkpoint:
        raise UserError("--new-checkpoint DIR is missing: the folder this run writes to")
    if options.report is not None and not Path(options.report).name:
        raise UserError(f"--report {options.report}: no file's name; give one, like report.json")
    if options.report and not options.eval_only:
        raise UserError("--report belongs to --eval-only; a training writes history.jsonl")
    if options.save_predictions is not None:
        if Path(options.save_predictions).suffix != ".mat":
            raise UserError(
                f"--save-predictions {options.save_predictions}: the name must end in .mat"
            )
        if not options.eval_only:
            raise UserError("--save-predictions belongs to --eval-only; leave it out")
        if (
            options.report
            and Path(options.report).resolve() == Path(options.save_predictions).resolve()
        ):
            raise UserError("--report and --save-predictions name the same file; give two")
    if options.wandb_artifacts and not options.use_wandb:
        raise UserError("--wandb-artifacts needs --use-wandb; give both, or leave it out")
    if options.save_every is not None and not options.save_every > 0:
        raise UserError(f"--save-every {options.save_every}: more than 0 minutes")
