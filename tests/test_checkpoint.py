"""Checkpoints: published files and our own of any format, read and written whole or not at all."""

import os
import zipfile

import numpy as np
import pytest
import torch

from lib.checkpoint import (
    BEST,
    find_checkpoint,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from lib.released import translate_released
from lib.skeleton import H36M
from lib.training.optim import make_optimizer
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from tests.mistakes import told
from tests.samples import CONFIG, released_checkpoint, released_pair


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


@pytest.mark.parametrize(
    "names", [("state_dict",), ("model_pos",), ("model", "state_dict"), ("net",)]
)
@pytest.mark.parametrize("prefix", ["", "model.", "module.model."])
def test_weights_in_the_wrappers_of_other_tools(tmp_path, names, prefix):
    weights = Lifter(H36M, 4, 16, 2).state_dict()
    content = {prefix + name: value for name, value in weights.items()}
    for name in reversed(names):
        content = {"epoch": 7, name: content}
    torch.save(content, tmp_path / BEST)
    checkpoint = load_checkpoint(tmp_path / BEST)
    assert list(checkpoint.model) == list(weights) and checkpoint.epoch == 7


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


@pytest.mark.parametrize("decay_all", [True, False])
def test_a_file_of_format_1_gives_the_same_weights_and_the_same_next_step(tmp_path, decay_all):
    """In it the backward graph's BatchNorm has its joints reversed: in the weights, their moving
    average and the optimizer's moments. Here each is found by the parameter itself."""
    lifter = Lifter(H36M, 4, 16, 2)
    for block in lifter.spatial:
        block.mixer.backward_graph.conv.norm.running_mean.uniform_()
    optimizer = make_optimizer(lifter, 0.1, 0.1, "all" if decay_all else "matrices")
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
