"""For tests of the modules: a small model, random clips, weights off their initial values."""

import torch

from lib.skeleton import H36M
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF


def small(frames=9, channel=16, depth=2, slots="released", **ablation):
    bone_aware = BoneAwareModule(channel, 2)
    return MDTF(bone_aware, Lifter(H36M, frames, channel, depth, **ablation), H36M, slots)


def clips(batch=2, frames=9):
    return torch.randn(batch, frames, 17, 3)


def unsettle(module):
    """Move every parameter and statistic off its initial value."""
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value += 0.1 * torch.rand_like(value)
    return module
