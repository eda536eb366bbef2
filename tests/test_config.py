"""YAML in, checked Config out; every mistake is one sentence that names file, key and remedy."""

import dataclasses
import warnings

import pytest

from data.benchmarks import find_benchmark
from lib.config import Config, ConfigError, load_config, make_config
from lib.files import PROJECT_ROOT
from tests.mistakes import told

H36M_FILES = find_benchmark("h36m")
SHIPPED = sorted(PROJECT_ROOT.glob("configs/**/*.yaml"))

RELEASED_STAGE_2 = """\
# General
learning_rate: 0.0005
batch_size: 16
weight_decay: 0.01
lr_decay: 0.99
epochs: 120
train_2d: False

# Model
model_name: MotionMamba
st_depth: 8
channel: 64
d_state: 16
bimamba_type: v2
if_divide_out: True
n_joints: 17
dim_out: 3
act_layer: gelu
n_frames: 243
expand: 1

# Data
data_root: data/motion3d/
data_root_2d: data/motion2d/
subset_list: [ H36M-243 ]
dt_file: h36m_sh_conf_cam_source_final.pkl
num_joints: 17
root_rel: True
add_velocity: False
use_proj_as_2d: False
flip: True

# Loss
lambda_3d_velocity: 20.0
lambda_scale: 0.5
lambda_lv: 0.0
lambda_lg: 0.0
lambda_a: 0.0
lambda_av: 0.0
"""
RELEASED_STAGE_1 = (
    RELEASED_STAGE_2.replace("dim_out: 3\n", "")
    .replace("st_depth: 8", "st_depth: 4")
    .replace("root_rel: True", "root_rel: True\nline_pose: False")
)
REQUIRED = {
    "stage": 2,
    "learning_rate": 5e-4,
    "batch_size": 16,
    "epochs": 3,
    "channel": 64,
    "st_depth": 8,
    "n_frames": 27,
}


def write(tmp_path, text):
    path = tmp_path / "my.yaml"
    path.write_text(text)
    return path


def message(call, *arguments, **keywords):
    with pytest.raises(ConfigError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- Files ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=[str(p.relative_to(PROJECT_ROOT)) for p in SHIPPED])
