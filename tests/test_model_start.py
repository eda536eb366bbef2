"""Modules before training: the initial values, and what they make of the output."""

import math

import pytest
import torch

from lib.config import make_config
from lib.skeleton import H36M
from model.bone_aware import BoneAwareModule
from model.build import build_bone_aware, build_lifter
from model.lifter import Fusion, Lifter
from model.mamba import BiMamba
from tests.models import small


def initial_dt(scan):
    return torch.nn.functional.softplus(scan.dt_proj.bias)


def is_mamba_dt(dt):
    """Log-uniform between 0.001 and 0.1: about half below the geometric mean."""
    is_inside = 1e-3 * 0.999 <= dt.min() < 2e-3 and 5e-2 < dt.max() <= 1e-1 * 1.001
    return is_inside and 0.35 < (dt < 1e-2).float().mean() < 0.65


def is_linear_dt(dt, dt_rank):
    """softplus of what a Linear of dt_rank inputs starts with, uniform in ±dt_rank^-1/2."""
    bound = dt_rank**-0.5
    low, high = (math.log1p(math.exp(sign * bound)) for sign in (-1, 1))
    width = high - low
    is_inside = low <= dt.min() < low + width / 10 and high - width / 10 < dt.max() <= high
    return is_inside and 0.35 < (dt < math.log(2)).float().mean() < 0.65


def test_the_forward_direction_starts_with_mambas_dt_the_backward_one_with_linears():
    """As released. For 64 channels dt_rank is 4, and backward dt starts between 0.47 and 0.97."""
    for dim in (64, 256):
        mixer = BiMamba(dim)
        assert is_mamba_dt(initial_dt(mixer.forward_scan))
        assert is_linear_dt(initial_dt(mixer.backward_scan), dim // 16)
    low, high = initial_dt(BiMamba(64).backward_scan).aminmax()
    assert 0.474 <= low < 0.55
    assert 0.9 < high <= 0.975


@pytest.mark.parametrize("stage", [1, 2])
def test_dt_init_mamba_gives_both_directions_mambas_dt(stage):
    values = {"stage": stage, "learning_rate": 1e-3, "batch_size": 2, "epochs": 1}
    values |= {"channel": 128, "st_depth": 2, "n_frames": 9, "dt_init": "mamba"}
    config = make_config(values, "a.yaml")
    model = build_bone_aware(config) if stage == 1 else build_lifter(config)
    mixers = [module for module in model.modules() if isinstance(module, BiMamba)]
    assert len(mixers) == (4 if stage == 1 else 6)
    for mixer in mixers:
        for scan in (mixer.forward_scan, mixer.backward_scan):
            dt = initial_dt(scan)
            assert dt.min() >= 1e-3 * 0.999
            assert dt.max() <= 1e-1 * 1.001


def test_the_initial_scan_weights_of_both_directions():
    mixer = BiMamba(256, d_state=16)
    for scan in (mixer.forward_scan, mixer.backward_scan):
        weight = scan.dt_proj.weight
        assert 0.9 * 16**-0.5 < weight.abs().max() <= 16**-0.5
        assert torch.allclose(scan.A_log.exp(), torch.arange(1.0, 17).expand(256, 16))
        assert (scan.D == 1).all()


def test_initial_positions_graph_weights_and_fusion():
    lifter = Lifter(H36M, 9, 64, 2)
    assert (lifter.spatial_position == 0).all()
    assert (lifter.temporal_position == 0).all()
    graph = lifter.spatial[1].mixer.backward_graph.conv
    for linear in (graph.own, graph.neighbours):
        assert linear.weight.std().item() == pytest.approx(math.sqrt(2 / 64), rel=0.1)
    assert (lifter.fusion.score.weight == 0).all()
    assert (lifter.fusion.score.bias == 0.5).all()


def test_an_untrained_fusion_is_the_mean():
    joints, bones = torch.randn(2, 2, 3, 17, 8)
    assert torch.allclose(Fusion(8)(joints, bones), (joints + bones) / 2, atol=1e-6)


def test_drop_path_rates_grow_to_one_tenth():
    rates = [0, 0.1 / 3, 0.2 / 3, 0.1]
    for module in (BoneAwareModule(64, 4), Lifter(H36M, 9, 16, 4)):
        for blocks in (module.spatial, module.temporal):
            assert [block.drop_path.rate for block in blocks] == pytest.approx(rates)
    assert module.bone_branch.spatial.drop_path.rate == 0
    assert module.bone_branch.temporal.drop_path.rate == 0


def test_layer_norms_have_their_published_eps():
    model = small()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            is_inside_mixer_or_head = "mixer" in name or "head" in name
            assert module.eps == (1e-5 if is_inside_mixer_or_head else 1e-6), name
