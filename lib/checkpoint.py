"""Checkpoints, ours and released ones: written whole, read without running code from them."""

import os
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lib.config import MODEL_KEYS, Config, make_config
from lib.errors import UserError
from lib.files import find_path, listing, write_atomic
from lib.format_1 import turned_training
from lib.released import (
    RELEASED_FORMS,
    Contents,
    State,
    is_released,
    trained_names,
    translate_released,
    turned_round,
    without_prefix,
)
from lib.released_run import ReleasedRun, released_run

LATEST, BEST = "latest_epoch.pth.tr", "best_epoch.pth.tr"
PREVIOUS, BEST_EMA = "previous_epoch.pth.tr", "best_ema_epoch.pth.tr"
# Names under which the weights stand in a checkpoint: ours first.
WRAPPERS = ("model", "state_dict", "model_state_dict", "model_pos", "net", "network", "weights")
PATTERN = "*.pth.tr"
# The format of the files that our training writes. In format 1, whose files do not say so, the
# joints of the backward graph's BatchNorm are in the order of its scan.
FORMAT = 2
DEFAULT_STAGE1 = "checkpoint/stage1/best_epoch.pth.tr"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds, under our names."""

    path: Path
    stage: int
    model: State  # of BoneAwareModule (stage 1) or Lifter (stage 2)
    bone_aware: State | None  # stage 2: the stage-1 weights it was trained with, if it has them
    bone_aware_forms: Contents | None  # what these weights do not tell; None: as released
    config: Contents | None  # None: a released file
    epoch: int
    best: float | None
    training: Contents | None  # what --resume needs: optimizer, random states …
    released: ReleasedRun | None  # the same, from a released file
    is_released: bool = False  # whether the file has the released names

    @property
    def can_resume(self) -> bool:
        return self.training is not None or self.released is not None

    @property
    def wandb_id(self) -> str | None:
        return self.released.wandb_id if self.released else (self.training or {}).get("wandb_id")


# --- Reading --------------------------------------------------------------------------------


def find_checkpoint(directory: str | os.PathLike[str], file_name: str) -> Path:
    """The checkpoint `file_name` in `directory` (or `directory` itself, if it is a file)."""
    place = find_path(directory)
    if place.is_file():
        return place
    path = place / file_name
    if not path.is_file():
        raise UserError(
            f"{Path(directory) / file_name}: no such checkpoint; there: {listing(place, PATTERN)}"
        )
    return path


def _numpy_scalars() -> list[Any]:
    """What the pickle of a numpy number refers to; released checkpoints hold such scores."""
    rebuild: Any = np.float64(0).__reduce__()[0]
    kinds = (np.float64, np.float32, np.int64, np.int32)
    spellings = [
        (rebuild, "numpy.core.multiarray.scalar"),
        (rebuild, "numpy._core.multiarray.scalar"),
    ]
    return [*spellings, np.dtype, *(type(np.dtype(kind)) for kind in kinds)]


def _read(path: Path) -> Contents:
    try:
        with torch.serialization.safe_globals(_numpy_scalars()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about foreign pickles
            raw = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's message advises loading without this protection; ours does not.
        match = re.search(r"GLOBAL (\S+)|global (\S+)", str(error))
        named = f" ({match.group(1) or match.group(2)})" if match else ""
        raise UserError(
            f"{path}: not loaded, it holds more than tensors, numbers and names{named},"
            " or is damaged; get the file again from a source you trust"
        ) from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged file can raise almost anything
        raise UserError(
            f"{path}: damaged or not a checkpoint; copy it again or use another one"
        ) from error
    if not isinstance(raw, dict):
        raise UserError(f"{path}: not a checkpoint of this project (no dict with 'model' inside)")
    return raw


def _state(path: Path, value: object, what: str) -> State:
    if (
        not isinstance(value, Mapping)
        or not value
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())
    ):
        raise UserError(f"{path}: {what} is not a set of named tensors; use another checkpoint")
    if is_released(value):
        return translate_released(value)
    return without_prefix(value)


def _weights_in(raw: Contents) -> Any:
    """What is under 'model', or under another name that tools give the weights; a bare state dict
    is itself one. Such wrappers may be nested."""
    name = next((name for name in WRAPPERS if isinstance(raw.get(name), Mapping)), None)
    if name is None:
        return raw.get("model", raw)
    return _weights_in(raw[name])


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint, ours or a released one, onto the CPU. Never runs code from the file.

    Raises UserError: missing, damaged, foreign or unsafe file.
    """
    found = find_path(path)
    if not found.is_file():
        raise UserError(f"{path}: no such checkpoint; there: {listing(found.parent, PATTERN)}")
    raw = _read(found)
    contents = _weights_in(raw)
    model = _state(found, contents, "'model'")
    if "narrow.0.weight" in model:
        stage = 1
    elif "head.1.weight" in model:
        stage = 2
    else:
        raise UserError(
            f"{path}: these are not weights of MDTF (neither a Bone Aware Module nor a lifter;"
            f" the first tensor is {next(iter(model))!r})"
        )
    bone_aware = raw.get("bone_aware")
    config, training = raw.get("config"), raw.get("training")
    bone_aware_forms = raw.get("bone_aware_forms")
    best = raw.get("best", raw.get("min_mpjpe", raw.get("max_accuracy")))
    best = float(best) if isinstance(best, int | float | np.number) else None
    epoch = raw.get("epoch", 0)
    epoch = int(epoch) if isinstance(epoch, int | np.integer) else 0
    for table in (config, training, bone_aware_forms):
        if table is not None and not (
            isinstance(table, dict) and all(isinstance(key, str) for key in table)
        ):
            raise UserError(
                f"{path}: damaged ('config', 'training' or 'bone_aware_forms' is not a table)"
            )
    file_format = raw.get("format", 1 if "stage" in raw else FORMAT)
    if not isinstance(file_format, int) or file_format > FORMAT:
        raise UserError(f"{path}: of format {file_format!r}, made by newer code; update this code")
    if file_format < 2 and not is_released(contents):
        training = turned_training(training, model, config)
        model = turned_round(model)
    return Checkpoint(
        path=found,
        stage=stage,
        model=model,
        bone_aware=None if bone_aware is None else _state(found, bone_aware, "'bone_aware'"),
        bone_aware_forms=bone_aware_forms,
        config=config,
        epoch=epoch,
        best=best,
        training=training,
        released=released_run(found, stage, raw, trained_names(contents), epoch, best)
        if is_released(contents)
        else None,
        is_released=is_released(contents),
    )