def test_every_shipped_file_loads_without_a_warning(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = load_config(path)
    assert config.stage == (1 if path.name == "first.yaml" else 2)
    assert load_config(path, stage=config.stage) == config


def test_published_settings_of_human36m():
    first, tiny, large = (load_config(f"configs/h36m/{n}.yaml") for n in ("first", "tiny", "large"))
    assert (first.learning_rate, first.batch_size, first.epochs) == (2e-3, 128, 60)
    assert (tiny.learning_rate, tiny.batch_size, tiny.epochs) == (5e-4, 16, 120)
    assert (first.channel, first.st_depth) == (64, 4)
    assert (tiny.channel, tiny.st_depth) == (64, 8)
    assert (large.channel, large.st_depth) == (128, 12)
    same = {"channel", "st_depth"}
    for field in dataclasses.fields(Config):
        if field.name not in same:
            assert getattr(tiny, field.name) == getattr(large, field.name)
    for config in (first, tiny, large):
        assert (config.weight_decay, config.lr_decay, config.n_frames) == (0.01, 0.99, 243)
        assert config.flip
        assert config.bone_slots == "released"
    weights = {"n_mpjpe": 0.5, "velocity": 20.0}
    assert {k: v for k, v in tiny.loss_weights.items() if v} == weights


def test_a_key_that_is_left_out_has_the_published_value():
    """By hand, and so that the shipped Human3.6M configs would be the same without these keys."""
    config = make_config(REQUIRED, "a.yaml")
    assert (config.weight_decay, config.lr_decay) == (0.01, 0.99)
    assert (config.d_state, config.d_conv) == (16, 4)
    assert (config.flip, config.weight_decay_on, config.if_divide_out) == (True, "all", True)
    assert (config.bone_branch, config.bone_slots, config.graph) == (True, "released", "both")
    assert (config.fusion, config.dt_init, config.stage1_drop_path) == (
        "learned",
        "released",
        False,
    )
    assert (config.grad_clip, config.accumulate, config.ema_decay) == (0.0, 1, 0.0)
    assert (config.input, config.output, config.loss_unit) == ("screen", "absolute", "screen")
    assert (config.bone_angle, config.bone_confidence) == ("argmax", False)
    assert (config.schedule, config.warmup) == ("exponential", 0.0)
    assert (config.optimizer, config.bins) == ("adamw", 6)
    assert (config.train_bone_aware, config.lambda_bins) == (False, 1.0)
    used = {name: weight for name, weight in config.loss_weights.items() if weight}
    assert used == {"n_mpjpe": 0.5, "velocity": 20.0}
    for path in SHIPPED:
        if path.parent.name == "h36m" and path.stem != "tiny_plus":
            whole = load_config(path)
            required = {key: getattr(whole, key) for key in REQUIRED}
            complete = H36M_FILES.complete
            assert complete(make_config(required, "a.yaml")) == complete(whole)


def test_each_loss_weight_has_its_key():
    keys = {
        "lambda_scale": "n_mpjpe",
        "lambda_3d_velocity": "velocity",
        "lambda_lv": "bone_variance",
        "lambda_lg": "bone_length",
        "lambda_a": "bone_angle",
        "lambda_av": "bone_angle_velocity",
    }
    values = {key: float(number) for number, key in enumerate(keys, 1)}
    found = make_config({**REQUIRED, **values}, "a.yaml").loss_weights
    assert found == {keys[key]: value for key, value in values.items()}


@pytest.mark.parametrize(("text", "stage"), [(RELEASED_STAGE_1, 1), (RELEASED_STAGE_2, 2)])
def test_released_files_load_with_a_warning(tmp_path, text, stage):
    path = write(tmp_path, text)
    with pytest.warns(UserWarning, match="without effect here: .*bimamba_type"):
        config = load_config(path)
    assert config.stage == stage
    assert config.n_frames == 243
    assert config.d_state == 16
    assert config.clips_dir.name == "H36M-243"
    assert config.dt_file == "h36m_sh_conf_cam_source_final.pkl"
    with pytest.warns(UserWarning):
        assert load_config(path, stage=stage) == config
    with pytest.warns(UserWarning):
        assert "stage" in message(load_config, path, stage=3 - stage)


def test_several_data_sets_are_trained_on_and_the_first_is_evaluated(tmp_path):
    path = write(tmp_path, RELEASED_STAGE_2.replace("[ H36M-243 ]", "[ H36M-243, Mine-243 ]"))
    with pytest.warns(UserWarning):
        config = load_config(path)
    assert [folder.name for folder in config.clips_dirs] == ["H36M-243", "Mine-243"]
    assert config.clips_dir == config.clips_dirs[0]


@pytest.mark.parametrize(
    ("released", "changed"),
    [
        ("bimamba_type: v2", "bimamba_type: v1"),
        ("bimamba_type: v2", "bimamba_type: none"),
        ("expand: 1", "expand: 2"),
        ("dim_out: 3", "dim_out: 2"),
        ("add_velocity: False", "add_velocity: True"),
    ],
)
def test_a_released_choice_that_is_not_implemented_is_refused(tmp_path, released, changed):
    path = write(tmp_path, RELEASED_STAGE_2.replace(released, changed))
    told = message(load_config, path)
    key, value = changed.split(": ")
    assert f"key {key!r}" in told
    assert value.strip() in told
    assert "is implemented" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "holds no 'key: value' lines"),
        ("- a\n- b\n", "holds no 'key: value' lines"),
        ("a: [1, 2\nb: }", "not a readable YAML file"),
        ("!!python/object/apply:os.system ['true']", "not a readable YAML file"),
        ("stage: 2", "'learning_rate' is missing"),
    ],
)
def test_files_that_are_no_config(tmp_path, text, told):
    path = write(tmp_path, text)
    found = message(load_config, path)
    assert found.startswith(f"{path}: ")
    assert told in found


def test_a_binary_file_is_no_config(tmp_path):
    path = tmp_path / "my.yaml"
    path.write_bytes(bytes(range(256)))
    assert "not a readable YAML file" in message(load_config, path)


def test_a_missing_file_names_those_there():
    found = message(load_config, "configs/h36m/tyni.yaml")
    assert "configs/h36m/tyni.yaml: no such config" in found
    for path in ("configs/h36m/first.yaml", "configs/h36m/tiny.yaml", "configs/h36m/large.yaml"):
        assert path in found


# --- Keys and values --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "nearest"),
    [("chanel", "channel"), ("learningrate", "learning_rate"), ("st_deph", "st_depth")],
)
def test_an_unknown_key_names_the_nearest(key, nearest):
    found = message(make_config, {**REQUIRED, key: 1}, "a.yaml")
    assert found == f"a.yaml: no key {key!r}; did you mean {nearest!r}?"


def test_an_unknown_key_near_nothing():
    assert "a.yaml: no key 'zzz'" in message(make_config, {**REQUIRED, "zzz": 1}, "a.yaml")


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_a_missing_key_is_named(key):
    values = {k: v for k, v in REQUIRED.items() if k != key}
    assert f"key {key!r} is missing" in message(make_config, values, "a.yaml")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", -1e-3),
        ("learning_rate", "fast"),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("learning_rate", True),
        ("learning_rate", None),
        ("learning_rate", [1]),
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("batch_size", "16"),
        ("batch_size", True),
        ("epochs", 0),
        ("weight_decay", -0.1),
        ("lr_decay", 0),
        ("lr_decay", 1.01),
        ("channel", 0),
        ("channel", 10**9),
        ("st_depth", 0),
        ("n_frames", 0),
        ("n_frames", 10**9),
        ("d_state", 0),
        ("d_conv", 1),
        ("d_conv", 5),
        ("flip", "yes"),
        ("flip", 1),
        ("bone_slots", "childs"),
        ("graph", "backward"),
        ("fusion", None),
        ("stage", 3),
        ("data_root", 5),
        ("data_root", None),
        ("subset_list", "H36M-243"),
        ("subset_list", [243]),
        ("lambda_scale", -1),
        ("lambda_lv", "off"),
        ("views", "new"),
        ("frame_rates", 25),
        ("frame_rates", [25]),
        ("frame_rates", [60, 15]),
        ("frame_rates", [0, 15]),
        ("frame_rates", ["slow", 15]),
        ("frame_rate", 60),
        ("mixed_bodies", 1.5),
    ],
)
def test_a_bad_value_is_named_with_its_key(key, value):
    found = message(make_config, {**REQUIRED, key: value}, "a.yaml")
    assert found.startswith(f"a.yaml: key {key!r}: ")


