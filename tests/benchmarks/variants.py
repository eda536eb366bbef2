"""What the ablation compares: MDTF Tiny in its faster recipe, and changes of one thing each."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lib.config import Config, load_config, make_config
from lib.errors import UserError, did_you_mean
from lib.geometry import NUM_BINS

# The faster recipe, whatever the shipped configs have become; all other keys as published.
RECIPE: dict[str, object] = {
    "dataset": "mocap",
    "subset_list": [],
    "dt_file": "",
    "n_frames": 27,
    "input": "person",
    "output": "residual",
    "optimizer": "muon",
    "learning_rate": 2e-3,
    "schedule": "cosine",
    "warmup": 0.05,
    "batch_size": 8,
    "grad_clip": 1.0,
    "lambda_3d_velocity": 2.0,
    "views": "fresh",
    "epochs": 1,  # of as many steps as the CPU time allows
}
STAGE1_BATCH = 32
PUBLISHED, PLUS = "configs/h36m/tiny.yaml", "configs/h36m/tiny_plus.yaml"
# What stage 2 changes and stage 1 has to know.
SHARED_KEYS = ("bins",)


@dataclass(frozen=True)
class Variant:
    """keys: of the config, where it differs from the base; true_bins: the bins are read from the
    labels, in training and in evaluation, which no real method can do."""

    name: str
    keys: dict[str, object] = field(default_factory=dict)
    true_bins: bool = False

    @property
    def bins(self) -> int:
        bins = self.keys.get("bins", NUM_BINS)
        assert isinstance(bins, int)
        return bins


def _recipe_of(path: str) -> dict[str, object]:
    """What a config of Human3.6M has otherwise than the base, its data and clip length apart."""
    base = load_config(PUBLISHED).as_dict() | RECIPE
    kept = {"dataset", "protocol", "subset_list", "dt_file", "n_frames", "views", "epochs"}
    config = load_config(path).as_dict().items()
    return {key: value for key, value in config if key not in kept and value != base[key]}


BASE = Variant("base")
VARIANTS = {
    variant.name: variant
    for variant in (
        BASE,
        Variant("no bone branch", {"bone_branch": False}),
        Variant("bones at their child joint", {"bone_slots": "child"}),
        Variant("graph: forward", {"graph": "forward"}),
        Variant("graph: none", {"graph": "none"}),
        Variant("fusion: mean", {"fusion": "mean"}),
        Variant("4 bins", {"bins": 4}),
        Variant("9 bins", {"bins": 9}),
        Variant("true bins", true_bins=True),
        Variant("soft bins", {"bone_angle": "expectation"}),
        Variant("bin confidence", {"bone_confidence": True}),
        Variant("soft bins + confidence", {"bone_angle": "expectation", "bone_confidence": True}),
        Variant("stage 1 trained along", {"train_bone_aware": True}),
        Variant("backward dt as Mamba's", {"dt_init": "mamba"}),
        Variant("velocity weight 0", {"lambda_3d_velocity": 0.0}),
        Variant("velocity weight 20", {"lambda_3d_velocity": 20.0}),
        Variant("input: screen", {"input": "screen"}),
        Variant("output: absolute", {"output": "absolute"}),
        Variant("both as published", {"input": "screen", "output": "absolute"}),
        Variant("loss in the person's unit", {"loss_unit": "person"}),
        Variant("fixed views", {"views": "fixed"}),
        Variant("weight decay on matrices", {"weight_decay_on": "matrices"}),
        Variant("moving average 0.99", {"ema_decay": 0.99}),
        Variant("AdamW", {"optimizer": "adamw"}),
        Variant("h36m/tiny.yaml", _recipe_of(PUBLISHED)),
        Variant("h36m/tiny_plus.yaml", _recipe_of(PLUS)),
    )
}


def find_variants(names: Sequence[str]) -> list[Variant]:
    """The base first, then those asked for; all if none is. Raises UserError."""
    for name in names:
        if name not in VARIANTS:
            hint = did_you_mean(name, VARIANTS)
            raise UserError(f"--variants {name!r}: there are {', '.join(VARIANTS)}{hint}")
    wanted = names or list(VARIANTS)
    return [BASE, *(VARIANTS[name] for name in dict.fromkeys(wanted) if name != BASE.name)]


def stage2_config(variant: Variant, overrides: Sequence[str] = ()) -> Config:
    """overrides: key=value, of the base. Raises UserError."""
    published = load_config(PUBLISHED).as_dict()
    base = make_config({**published, **RECIPE}, "the ablation's recipe", 2, overrides)
    return make_config({**base.as_dict(), **variant.keys}, variant.name)


def stage1_config(variant: Variant, overrides: Sequence[str] = ()) -> Config:
    """The stage 1 of a variant: person-scaled in all of them."""
    published = load_config("configs/h36m/first.yaml").as_dict()
    own = {"output": "absolute", "batch_size": STAGE1_BATCH}
    base = make_config({**published, **RECIPE, **own}, "the ablation's recipe", 1, overrides)
    shared = {key: value for key, value in variant.keys.items() if key in SHARED_KEYS}
    return make_config({**base.as_dict(), **shared}, variant.name)
