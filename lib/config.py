"""Configuration: YAML in the released code's flat keys -> one frozen, checked dataclass."""

import dataclasses
import math
import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lib.errors import UserError, did_you_mean
from lib.files import PROJECT_ROOT, find_path
from lib.geometry import BINS, INPUTS, NUM_BINS, SLOTS
from lib.parameters import DECAYED, OPTIMIZERS

Values = dict[str, Any]  # keys and values as YAML gives them


class ConfigError(UserError):
    """A configuration that cannot be used; names the file, the key and the remedy."""


def _key(
    default: object = dataclasses.MISSING,
    *,
    low: float | None = None,
    above: float | None = None,
    high: float | None = None,
    choices: Sequence[object] = (),
) -> Any:  # as dataclasses.field has it: whatever the key's type is
    """A config key, with its range: low <= value <= high, value > above, or one of choices."""
    bounds = {"low": low, "above": above, "high": high, "choices": tuple(choices)}
    return field(default=default, metadata=bounds)


@dataclass(frozen=True, kw_only=True)
class Config:
    """All that a run depends on, except its seed and device. Keys without default are required."""

    # Training
    stage: int = _key(choices=(1, 2))
    learning_rate: float = _key(above=0)
    batch_size: int = _key(low=1)
    epochs: int = _key(low=1)
    weight_decay: float = _key(0.01, low=0)
    # "muon": Muon for the matrices of the blocks, AdamW for the rest
    optimizer: str = _key("adamw", choices=OPTIMIZERS)
    # Of the learning rate: exponential, × lr_decay per epoch, or cosine, to 0 at the last step
    schedule: str = _key("exponential", choices=("exponential", "cosine"))
    lr_decay: float = _key(0.99, above=0, high=1)
    warmup: float = _key(0.0, low=0, high=1)  # share of all steps in which the rate rises from 0
    grad_clip: float = _key(0.0, low=0)  # largest gradient norm; 0 for none, as released
    accumulate: int = _key(1, low=1)  # parts a batch is split into, to save memory
    checkpoint_blocks: bool = _key(False)  # recompute blocks in the backward, to save memory
    ema_decay: float = _key(0.0, low=0, high=1)  # moving average of the weights; 0 for none
    # Stage 1 keeps its DropPath on in stage 2, while training and while scoring: as released
    stage1_drop_path: bool = _key(False)
    # "matrices": no weight decay on norms, biases, positional embeddings, A_log, D
    weight_decay_on: str = _key("all", choices=DECAYED)
    flip: bool = _key(True)  # random mirroring in training, mirror averaging in evaluation

    # Model
    channel: int = _key(low=1, high=4096)
    st_depth: int = _key(low=1, high=100)
    n_frames: int = _key(low=1, high=10_000)
    d_state: int = _key(16, low=1, high=256)
    d_conv: int = _key(4, low=2, high=4)
    # The two directions of a scan are averaged; false: added
    if_divide_out: bool = _key(True)
    # Where dt starts: "released" draws Mamba's dt in the forward direction only, "mamba" in both
    dt_init: str = _key("released", choices=("released", "mamba"))
    # What the network sees: x and y on the screen, or relative to the root in the person's own unit
    # (lib/geometry.py), in which stage 2's poses are then, too. Each stage has its own form.
    input: str = _key("screen", choices=INPUTS)
    # Of stage 2: "residual" adds the 2D pose to x and y of what the network gives
    output: str = _key("absolute", choices=("absolute", "residual"))
    # Ablations of stage 2, each off by one key
    bone_branch: bool = _key(True)
    bone_slots: str = _key("released", choices=SLOTS)
    bins: int = _key(NUM_BINS, choices=BINS)  # of a bone's angle, of equal width
    # A bone's angle: the middle of stage 1's bin, or the mean of all bins by their probabilities
    bone_angle: str = _key("argmax", choices=("argmax", "expectation"))
    bone_confidence: bool = _key(False)  # a fourth feature: the probability of stage 1's bin
    graph: str = _key("both", choices=("both", "forward", "none"))
    fusion: str = _key("learned", choices=("learned", "mean"))

    # Data
    dataset: str = _key("h36m")  # data/benchmarks.py has the names, and what is left out below
    data_root: str = _key("data/motion3d")
    subset_list: tuple[str, ...] = _key(())
    dt_file: str = _key("")
    protocol: str = _key("")  # how the data set is scored, if it has several; both: by its two
    # The skeleton of data that bring their own, filled in from them: joints and their parents
    joints: tuple[str, ...] = _key(())
    joint_parents: tuple[str, ...] = _key(())
    use_proj_as_2d: bool = _key(False)  # ground-truth 2D instead of detections
    # Poses relative to the root of each frame; false: their x and y are those on the screen, their
    # depth relative to the root of the clip's first frame
    root_rel: bool = _key(True)

    # Of `dataset: mocap` (data/views.py). frame_rate: of the network's clips; 0: as the videos
    frame_rate: float = _key(0.0, low=0, high=50)
    views: str = _key("fresh", choices=("fresh", "fixed"))  # in each epoch, or the same in all
    views_per_epoch: int = _key(1, low=1)  # how many clips an epoch has of the same motion
    frame_rates: tuple[float, float] = _key((15.0, 60.0), low=1, high=500)  # of training clips
    # Shares of the training clips: the upper body moves as in another recording; limbs are turned
    # at random; joints are missing in some frames; the 2D is exact
    mixed_bodies: float = _key(0.25, low=0, high=1)
    limb_rotations: float = _key(0.3, low=0, high=1)
    missing_joints: float = _key(0.1, low=0, high=1)
    exact_keypoints: float = _key(0.1, low=0, high=1)

    # Choices that only some data sets' protocols have; data/benchmarks.py has values and defaults
    last_window: str = _key("")
    predicted_root: str = _key("")

    # Stage 2 trains its stage 1 along, with lambda_bins times the latter's cross entropy
    train_bone_aware: bool = _key(False)
    lambda_bins: float = _key(1.0, low=0)
    # Losses of stage 2 in units of the screen, or of the person in the clip (lib/geometry.py), so
    # that each clip counts alike, however small it is on the screen
    loss_unit: str = _key("screen", choices=("screen", "person"))
    # Loss weights of stage 2
    lambda_scale: float = _key(0.5, low=0)
    lambda_3d_velocity: float = _key(20.0, low=0)
    lambda_lv: float = _key(0.0, low=0)
    lambda_lg: float = _key(0.0, low=0)
    lambda_a: float = _key(0.0, low=0)
    lambda_av: float = _key(0.0, low=0)

    @property
    def loss_weights(self) -> dict[str, float]:
        return {
            "n_mpjpe": self.lambda_scale,
            "velocity": self.lambda_3d_velocity,
            "bone_variance": self.lambda_lv,
            "bone_length": self.lambda_lg,
            "bone_angle": self.lambda_a,
            "bone_angle_velocity": self.lambda_av,
        }

    @property
    def clips_dir(self) -> Path:
        """The folder of the clips that are evaluated."""
        return self.clips_dirs[0]

    @property
    def clips_dirs(self) -> list[Path]:
        """The folders of the sliced clips, data_root/H36M-243 for instance.

        Training takes the clips of all, evaluation those of the first.
        """
        return [find_path(self.data_root) / name for name in self.subset_list]

    def as_dict(self) -> Values:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}