def test_a_choice_names_the_nearest_one():
    found = message(make_config, {**REQUIRED, "bone_slots": "release"}, "a.yaml")
    assert "'released', 'child'" in found
    assert "did you mean 'released'?" in found


def test_stage_1_halves_its_channels_at_each_level():
    values = {**REQUIRED, "stage": 1, "st_depth": 4}
    assert make_config({**values, "channel": 24}, "a.yaml").channel == 24
    found = message(make_config, {**values, "channel": 12}, "a.yaml")
    assert "key 'channel': 12" in found
    assert "multiple of 8" in found


def test_numbers_without_a_dot_are_numbers_too(tmp_path):
    """YAML 1.1 reads 5e-4 as text."""
    lines = "\n".join(f"{k}: {v}" for k, v in REQUIRED.items() if k != "learning_rate")
    assert load_config(write(tmp_path, lines + "\nlearning_rate: 5e-4")).learning_rate == 5e-4


def test_the_subset_follows_the_clip_length():
    assert H36M_FILES.complete(make_config(REQUIRED, "a.yaml")).subset_list == ("H36M-27",)
    longer = H36M_FILES.complete(make_config({**REQUIRED, "n_frames": 81}, "a.yaml"))
    assert longer.clips_dir.name == "H36M-81"
    named = {**REQUIRED, "subset_list": ["Mine"], "dt_file": "mine.pkl", "protocol": "h36m"}
    assert H36M_FILES.complete(make_config(named, "a.yaml")) == make_config(named, "a.yaml")


def test_a_config_survives_its_own_dict():
    config = make_config({**REQUIRED, "graph": "none", "lambda_a": 0.1}, "a.yaml")
    assert make_config(config.as_dict(), "checkpoint") == config


def test_a_key_of_before_is_read_under_its_new_name():
    """Checkpoints keep the config that they were trained with."""
    for old, new in ((True, "all"), (False, "matrices")):
        values = {**REQUIRED, "decay_all": old}
        assert make_config(values, "a.yaml").weight_decay_on == new
        assert make_config({**values, "weight_decay_on": new}, "a.yaml").weight_decay_on == new
        for key, value in (("decay_all", not old), ("weight_decay_on", "matrices")):
            overrides = [f"{key}={value}".lower()]
            assert make_config(values, "a.yaml", overrides=overrides) == make_config(
                {**REQUIRED, key: value}, "a.yaml"
            )
    both = {**REQUIRED, "decay_all": False, "weight_decay_on": "all"}
    assert message(make_config, both, "a.yaml").startswith(
        "a.yaml: keys 'decay_all' and 'weight_decay_on' disagree"
    )
    found = message(make_config, {**REQUIRED, "decay_all": "no"}, "a.yaml")
    assert found == "a.yaml: key 'decay_all': 'no' is not true or false"


# --- --set ------------------------------------------------------------------------------------


def test_a_range_of_numbers():
    config = make_config({**REQUIRED, "frame_rates": [12, 2.5e1]}, "a.yaml")
    assert config.frame_rates == (12.0, 25.0)
    assert make_config(config.as_dict(), "checkpoint") == config


def test_only_rendered_clips_have_keys_of_rendering():
    for key, value in (("views", "fixed"), ("frame_rate", 25), ("frame_rates", [25, 25])):
        config = H36M_FILES.complete(make_config({**REQUIRED, key: value}, "a.yaml"))
        assert f"key {key!r}: " in told(H36M_FILES.open, config, "train")


def test_overrides():
    overrides = ["epochs=7", "flip=false", "subset_list=[A]", "learning_rate = 1e-4", "graph=none"]
    config = make_config(REQUIRED, "a.yaml", overrides=overrides)
    assert (config.epochs, config.flip, config.subset_list) == (7, False, ("A",))
    assert (config.learning_rate, config.graph) == (1e-4, "none")
    assert make_config(REQUIRED, "a.yaml", overrides=["epochs=7", "epochs=8"]).epochs == 8


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("epochs", "--set epochs: write it as key=value"),
        ("=3", "write it as key=value"),
        ("epoch=3", "no key 'epoch'; did you mean 'epochs'?"),
        ("epochs=many", "key 'epochs': 'many' is not a whole number"),
        ("epochs=", "key 'epochs': None is not a whole number"),
        ("subset_list=[a", "not a YAML value"),
        ("data_root=a: b: c", "not a YAML value"),
    ],
)
def test_bad_overrides(override, told):
    assert told in message(make_config, REQUIRED, "a.yaml", overrides=[override])
