"""The modules: sizes, the graph convolution by a loop, and which frames and joints a block sees."""

import math

import pytest
import torch

from lib.skeleton import H36M, MPI_INF_3DHP
from model.blocks import MambaBlock, over_frames, over_joints
from model.bone_aware import BoneAwareModule
from model.graph import GraphConv
from model.layers import MLP
from model.lifter import Fusion, Lifter
from model.mamba import GraphInput
from model.mdtf import MDTF
from tests.models import clips, small, unsettle


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts():
    assert count(BoneAwareModule(64, 4)) == 110_526
    assert count(Lifter(H36M, 243, 64, 8)) == 823_269
    assert count(Lifter(H36M, 243, 128, 12)) == 4_313_781
    assert count(Lifter(MPI_INF_3DHP, 81, 128, 12)) == 4_293_045
    tiny = MDTF(BoneAwareModule(64, 4), Lifter(H36M, 243, 64, 8), H36M)
    assert count(tiny) == 933_795


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (2, 9), (3, 27)])
def test_shapes(batch, frames):
    model = small(frames).eval()
    pose = clips(batch, frames)
    assert model.bone_aware(pose).shape == (batch, frames, 17, 6)
    assert model.bone_features(pose).shape == (batch, frames, 17, 3)
    assert model(pose).shape == (batch, frames, 17, 3)
    assert model.n_frames == frames


def test_stage_2_works_on_the_3dhp_skeleton():
    model = MDTF(BoneAwareModule(16, 2), Lifter(MPI_INF_3DHP, 9, 16, 2), MPI_INF_3DHP, "child")
    assert torch.isfinite(model.eval()(clips())).all()


def test_a_standing_still_clip_of_zeros_is_finite():
    model = small().eval()
    assert torch.isfinite(model(torch.zeros(1, 9, 17, 3))).all()


def test_output_0_of_the_fusion_weights_the_joints():
    fusion = Fusion(8)
    with torch.no_grad():
        fusion.score.bias.copy_(torch.tensor([50.0, -50.0]))
    joints, bones = torch.randn(2, 2, 3, 17, 8)
    assert torch.allclose(fusion(joints, bones), joints)


def test_the_gelu_is_the_exact_one():
    mlp = MLP(1, 1)
    with torch.no_grad():
        for value in mlp.state_dict().values():
            value.fill_(1)
        mlp.fc1.bias.zero_()
        mlp.fc2.bias.zero_()
        x = torch.tensor([[2.0]])
        assert mlp(x).item() == pytest.approx(2 * (1 + math.erf(2 / math.sqrt(2))) / 2, abs=1e-6)


# --- Graph convolution ------------------------------------------------------------------------


@pytest.mark.parametrize("skeleton", [H36M, MPI_INF_3DHP], ids=["h36m", "3dhp"])
@pytest.mark.parametrize("is_training", [False, True])
def test_graph_convolution_against_a_loop(skeleton, is_training):
    dim, rows = 4, 5
    graph = GraphConv(dim, torch.from_numpy(skeleton.adjacency())).double()
    unsettle(graph).train(is_training)
    x = torch.randn(rows, 17, dim, dtype=torch.float64)
    statistics = graph.norm.running_mean.clone(), graph.norm.running_var.clone()
    with torch.no_grad():
        found = graph(x)

    bones = [set(bone) for bone in skeleton.bones]
    degree = [sum(joint in bone for bone in bones) for joint in range(17)]
    mixed = torch.zeros_like(x)
    for row in range(rows):
        for i in range(17):
            mixed[row, i] = graph.own.weight @ x[row, i] + graph.own.bias
            for j in range(17):
                if {i, j} in bones:
                    message = graph.neighbours.weight @ x[row, j] + graph.neighbours.bias
                    mixed[row, i] += message / math.sqrt(degree[i] * degree[j])
    expected = torch.empty_like(x)
    for joint in range(17):
        values = mixed[:, joint]
        mean, variance = statistics[0][joint], statistics[1][joint]
        if is_training:
            # One step of a tenth towards the batch's mean and unbiased variance.
            moved = graph.norm.running_mean[joint], graph.norm.running_var[joint]
            assert torch.allclose(moved[0], 0.9 * mean + 0.1 * values.mean())
            assert torch.allclose(moved[1], 0.9 * variance + 0.1 * values.var())
            mean, variance = values.mean(), values.var(unbiased=False)
        normal = (values - mean) / torch.sqrt(variance + 1e-5)
        normal = normal * graph.norm.weight[joint] + graph.norm.bias[joint]
        expected[:, joint] = (x[:, joint] + normal).clamp(min=0)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_graph_on_reversed_joints_is_the_graph_reversed():
    """Joints, adjacency and BatchNorm in the opposite order: so is the output, nothing else."""
    adjacency = torch.from_numpy(H36M.adjacency()).float()
    there, back = (GraphInput(8, a) for a in (adjacency, adjacency.flip(0, 1)))
    unsettle(there).eval()
    weights = {k: v.flip(0) if v.shape == (17,) else v for k, v in there.state_dict().items()}
    back.load_state_dict(weights)
    x = torch.randn(3, 17, 8)
    with torch.no_grad():
        assert torch.allclose(back.eval()(x.flip(1)).flip(1), there(x), atol=1e-6)


# --- Which axis a block sees ------------------------------------------------------------------


def test_spatial_blocks_keep_frames_apart_and_temporal_ones_joints():
    block = MambaBlock(8, 16, 4).double().eval()
    x = torch.randn(2, 5, 17, 8, dtype=torch.float64)
    other = x.clone()
    other[1, 3, 7] += torch.randn(8)
    with torch.no_grad():
        moved = (over_joints(block, other) != over_joints(block, x)).any(-1)
        assert moved[1, 3].all()
        assert moved.sum() == 17
        moved = (over_frames(block, other) != over_frames(block, x)).any(-1)
        assert moved[1, :, 7].all()
        assert moved.sum() == 5


def test_every_output_frame_sees_every_input_frame():
    model = unsettle(small(frames=27)).eval()
    pose = clips(1, 27)
    other = pose.clone()
    other[0, 13, 5, :2] += 0.5
    with torch.no_grad():
        features = model.bone_features(pose)
        change = model.lifter(other, features) - model.lifter(pose, features)
    assert (change.abs().amax((0, 2, 3)) > 0).all()