# What changes the weights' shapes or meaning: a checkpoint must agree with its config on these.
MODEL_KEYS = (
    "stage", "channel", "st_depth", "n_frames", "d_state", "d_conv", "if_divide_out",
    "input", "output", "bone_branch", "bone_slots", "bins", "bone_angle", "bone_confidence",
    "graph", "fusion", "root_rel",
)  # fmt: skip

# What only a data set has whose training clips are rendered.
RENDERING_KEYS = (
    "frame_rate", "views", "views_per_epoch", "frame_rates", "mixed_bodies", "limb_rotations",
    "missing_joints", "exact_keypoints",
)  # fmt: skip
# What a protocol may leave to the config.
PROTOCOL_KEYS = ("last_window", "predicted_root")

_ANY = object()
# Keys of released configs that have no effect here. Where the released code has a choice, only the
# published value is implemented, and any other value is an error: it is never ignored.
DEAD_KEYS: dict[str, object] = {
    "model_name": _ANY,
    "train_2d": _ANY,
    "data_root_2d": _ANY,
    "bimamba_type": "v2",
    "expand": 1,
    "n_joints": 17,
    "num_joints": 17,
    "out_joints": 17,
    "dim_out": 3,
    "act_layer": "gelu",
    "add_velocity": False,
    "line_pose": False,
    "stride": _ANY,
    "out_all": 1,
    "test_batch_size": _ANY,
    "test_augmentation": True,
    "data_augmentation": True,
    "reverse_augmentation": False,
}