def load_weights(module: nn.Module, state: State, source: str | os.PathLike[str]) -> None:
    """Copy `state` into `module`; names and shapes must match exactly. Raises UserError."""
    expected = module.state_dict()
    missing = [name for name in expected if name not in state]
    unexpected = [name for name in state if name not in expected]
    if missing and all(".backward_graph." in name for name in missing) and not unexpected:
        raise UserError(
            f"{source}: has no weights for the backward graph convolution (gcn_b, norm_gcn_b), so"
            " it cannot have been trained with the published model; train it with this code,"
            " or set graph: forward if it was trained so"
        )
    wrong = [n for n in expected if n in state and state[n].shape != expected[n].shape]
    for names, problem in ((wrong, "another shape"), (missing, "no tensor"), (unexpected, "")):
        if not names:
            continue
        name, more = names[0], f" and {len(names) - 1} more" if len(names) > 1 else ""
        if problem == "another shape":
            told = (
                f"{name}{more} has shape {tuple(state[name].shape)}, the config makes it"
                f" {tuple(expected[name].shape)}"
            )
        else:
            told = f"{problem or 'an unknown tensor'} {name}{more}"
        raise UserError(
            f"{source}: does not fit the config: {told}; use the config it was made with"
        )
    module.load_state_dict(state)


def newest_readable(folder: Path, to_resume: bool) -> Path | None:
    """The newest checkpoint in a folder that can be read (and resumed), or None."""
    for path in sorted(folder.glob(PATTERN), key=lambda p: p.stat().st_mtime, reverse=True):
        try:
            if load_checkpoint(path).can_resume or not to_resume:
                return path
        except UserError:
            continue
    return None


def check_agreement(config: Config, checkpoint: Checkpoint) -> None:
    """Raise UserError where `config` describes another model than the checkpoint's own config."""
    if checkpoint.stage != config.stage:
        raise UserError(
            f"{checkpoint.path}: a checkpoint of stage {checkpoint.stage}, but the config is of"
            f" stage {config.stage}"
        )
    if checkpoint.is_released:
        for key, only in RELEASED_FORMS.items():
            if getattr(config, key) != only:
                raise UserError(
                    f"{checkpoint.path}: a released checkpoint, whose {key} is {only!r}; the config"
                    f" says {getattr(config, key)!r}"
                )
    if checkpoint.config is None:
        return
    own = make_config(checkpoint.config, str(checkpoint.path))
    for key in MODEL_KEYS:
        trained, asked = getattr(own, key), getattr(config, key)
        if trained != asked:
            raise UserError(
                f"{checkpoint.path}: trained with {key} {trained!r}, the config says {asked!r};"
                " use the config it was made with"
            )


# --- Writing --------------------------------------------------------------------------------


def save_checkpoint(path: str | os.PathLike[str], contents: Contents) -> None:
    """torch.save, atomically: a crash leaves the old file or the new one at `path`, whole."""
    with write_atomic(path) as file:
        torch.save(contents, file)
