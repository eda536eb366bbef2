"""Resuming a run of the released code: what its checkpoints hold beside the weights."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from lib.config import Config
from lib.errors import UserError
from lib.released import (
    Contents,
    State,
    accuracy_without_root,
    in_released_order,
    translate_released,
)
from lib.schedule import learning_rate

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, one of each for a parameter

# How the released code always trains.
FIXED_TRAINING = {
    "optimizer": "adamw",
    "weight_decay_on": "all",
    "schedule": "exponential",
    "warmup": 0.0,
    "train_bone_aware": False,
}


@dataclass(frozen=True)
class ReleasedRun:
    """How far a run of the released code came.

    optimizer: the state_dict() of its AdamW; names: the released names of the parameters, in the
    file's order; lr: of the last epoch (it is saved before lr_decay is applied).
    """

    path: Path
    stage: int
    epoch: int
    best: float | None
    lr: float | None
    optimizer: Mapping[str, object]
    names: list[str]
    wandb_id: str | None


def released_run(
    path: Path,
    stage: int,
    raw: Mapping[str, object],
    names: list[str],
    epoch: int,
    best: float | None,
) -> ReleasedRun | None:
    """The run in the contents `raw` of a released checkpoint; None if it holds weights only."""
    optimizer, lr, wandb_id = raw.get("optimizer"), raw.get("lr"), raw.get("wandb_id")
    if not isinstance(optimizer, dict):
        return None
    return ReleasedRun(
        path=path,
        stage=stage,
        epoch=epoch,
        best=best,
        lr=float(lr) if isinstance(lr, int | float) else None,
        optimizer=optimizer,
        names=names,
        wandb_id=wandb_id if isinstance(wandb_id, str) else None,
    )


def training_state(
    run: ReleasedRun, config: Config, optimizer: torch.optim.Optimizer, model: nn.Module
) -> Contents:
    """What a resumed Fit needs, as our own checkpoints hold it, except the random states.

    model: the one that `optimizer` trains. Raises UserError where the run cannot be continued.
    """
    best = run.best
    if best is not None and run.stage == 1:
        best = accuracy_without_root(best)
    _check_settings(run, config)
    return {
        "position": {"epoch": run.epoch, "step": 0, "best": best, "best_ema": None},
        "sums": {},
        "clips": 0,
        "history": [],
        "optimizer": _optimizer_state(run, optimizer, model),
        "ema": None,
        "wandb_id": run.wandb_id,
    }


def _check_settings(run: ReleasedRun, config: Config) -> None:
    for key, only in FIXED_TRAINING.items():
        value = getattr(config, key)
        if value != only:
            raise UserError(
                f"--resume: {key} is {value!r}, the released code trained {run.path} with {only!r};"
                f" leave {key} out"
            )
    groups = run.optimizer.get("param_groups")
    for group in groups if isinstance(groups, list) else ():
        decay = group.get("weight_decay") if isinstance(group, dict) else None
        if isinstance(decay, int | float) and not math.isclose(decay, config.weight_decay):
            raise UserError(
                f"--resume: weight_decay is {config.weight_decay}, {run.path} was trained with"
                f" {decay}; resume with the same one"
            )
    expected = learning_rate(config, max(0, run.epoch - 1), step=0, steps=1)
    if run.lr is not None and not math.isclose(run.lr, expected, rel_tol=1e-6):
        warnings.warn(
            f"{run.path}: its last learning rate is {run.lr:.6g}, the config gives {expected:.6g}"
            f" for epoch {run.epoch}; going on by the config",
            stacklevel=2,
        )


def _optimizer_state(
    run: ReleasedRun, optimizer: torch.optim.Optimizer, model: nn.Module
) -> Contents:
    """The state of `optimizer`, which numbers parameters in our order, from the released one.

    The released optimizer numbers them in the order of the released model. The file's names are in
    this order too, unless another tool has saved them again: sorted, for instance.
    """
    # In stage 2 the lifter is a part of the model.
    name_of = {id(p): name.removeprefix("lifter.") for name, p in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    misfit = ""
    for names in (run.names, in_released_order(run.names)):
        states = _states_by_name(run, names)
        ours: dict[int, State] = {}
        for number, parameter in enumerate(parameters):
            name = name_of[id(parameter)]
            if name not in states or any(
                states[name][kind].shape != parameter.shape for kind in MOMENTS
            ):
                misfit = misfit or name
                break
            ours[number] = states[name]
        else:
            return {"state": ours, "param_groups": optimizer.state_dict()["param_groups"]}
    raise _unfit(run, misfit)


def _states_by_name(run: ReleasedRun, names: list[str]) -> dict[str, State]:
    """The released optimizer's states by our names; their numbers are places in `names`."""
    states = run.optimizer.get("state")
    if not isinstance(states, dict) or set(states) != set(range(len(names))):
        raise _unfit(run, f"they have {len(names)} trained tensors")
    moments = {
        kind: translate_released(
            {name: _tensor(run, states[number], kind) for number, name in enumerate(names)}
        )
        for kind in MOMENTS
    }
    # Translation keeps the order: the tensors of a kind are numbered as before.
    return {
        name: {
            "step": _tensor(run, states[number], "step"),
            **{kind: moments[kind][name] for kind in MOMENTS},
        }
        for number, name in enumerate(moments[MOMENTS[0]])
    }


def _tensor(run: ReleasedRun, state: object, kind: str) -> Tensor:
    value = state.get(kind) if isinstance(state, dict) else None
    if kind == "step" and isinstance(value, int | float):  # as older PyTorch counts
        return torch.tensor(float(value))
    if not isinstance(value, Tensor):
        raise _unfit(run, f"no {kind}")
    return value


def _unfit(run: ReleasedRun, what: str) -> UserError:
    return UserError(
        f"{run.path}: the state of its optimizer does not fit its weights ({what}), so it cannot be"
        " resumed; resume from another checkpoint, or drop --resume to start from these weights"
    )