# Keys of before: their name now, and what became of their values.
RENAMED: dict[str, tuple[str, dict[object, object]]] = {
    "decay_all": ("weight_decay_on", {True: "all", False: "matrices"}),
}


def load_config(
    path: str | os.PathLike[str],
    overrides: Sequence[str] = (),
    stage: int | None = None,
    likely_stage: int | None = None,
) -> Config:
    """Read a YAML config, apply `key=value` overrides, check every key.

    stage: fills in the key `stage` that released files lack; one that differs is an error.
    likely_stage: fills it in where the file does not tell.
    Raises ConfigError.
    """
    found = find_path(path)
    if not found.is_file():
        there = ", ".join(
            str(p.relative_to(PROJECT_ROOT)) for p in sorted(PROJECT_ROOT.glob("configs/**/*.yaml"))
        )
        raise ConfigError(f"{path}: no such config file; there are {there}")
    try:
        values = yaml.safe_load(found.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path}: not a readable YAML file ({reason}); correct it") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds no 'key: value' lines; see configs/h36m/tiny.yaml")
    return make_config(
        {str(k): v for k, v in values.items()}, str(path), stage, overrides, likely_stage
    )


def make_config(
    values: Values,
    source: str,
    stage: int | None = None,
    overrides: Sequence[str] = (),
    likely_stage: int | None = None,
) -> Config:
    """Checked Config from raw values; `source` names the place in messages."""
    values = _renamed(values, source)
    for item in overrides:
        values |= _renamed(_parse_override(item), f"--set {item}")
    values = _drop_dead_keys(values, source)
    fields = {f.name: f for f in dataclasses.fields(Config)}
    for key in values:
        if key not in fields:
            hint = did_you_mean(key, fields) or "; remove it, or see configs/h36m/tiny.yaml"
            raise ConfigError(f"{source}: no key {key!r}{hint}")
    if likely_stage is not None and stage is None:
        values.setdefault("stage", likely_stage)
    if stage is not None and values.setdefault("stage", stage) != stage:
        raise ConfigError(
            f"{source}: this is a config of stage {values['stage']}; use it with"
            f" {'train_firststage.py' if values['stage'] == 1 else 'train_twostage.py'} or train.py"
        )
    for name, spec in fields.items():
        if name in values:
            values[name] = _checked(values[name], spec, f"{source}: key {name!r}")
        elif spec.default is dataclasses.MISSING:
            raise ConfigError(
                f"{source}: key {name!r} is missing; add it (configs/h36m has examples)"
            )
    config = Config(**values)
    return _checked_together(config, source)


def _parse_override(item: str) -> Values:
    key, equals, text = item.partition("=")
    if not equals or not key.strip():
        raise ConfigError(f"--set {item}: write it as key=value, for instance --set epochs=2")
    try:
        return {key.strip(): yaml.safe_load(text)}
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {item}: {text!r} is not a YAML value; quote it") from error


def _renamed(values: Values, source: str) -> Values:
    """A copy of the values, those of earlier names under today's."""
    values = dict(values)
    for old, (new, becomes) in RENAMED.items():
        if old not in values:
            continue
        value = values.pop(old)
        if not isinstance(value, bool):
            raise ConfigError(f"{source}: key {old!r}: {value!r} is not true or false")
        if values.setdefault(new, becomes[value]) != becomes[value]:
            raise ConfigError(f"{source}: keys {old!r} and {new!r} disagree; leave {old!r} out")
    return values


