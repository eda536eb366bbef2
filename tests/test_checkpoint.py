"""Checkpoints: published and our own, damaged, foreign and hostile; written whole or not at all."""

import os
import pickle
import random
import zipfile

import numpy as np
import pytest
import torch

import lib.files
from lib.checkpoint import (
    BEST,
    DEFAULT_STAGE1,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from lib.config import make_config
from lib.errors import UserError
from lib.released import translate_released
from lib.skeleton import H36M
from lib.training.optim import make_optimizer
from model.bone_aware import BoneAwareModule
from model.build import (
    bone_aware_from_weights,
    build_lifter,
    build_mdtf,
    check_agreement,
    load_bone_aware,
    load_mdtf,
)
from model.lifter import Lifter
from tests.samples import released_checkpoint, released_pair

CONFIG = {
    "stage": 2,
    "learning_rate": 1e-3,
    "batch_size": 2,
    "epochs": 1,
    "channel": 16,
    "st_depth": 2,
    "n_frames": 9,
}


def told(call, *arguments):
    with pytest.raises(UserError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert "weights_only" not in message  # torch's advice to load unsafely is not ours
    return message


# --- Published files --------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("stage", [1, 2])
def test_a_published_file_loads(tmp_path, stage, prefix):
    weights = released_pair()[stage - 1]
    path = released_checkpoint(tmp_path / BEST, weights, prefix=prefix, score=41.75)
    checkpoint = load_checkpoint(path)
    assert (checkpoint.stage, checkpoint.epoch, checkpoint.best) == (stage, 3, 41.75)
    assert checkpoint.config is checkpoint.training is checkpoint.bone_aware is None
    module = BoneAwareModule(16, 2) if stage == 1 else Lifter(H36M, 9, 16, 2)
    load_weights(module, checkpoint.model, path)
    # Each published tensor is one of ours, unchanged but for the backward graph's BatchNorm, whose
    # joints are turned round, and none is left over.
    ours = module.state_dict()
    assert len(ours) == len(weights)
    for (theirs, value), name in zip(weights.items(), translate_released(weights), strict=True):
        is_turned = "gcn_b.batch_norm." in theirs and value.ndim == 1
        assert torch.equal(ours[name], value.flip(0) if is_turned else value)


def test_numpy_scalars_of_every_kind_are_read(tmp_path):
    weights = released_pair()[0]
    for kind in (np.float64, np.float32, np.int64, np.int32):
        path = tmp_path / f"{kind.__name__}.pth.tr"
        torch.save({"model": weights, "max_accuracy": kind(7), "lr": kind(1)}, path)
        assert load_checkpoint(path).best == 7


def test_old_numpy_spellings_are_read(tmp_path):
    """numpy < 2 writes numpy.core.multiarray.scalar."""
    path = released_checkpoint(tmp_path / BEST, released_pair()[0], score=0.5)
    old = tmp_path / "old.pth.tr"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for item in source.infolist():
            content = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"numpy._core" in content
                content = content.replace(b"numpy._core", b"numpy.core")
            target.writestr(item, content)
    assert load_checkpoint(old).best == 0.5


def test_a_bare_state_dict_is_a_model(tmp_path):
    torch.save(released_pair()[1], tmp_path / "bare.pth")
    assert load_checkpoint(tmp_path / "bare.pth").stage == 2


def test_without_backward_graph_weights_the_reason_is_told(tmp_path):
    weights = {k: v for k, v in released_pair()[1].items() if "gcn_b" not in k}
    path = released_checkpoint(tmp_path / BEST, weights)
    lifter = Lifter(H36M, 9, 16, 2)
    found = told(load_weights, lifter, load_checkpoint(path).model, path)
    assert "gcn_b, norm_gcn_b" in found
    assert "cannot have been trained with the published model" in found
    forward = Lifter(H36M, 9, 16, 2, graph="forward")
    load_weights(forward, load_checkpoint(path).model, path)


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_our_own_names_pass_with_any_wrapper(tmp_path, prefix):
    module = BoneAwareModule(16, 2)
    state = {prefix + k: v for k, v in module.state_dict().items()}
    save_checkpoint(tmp_path / BEST, {"model": state})
    checkpoint = load_checkpoint(tmp_path / BEST)
    assert checkpoint.stage == 1
    assert list(checkpoint.model) == list(module.state_dict())


# --- Whole models -----------------------------------------------------------------------------


def test_stage_1_needs_no_config(tmp_path):
    weights = released_pair(channel=32, depth=3)[0]
    path = released_checkpoint(tmp_path / BEST, weights, prefix="module.")
    module = load_bone_aware(path)
    assert len(module.narrow) == 3
    assert module.embed.out_features == 32


def test_stage_2_where_stage_1_is_wanted(tmp_path):
    path = released_checkpoint(tmp_path / BEST, released_pair()[1])
    assert "stage 2" in told(load_bone_aware, path)
    assert "not the weights of a Bone Aware Module" in told(
        bone_aware_from_weights, load_checkpoint(path).model, path
    )


def test_the_stage_1_that_the_user_names_wins(tmp_path, monkeypatch):
    """One rule for training and demo: the named file, else the checkpoint's own, else the default.

    The three are told apart by one weight, which is 1 in the named file, 2 in the own and 3 in the
    default one.
    """
    monkeypatch.chdir(tmp_path)
    config = make_config(CONFIG, "a.yaml")
    first = {}
    for number, path in ((1, "named.pth.tr"), (2, ""), (3, DEFAULT_STAGE1)):
        module = BoneAwareModule(16, 2)
        torch.nn.init.constant_(module.embed.bias, number)
        first[number] = module.state_dict()
        if path:
            save_checkpoint(tmp_path / path, {"model": first[number]})
    lifter = {"model": build_lifter(config).state_dict(), "config": config.as_dict()}
    save_checkpoint("carries.pth.tr", {**lifter, "bone_aware": first[2]})
    save_checkpoint("alone.pth.tr", lifter)

    def used(path: str | None, named: str | None) -> float:
        checkpoint = None if path is None else load_checkpoint(path)
        whole = build_mdtf(config, checkpoint, named)  # what training builds
        if path is not None:  # what the demo loads
            assert torch.equal(
                load_mdtf(path, None, named).bone_aware.embed.bias, whole.bone_aware.embed.bias
            )
        return whole.bone_aware.embed.bias[0].item()

    paths = ("carries.pth.tr", "alone.pth.tr", None)
    assert [used(path, "named.pth.tr") for path in paths] == [1, 1, 1]
    assert [used(path, None) for path in paths] == [2, 3, 3]


def test_a_checkpoint_from_before_a_key_was_there_has_its_default(tmp_path):
    config = make_config(CONFIG, "a.yaml")
    old = {key: value for key, value in config.as_dict().items() if key != "if_divide_out"}
    save_checkpoint(tmp_path / BEST, {"model": Lifter(H36M, 9, 16, 2).state_dict(), "config": old})
    checkpoint = load_checkpoint(tmp_path / BEST)
    check_agreement(config, checkpoint)
    summed = make_config({**CONFIG, "if_divide_out": False}, "a.yaml")
    assert "trained with if_divide_out True" in told(check_agreement, summed, checkpoint)


def test_a_whole_model_from_two_published_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lib.files, "PROJECT_ROOT", tmp_path)  # where a stage 1 of ours may be
    first, second = released_pair()
    path_1 = released_checkpoint(tmp_path / "1" / BEST, first)
    path_2 = released_checkpoint(tmp_path / "2" / BEST, second, prefix="module.")
    config = make_config(CONFIG, "a.yaml")
    model = load_mdtf(path_2, config, path_1)
    assert not model.training
    assert torch.equal(model.lifter.head[1].weight, second["head.1.weight"])
    assert torch.equal(model.bone_aware.narrow[1].weight, first["mlp.1.weight"])
    assert "--config" in told(load_mdtf, path_2)
    assert "--stage1-checkpoint" in told(load_mdtf, path_2, config)
    # Ours carries both and its config.
    ours = {"model": model.lifter.state_dict(), "bone_aware": model.bone_aware.state_dict()}
    save_checkpoint(tmp_path / "3" / BEST, {**ours, "config": config.as_dict(), "epoch": 2})
    again = load_mdtf(tmp_path / "3" / BEST)
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_poses_of_a_video_are_without_the_noise_of_the_papers_condition(tmp_path):
    config = make_config({**CONFIG, "stage1_drop_path": True}, "a.yaml")
    parts = {"bone_aware": BoneAwareModule(16, 2).state_dict(), "config": config.as_dict()}
    save_checkpoint(tmp_path / BEST, {"model": Lifter(H36M, 9, 16, 2).state_dict(), **parts})
    checkpoint = load_checkpoint(tmp_path / BEST)
    assert build_mdtf(config, checkpoint, None).eval().bone_aware.training
    assert not load_mdtf(tmp_path / BEST).bone_aware.training


@pytest.mark.parametrize("decay_all", [True, False])
def test_a_file_of_format_1_gives_the_same_weights_and_the_same_next_step(tmp_path, decay_all):
    """In it the backward graph's BatchNorm has its joints reversed: in the weights, their moving
    average and the optimizer's moments. Here each is found by the parameter itself."""
    lifter = Lifter(H36M, 4, 16, 2)
    for block in lifter.spatial:
        block.mixer.backward_graph.conv.norm.running_mean.uniform_()
    optimizer = make_optimizer(lifter, 0.1, 0.1, decay_all)
    for parameter in lifter.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    training = {"optimizer": optimizer.state_dict(), "ema": lifter.state_dict(), "seed": 3}
    config = {**CONFIG, "decay_all": decay_all}
    new = {"format": 2, "stage": 2, "model": lifter.state_dict(), "config": config}
    save_checkpoint(tmp_path / "new", new | {"training": training})
    norms = [block.mixer.backward_graph.conv.norm for block in lifter.spatial]
    with torch.no_grad():
        for norm in norms:
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                tensor.copy_(tensor.flip(0))
            for parameter in (norm.weight, norm.bias):
                for moment in ("exp_avg", "exp_avg_sq"):
                    tensor = optimizer.state[parameter][moment]
                    tensor.copy_(tensor.flip(0))
    del new["format"]
    save_checkpoint(tmp_path / "old", new | {"training": training})
    old, new = load_checkpoint(tmp_path / "old"), load_checkpoint(tmp_path / "new")
    name = "spatial.0.mixer.backward_graph.conv.norm.weight"
    assert not torch.equal(lifter.state_dict()[name], new.model[name])
    torch.testing.assert_close(old.model, new.model, rtol=0, atol=0)
    torch.testing.assert_close(old.training["ema"], dict(new.training["ema"]), rtol=0, atol=0)
    states = [c.training["optimizer"]["state"] for c in (old, new)]
    torch.testing.assert_close(*states, rtol=0, atol=0)
    assert old.training["seed"] == 3


def test_a_file_of_a_later_format_is_refused(tmp_path):
    save_checkpoint(tmp_path / BEST, {"format": 3, "model": Lifter(H36M, 4, 16, 2).state_dict()})
    assert "newer code" in told(load_checkpoint, tmp_path / BEST)


def test_another_config_than_the_checkpoints_own_is_named(tmp_path):
    path = tmp_path / BEST
    lifter = Lifter(H36M, 9, 16, 2)
    own = make_config(CONFIG, "a.yaml")
    save_checkpoint(path, {"model": lifter.state_dict(), "config": own.as_dict()})
    checkpoint = load_checkpoint(path)
    check_agreement(own, checkpoint)
    changes = {"channel": 32, "n_frames": 27, "graph": "none", "bone_slots": "child"}
    for key, value in changes.items():
        config = make_config({**CONFIG, key: value}, "a.yaml")
        found = told(check_agreement, config, checkpoint)
        assert f"trained with {key} {getattr(own, key)!r}, the config says {value!r}" in found
    first = make_config({**CONFIG, "stage": 1}, "a.yaml")
    assert "stage 2" in told(check_agreement, first, checkpoint)


@pytest.mark.parametrize(
    ("sizes", "part"),
    [((27, 16, 2), "temporal_position"), ((9, 32, 2), "(1, 17, 32)"), ((9, 16, 3), "no tensor")],
)
def test_mismatching_shapes_are_named(sizes, part):
    state = translate_released(released_pair()[1])
    lifter = Lifter(H36M, *sizes)
    before = {k: v.clone() for k, v in lifter.state_dict().items()}
    found = told(load_weights, lifter, state, "my.pth.tr")
    assert found.startswith("my.pth.tr: does not fit the config: ")
    assert part in found
    assert all(torch.equal(v, before[k]) for k, v in lifter.state_dict().items())


def test_a_tensor_too_many_is_named():
    state = translate_released(released_pair()[1])
    state["extra.weight"] = torch.zeros(1)
    assert "unknown tensor extra.weight" in told(load_weights, Lifter(H36M, 9, 16, 2), state, "a")


# --- Not there, damaged, foreign --------------------------------------------------------------


def test_a_missing_file_says_what_is_there(tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("latest_epoch.pth.tr", "notes.txt"):
        (tmp_path / "run" / name).touch()
    found = told(find_checkpoint, tmp_path / "run", BEST)
    assert found == f"{tmp_path}/run/{BEST}: no such checkpoint; there: latest_epoch.pth.tr"
    assert "no such folder" in told(find_checkpoint, tmp_path / "ran", BEST)
    assert "latest_epoch.pth.tr" in told(load_checkpoint, tmp_path / "run" / "x.pth.tr")


def test_a_folder_or_a_file_may_be_given(tmp_path):
    path = released_checkpoint(tmp_path / BEST, released_pair()[0])
    assert find_checkpoint(tmp_path, BEST) == find_checkpoint(path, "other.pth.tr") == path


@pytest.mark.parametrize("is_zip", [True, False])
def test_truncated_and_damaged_files_are_one_clear_error(tmp_path, is_zip):
    torch.save(
        {"model": {"head.1.weight": torch.zeros(3, 4)}, "best": np.float64(1)},
        tmp_path / "whole",
        _use_new_zipfile_serialization=is_zip,
    )
    whole = (tmp_path / "whole").read_bytes()
    load_checkpoint(tmp_path / "whole")
    path = tmp_path / BEST
    for length in (*range(60), *range(60, len(whole), 29)):
        path.write_bytes(whole[:length])
        assert told(load_checkpoint, path).startswith(f"{path}: ")
    random.seed(0)
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[random.randrange(len(damaged))] = random.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except UserError as error:
            assert str(error).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {}},
        {"model": 3},
        {"model": {"layer1.0.conv1.weight": torch.zeros(2)}},
        {"model": {"a": 3}},
        {"state_dict": {"conv.weight": torch.zeros(2)}},
        {"conv.weight": torch.zeros(2)},
        [torch.zeros(2)],
        torch.zeros(2),
        "text",
        {"model": {"head.1.weight": torch.zeros(2)}, "config": 3},
        {"model": {"head.1.weight": torch.zeros(2)}, "config": {3: 4}},
        {"model": {"head.1.weight": torch.zeros(2)}, "training": [1]},
        {"model": {"head.1.weight": torch.zeros(2)}, "bone_aware": {"a": 1}},
        {"model": {1: torch.zeros(2)}},
    ],
    ids=str,
)
def test_foreign_files_are_told(tmp_path, content):
    torch.save(content, tmp_path / BEST)
    assert told(load_checkpoint, tmp_path / BEST).startswith(f"{tmp_path / BEST}: ")


