"""Write a checkpoint of ours as the released code wants it: its names, its order, its extra keys.

    python -m lib.to_released checkpoint/stage2/tiny released/stage2/best_epoch.pth.tr \\
        --stage1-output released/stage1/best_epoch.pth.tr
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from lib.checkpoint import BEST, Checkpoint, find_checkpoint, load_checkpoint, save_checkpoint
from lib.cli import CommandParser, run_main
from lib.config import Config, make_config
from lib.errors import UserError
from lib.files import refuse_same_file
from lib.released import (
    RELEASED_FORMS,
    Contents,
    State,
    accuracy_with_root,
    released_names_of,
    trained_names,
    translate_to_released,
)
from lib.released_run import FIXED_TRAINING, MOMENTS
from lib.schedule import learning_rate
from lib.skeleton import H36M

# What the released model always is; it has no switch for them.
FIXED = {
    **RELEASED_FORMS,
    "bone_branch": True,
    "bone_slots": "released",
    "bins": 6,
    "bone_confidence": False,
    "graph": "both",
    "fusion": "learned",
    "d_conv": 4,
}
PREFIX = "module."  # the released code wraps its model in DataParallel wherever CUDA is there


def released_contents(checkpoint: Checkpoint, prefix: str) -> Contents:
    """What torch.save writes for the released code; with the optimizer if the checkpoint has it.

    prefix: before every name. Raises UserError for a model that the released layout cannot hold.
    """
    config = _config(checkpoint)
    epoch, best = checkpoint.epoch, checkpoint.best
    if best is None:  # not evaluated yet: what the released code starts with
        best = math.inf if checkpoint.stage == 2 else 0.0
    elif checkpoint.stage == 1:
        best = accuracy_with_root(best)
    contents: Contents = {
        "epoch": epoch,
        # The released code saves the rate of the epoch that has ended.
        "lr": learning_rate(config, max(0, epoch - 1), step=0, steps=1),
        "model": _prefixed(checkpoint.model, checkpoint.path, prefix),
        "min_mpjpe" if checkpoint.stage == 2 else "max_accuracy": best,
        "wandb_id": checkpoint.wandb_id,
    }
    if checkpoint.training is not None:
        contents["optimizer"] = _optimizer(checkpoint, config, contents["lr"])
    return contents


def released_stage1(checkpoint: Checkpoint, prefix: str) -> Contents:
    """The stage 1 that a stage-2 checkpoint carries, likewise: its weights alone."""
    if checkpoint.bone_aware is None:
        raise UserError(f"{checkpoint.path}: carries no stage-1 weights; leave out --stage1-output")
    return {"model": _prefixed(checkpoint.bone_aware, checkpoint.path, prefix)}


def _config(checkpoint: Checkpoint) -> Config:
    if checkpoint.config is None:
        raise UserError(f"{checkpoint.path}: is none of our checkpoints (it carries no config)")
    config = make_config(checkpoint.config, str(checkpoint.path))
    for key, only in FIXED.items():
        _refuse_other(checkpoint.path, key, getattr(config, key), only)
    if config.joints not in ((), H36M.names):
        raise UserError(
            f"{checkpoint.path}: trained on joints that the released code does not have"
        )
    # Whoever exports stage 2 needs a stage 1 for it there.
    stage1_input = (checkpoint.bone_aware_forms or {}).get("input", FIXED["input"])
    _refuse_other(checkpoint.path, "a stage 1 of input", stage1_input, FIXED["input"])
    return config


def _refuse_other(path: Path, what: str, value: object, only: object) -> None:
    if value != only:
        raise UserError(
            f"{path}: trained with {what} {value!r}; the released model has only {only!r}"
        )


def _prefixed(state: State, path: Path, prefix: str) -> dict[str, Tensor]:
    try:
        return {prefix + name: value for name, value in translate_to_released(state).items()}
    except KeyError as error:
        raise UserError(f"{path}: the released model has no place for {error}") from error


def _optimizer(checkpoint: Checkpoint, config: Config, learning_rate: float) -> Contents:
    """Our AdamW's state with its parameters numbered in the released order."""
    for key, only in FIXED_TRAINING.items():
        value = getattr(config, key)
        if value != only:
            raise UserError(
                f"{checkpoint.path}: trained with {key} {value!r}, the released training has only"
                f" {only!r}; write the weights alone, for instance --checkpoint-file {BEST}"
            )
    assert checkpoint.training is not None
    states = checkpoint.training["optimizer"]["state"]
    by_name = {name: states[i] for i, name in enumerate(trained_names(checkpoint.model))}
    moments = {
        kind: list(translate_to_released({n: state[kind] for n, state in by_name.items()}).values())
        for kind in MOMENTS
    }
    order = [name for name in released_names_of(by_name).values() if name in by_name]
    group = {"lr": learning_rate, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
    group |= {"weight_decay": config.weight_decay, "maximize": False, "foreach": None}
    group |= {"capturable": False, "differentiable": False, "fused": None}
    return {
        "state": {
            number: {
                "step": by_name[name]["step"],
                **{kind: moments[kind][number] for kind in MOMENTS},
            }
            for number, name in enumerate(order)
        },
        "param_groups": [{**group, "params": list(range(len(order)))}],
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="folder or file: a checkpoint of ours")
    add("output", metavar="FILE", help="where it is written under the released names")
    add("--checkpoint-file", metavar="FILE", default=BEST, help=f"file in the folder ({BEST})")
    add("--stage1-output", metavar="FILE", help="write the stage 1 that stage 2 carries, too")
    add(
        "--no-prefix",
        action="store_true",
        help=f"names without {PREFIX!r}: for the released code on a machine without CUDA",
    )
    options = parser.parse_args(argv)
    prefix = "" if options.no_prefix else PREFIX
    source = find_checkpoint(options.checkpoint, options.checkpoint_file)
    checkpoint = load_checkpoint(source)
    files = {options.output: released_contents(checkpoint, prefix)}
    if options.stage1_output:
        if Path(options.stage1_output).resolve() == Path(options.output).resolve():
            raise UserError(f"{options.output}: given for both stages; name two files")
        files[options.stage1_output] = released_stage1(checkpoint, prefix)
    for path in files:
        _refuse_existing(path, source)
    for path, contents in files.items():
        save_checkpoint(path, contents)
        has = "with" if "optimizer" in contents else "without"
        print(f"{path}: {len(contents['model'])} tensors, {has} the state of the optimizer")
    step = checkpoint.training["position"]["step"] if checkpoint.training else 0
    if step:
        print(
            f"saved after step {step} of epoch {checkpoint.epoch + 1}: the released code knows no"
            " steps and begins this epoch anew"
        )
    config = _config(checkpoint)
    keys = ("channel", "st_depth", "d_state", "n_frames", "if_divide_out")
    print("its config there: " + ", ".join(f"{key}: {getattr(config, key)}" for key in keys))
    return 0


def _refuse_existing(path: str | os.PathLike[str], source: Path) -> None:
    refuse_same_file(path, [source])
    if Path(path).exists():
        raise UserError(f"{path}: is there already; write to another file, or remove it first")


if __name__ == "__main__":
    run_main(main)