def _drop_dead_keys(values: Values, source: str) -> Values:
    # Released MPI-INF-3DHP files differ from the Human3.6M ones by these keys alone.
    if "dataset" not in values and "out_all" in values:
        values["dataset"] = "mpi_inf_3dhp"
    # Released files have no key `stage`. Of Human3.6M's, only those of stage 2 say how many outputs
    # the head has; MPI-INF-3DHP's do not differ.
    if "stage" not in values and "model_name" in values:
        if "dim_out" in values:
            values["stage"] = 2
        elif "out_all" not in values:
            values["stage"] = 1
    dead = [key for key in values if key in DEAD_KEYS]
    for key in dead:
        value, only = values.pop(key), DEAD_KEYS[key]
        if only is not _ANY and value != only:
            raise ConfigError(f"{source}: key {key!r}: only {only!r} is implemented, not {value!r}")
    if dead:
        warnings.warn(f"{source}: keys without effect here: {', '.join(dead)}", stacklevel=2)
    return values


def _checked(value: object, spec: dataclasses.Field[Any], where: str) -> object:
    """The value as its field's type, within the field's range; `where` begins messages."""
    value = _of_type(value, spec.type, where)
    choices = spec.metadata["choices"]
    if choices and value not in choices:
        hint = did_you_mean(str(value), map(str, choices))
        raise ConfigError(f"{where}: {value!r} is not one of {', '.join(map(repr, choices))}{hint}")
    for number in value if isinstance(value, tuple) else (value,):
        if isinstance(number, int | float):
            _check_range(number, spec, where)
    return value


def _check_range(value: float, spec: dataclasses.Field[Any], where: str) -> None:
    low, above, high = (spec.metadata[name] for name in ("low", "above", "high"))
    if low is not None and value < low:
        raise ConfigError(f"{where}: {value!r} is too small, {low} is the least")
    if above is not None and value <= above:
        raise ConfigError(f"{where}: {value!r} must be above {above}")
    if high is not None and value > high:
        raise ConfigError(f"{where}: {value!r} is too large, {high} is the most")


def _of_type(value: object, kind: object, where: str) -> object:
    if kind is float:
        return _number(value, where)
    if kind is int:
        fits, wanted = isinstance(value, int) and not isinstance(value, bool), "a whole number"
    elif kind is bool:
        fits, wanted = isinstance(value, bool), "true or false"
    elif kind is str:
        fits, wanted = isinstance(value, str), "text"
    elif kind == tuple[float, float]:
        return _number_range(value, where)
    else:  # tuple[str, ...]
        fits = isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        wanted = "a list of names, like [ H36M-243 ]"
    if not fits:
        raise ConfigError(f"{where}: {value!r} is not {wanted}")
    return tuple(value) if isinstance(value, list) else value


def _number_range(value: object, where: str) -> tuple[float, float]:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(f"{where}: {value!r} is not a least and a largest number, like [15, 60]")
    low, high = (_number(number, where) for number in value)
    if low > high:
        raise ConfigError(f"{where}: {value!r}: the first number is the larger one; swap them")
    return low, high


def _number(value: object, where: str) -> float:
    number = math.nan
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        with suppress(ValueError, OverflowError):
            number = float(value)  # of text too: YAML 1.1 reads 5e-4 (no dot) as text
    if not math.isfinite(number):
        raise ConfigError(f"{where}: {value!r} is not a number")
    return number


def _checked_together(config: Config, source: str) -> Config:
    if config.stage == 1 and config.channel % 2 ** (config.st_depth - 1):
        raise ConfigError(
            f"{source}: key 'channel': {config.channel} cannot be halved {config.st_depth - 1}"
            f" times (st_depth {config.st_depth}); use a multiple of {2 ** (config.st_depth - 1)}"
        )
    if config.train_bone_aware and (config.stage == 1 or not config.bone_branch):
        raise ConfigError(
            f"{source}: key 'train_bone_aware': only a stage 2 with a bone branch has a stage 1 to"
            " train along; leave it out, or set bone_branch: true in a config of stage 2"
        )
    return config
