"""Modules in training: what is frozen, what has a gradient, what DropPath drops."""

import pytest
import torch

from lib.geometry import bone_features
from lib.skeleton import H36M
from model.blocks import MambaBlock, over_frames, over_joints
from model.bone_aware import BoneAwareModule
from model.layers import DropPath
from model.lifter import Lifter
from model.mdtf import MDTF
from tests.models import clips, small, unsettle


def test_the_bone_aware_module_stays_frozen_and_in_eval_mode():
    model = small()
    model.train()
    assert model.training
    assert model.lifter.training
    assert not any(module.training for module in model.bone_aware.modules())
    model.eval().train(True)
    assert not model.bone_aware.training
    assert not any(p.requires_grad for p in model.bone_aware.parameters())
    before = {k: v.clone() for k, v in model.bone_aware.state_dict().items()}
    pose = clips()
    bins = model.bone_features(pose)
    model(pose).sum().backward()
    assert torch.equal(model.bone_features(pose), bins)  # no DropPath: the same bins each time
    assert all(torch.equal(v, before[k]) for k, v in model.bone_aware.state_dict().items())


def test_with_bone_drop_path_the_frozen_stage_1_drops_paths_in_training_and_evaluation():
    """Its bins are those of a Bone Aware Module in training mode, for the same random numbers."""
    model = MDTF(BoneAwareModule(16, 2), Lifter(H36M, 9, 16, 2), H36M, bone_drop_path=True)
    unsettle(model)
    for block in (*model.bone_aware.spatial, *model.bone_aware.temporal):
        block.drop_path.rate = 0.5
    pose = clips(8)
    for mode in (True, False):
        model.train(mode)
        assert (model.training, model.lifter.training) == (mode, mode)
        assert not any(p.requires_grad for p in model.bone_aware.parameters())
        torch.manual_seed(1)
        found = model.bone_features(pose)
        torch.manual_seed(1)
        bins = model.bone_aware.train()(pose).argmax(-1)
        assert torch.equal(found, bone_features(pose, bins, H36M))
        assert not torch.equal(found, model.bone_features(pose))


@pytest.mark.parametrize(
    "ablation", [{}, {"bone_branch": False}, {"graph": "forward"}, {"graph": "none"}]
)
def test_gradients_reach_every_parameter_of_the_lifter(ablation):
    torch.manual_seed(3)
    lifter = unsettle(Lifter(H36M, 9, 16, 2, **ablation))
    lifter(clips(), clips()).square().sum().backward()
    for name, parameter in lifter.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


def test_gradients_reach_every_parameter_of_stage_1():
    bone_aware = unsettle(BoneAwareModule(16, 2))
    bone_aware(clips()).square().sum().backward()
    for name, parameter in bone_aware.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_drop_path_drops_whole_rows_and_keeps_the_expectation():
    drop = DropPath(0.25).train()
    x = torch.ones(20_000, 3, 2)
    y = drop(x)
    assert ((y == y[:, :1, :1]).all(-1).all(-1)).all()
    assert sorted(y.unique().tolist()) == pytest.approx([0, 4 / 3])
    assert (y[:, 0, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert torch.equal(drop.eval()(x), x)


def test_drop_path_rows_are_frames_or_joints():
    """With rate ~1 and nothing kept, a block is the identity on just the dropped sequences."""
    torch.manual_seed(0)
    block = MambaBlock(8, 16, 4, drop_path=0.5).train()
    x = torch.randn(4, 6, 17, 8)
    same = (over_joints(block, x) == x).all(-1)
    assert torch.equal(same.any(-1), same.all(-1))  # a frame's joints are dropped together
    assert same.any() and not same.all()
    same = (over_frames(block, x) == x).all(-1)
    assert torch.equal(same.any(1), same.all(1))  # a joint's frames are
