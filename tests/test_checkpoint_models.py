"""Whole models from checkpoints: which stage 1, which config, and what does not fit."""

import pytest
import torch

import lib.files
from lib.checkpoint import (
    BEST,
    DEFAULT_STAGE1,
    load_checkpoint,
    load_weights,
    save_checkpoint,
)
from lib.config import make_config
from lib.released import translate_released
from lib.skeleton import H36M
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
from tests.mistakes import told
from tests.samples import CONFIG, released_checkpoint, released_pair


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


def test_another_config_than_the_checkpoints_own_is_named(tmp_path):
    path = tmp_path / BEST
    lifter = Lifter(H36M, 9, 16, 2)
    own = make_config(CONFIG, "a.yaml")
    save_checkpoint(path, {"model": lifter.state_dict(), "config": own.as_dict()})
    checkpoint = load_checkpoint(path)
    check_agreement(own, checkpoint)
    changes = {"channel": 32, "n_frames": 27, "graph": "none", "bone_slots": "child"}
    changes |= {"input": "person", "output": "residual"}
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