@pytest.mark.parametrize("content", [b"", b"\0" * 1000, b"PK\3\4" + b"x" * 500, b"<html>", b"}{"])
def test_files_that_are_no_checkpoint(tmp_path, content):
    (tmp_path / BEST).write_bytes(content)
    assert told(load_checkpoint, tmp_path / BEST).startswith(f"{tmp_path / BEST}: ")


# --- Hostile ----------------------------------------------------------------------------------


class Attack:
    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("where", ["model", "optimizer", "top", "plain pickle", "legacy"])
def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path, where):
    witness, path = tmp_path / "witness", tmp_path / BEST
    for attack in (
        Attack(os.mkdir, str(witness)),
        Attack(os.system, f"mkdir {witness}"),
        Attack(eval, f"open({str(witness)!r}, 'w')"),
        Attack(np.save, str(witness), [1]),
        Attack(torch.save, {}, str(witness)),
    ):
        content = {"model": {"head.1.weight": torch.zeros(2)}, "optimizer": {}}
        if where == "top":
            content = attack
        elif where == "optimizer":
            content["optimizer"] = attack
        else:
            content["model"]["x"] = attack
        if where == "plain pickle":
            path.write_bytes(pickle.dumps({"model": attack}))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=where != "legacy")
        assert "not loaded" in told(load_checkpoint, path)
        assert not witness.exists()


