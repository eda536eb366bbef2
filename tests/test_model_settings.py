"""The config's settings of the model: each changes what it names and nothing else."""

import copy

import pytest
import torch

from lib.checkpoint import save_checkpoint
from lib.config import make_config
from lib.errors import UserError
from lib.geometry import bone_features
from lib.skeleton import H36M
from model.blocks import MambaBlock
from model.bone_aware import BoneAwareModule
from model.build import build_bone_aware, build_mdtf
from model.lifter import Lifter
from model.mamba import BiMamba, sum_directions
from model.mdtf import MDTF
from tests.models import clips, small, unsettle


@pytest.mark.parametrize("adjacency", [None, H36M.adjacency()], ids=["plain", "graph"])
@pytest.mark.parametrize("is_training", [False, True])
def test_summed_directions_are_twice_their_mean(adjacency, is_training):
    """if_divide_out: false. With halved out_proj the block is the averaging one, its gradient of
    out_proj twice as large: in eval mode by the kernel of inference, in training by its own."""
    adjacency = None if adjacency is None else torch.from_numpy(adjacency).float()
    mean = unsettle(MambaBlock(16, 16, 4, adjacency=adjacency)).train(is_training)
    total = copy.deepcopy(mean)
    sum_directions(total)
    with torch.no_grad():
        total.mixer.out_proj.weight /= 2
    x = torch.randn(4, 17, 16)
    with torch.set_grad_enabled(is_training):
        outputs = mean(x), total(x)
        mixed = mean.mixer(x), total.mixer(x)  # as it is called where a part has a hook
    torch.testing.assert_close(*outputs, rtol=0, atol=0)
    torch.testing.assert_close(*mixed, rtol=0, atol=0)
    if is_training:
        for output in outputs:
            output.square().sum().backward()
        gradients = [block.mixer.out_proj.weight.grad for block in (mean, total)]
        torch.testing.assert_close(2 * gradients[0], gradients[1], rtol=1e-5, atol=1e-5)


def test_if_divide_out_reaches_every_mixer_of_both_stages(tmp_path):
    values = {"learning_rate": 1e-3, "batch_size": 2, "epochs": 1, "channel": 16, "st_depth": 2}
    values |= {"n_frames": 9, "if_divide_out": False}
    first, second = (make_config({**values, "stage": stage}, "a.yaml") for stage in (1, 2))
    weights = build_bone_aware(first).state_dict()
    path = tmp_path / "first.pth.tr"
    save_checkpoint(path, {"model": weights, "config": first.as_dict()})
    mixers = [m for m in build_mdtf(second, None, path).modules() if isinstance(m, BiMamba)]
    assert len(mixers) == 4 + 6
    assert all(mixer.sums for mixer in mixers)
    divided = make_config({**values, "stage": 2, "if_divide_out": True}, "a.yaml")
    with pytest.raises(UserError, match="if_divide_out False, stage 2 has True"):
        build_mdtf(divided, None, path)


def test_without_the_bone_branch_there_is_no_stage_1():
    lifter = Lifter(H36M, 9, 16, 2, bone_branch=False)
    model = MDTF(None, lifter, H36M).eval()
    assert not any("bone" in name or "fusion" in name for name in model.state_dict())
    assert model(clips()).shape == (2, 9, 17, 3)
    with pytest.raises(ValueError, match="Bone Aware Module"):
        MDTF(BoneAwareModule(16, 2), lifter, H36M)
    with pytest.raises(ValueError, match="Bone Aware Module"):
        MDTF(None, Lifter(H36M, 9, 16, 2), H36M)


@pytest.mark.parametrize(
    ("graph", "has_forward", "has_backward"),
    [("both", True, True), ("forward", True, False), ("none", False, False)],
)
def test_graph_ablations(graph, has_forward, has_backward):
    mixers = [block.mixer for block in Lifter(H36M, 9, 16, 3, graph=graph).spatial]
    assert all((m.forward_graph is not None) == has_forward for m in mixers)
    assert all((m.backward_graph is not None) == has_backward for m in mixers)


def test_forward_graph_only_leaves_the_backward_input_unmixed():
    adjacency = torch.from_numpy(H36M.adjacency()).float()
    torch.manual_seed(0)
    both = BiMamba(16, adjacency=adjacency)
    forward = BiMamba(16, adjacency=adjacency, backward_graph=False)
    weights = {k: v for k, v in both.state_dict().items() if "backward_graph" not in k}
    forward.load_state_dict(weights)
    x = torch.randn(2, 17, 16)
    assert not torch.allclose(both.eval()(x), forward.eval()(x), atol=1e-4)


def test_mean_fusion_has_no_weights_and_equals_an_untrained_fusion():
    torch.manual_seed(0)
    learned = Lifter(H36M, 9, 16, 2).eval()
    mean = Lifter(H36M, 9, 16, 2, fusion="mean").eval()
    weights = {k: v for k, v in learned.state_dict().items() if "fusion" not in k}
    mean.load_state_dict(weights)
    pose, features = clips(), clips()
    with torch.no_grad():
        assert torch.allclose(mean(pose, features), learned(pose, features), atol=1e-5)
        learned.fusion.score.bias[0] += 1
        assert not torch.allclose(mean(pose, features), learned(pose, features), atol=1e-3)


def test_bone_slots_change_where_bones_are_put():
    torch.manual_seed(0)
    released = unsettle(small()).eval()
    child = small(slots="child").eval()
    child.load_state_dict(released.state_dict())
    pose = clips()
    with torch.no_grad():
        bins = released.bone_aware(pose).argmax(-1)
        for model, slots in ((released, "released"), (child, "child")):
            expected = bone_features(pose, bins, H36M, slots)
            assert torch.equal(model.bone_features(pose), expected)
        assert torch.equal(
            child.bone_features(pose)[..., 1:, :], released.bone_features(pose)[..., :-1, :]
        )
        assert not torch.allclose(released(pose), child(pose), atol=1e-4)