def test_a_whole_pickled_module_is_refused(tmp_path):
    torch.save({"model": torch.nn.Linear(2, 2)}, tmp_path / BEST)
    assert "not loaded" in told(load_checkpoint, tmp_path / BEST)


# --- Writing ----------------------------------------------------------------------------------


def test_what_is_saved_comes_back(tmp_path):
    module = Lifter(H36M, 9, 16, 2)
    contents = {
        "model": module.state_dict(),
        "config": CONFIG,
        "epoch": 5,
        "min_mpjpe": 41.5,
        "training": {"seed": 3, "history": [{"epoch": 1}]},
    }
    save_checkpoint(tmp_path / "new" / "run" / BEST, contents)
    checkpoint = load_checkpoint(tmp_path / "new" / "run" / BEST)
    assert (checkpoint.stage, checkpoint.epoch, checkpoint.best) == (2, 5, 41.5)
    assert checkpoint.config == CONFIG
    assert checkpoint.training == contents["training"]
    for name, value in module.state_dict().items():
        assert torch.equal(checkpoint.model[name], value)


def test_a_failure_while_saving_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / BEST
    save_checkpoint(path, {"model": {"head.1.weight": torch.ones(2)}})
    before = path.read_bytes()

    class Unpicklable:
        def __reduce__(self):
            raise RuntimeError("half way")

    big = {"a": torch.zeros(10**5), "b": Unpicklable()}
    with pytest.raises(RuntimeError, match="half way"):
        save_checkpoint(path, big)
    assert path.read_bytes() == before

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", no_space)
    assert "No space left on device" in told(save_checkpoint, path, {"model": {}})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [BEST]
