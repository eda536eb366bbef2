"""The modules: sizes, initial values, training behaviour and ablations."""

import copy
import math

import pytest
import torch

from lib.checkpoint import save_checkpoint
from lib.config import make_config
from lib.errors import UserError
from lib.geometry import bone_features
from lib.skeleton import H36M, MPI_INF_3DHP
from model.blocks import MambaBlock, over_frames, over_joints
from model.bone_aware import BoneAwareModule
from model.build import build_bone_aware, build_lifter, build_mdtf
from model.graph import GraphConv
from model.layers import MLP, DropPath
from model.lifter import Fusion, Lifter
from model.mamba import BiMamba, GraphInput, sum_directions
from model.mdtf import MDTF


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


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


# --- Sizes ------------------------------------------------------------------------------------


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


# --- Initial values ---------------------------------------------------------------------------


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


def test_layer_norms_have_their_published_eps():
    model = small()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm):
            is_inside_mixer_or_head = "mixer" in name or "head" in name
            assert module.eps == (1e-5 if is_inside_mixer_or_head else 1e-6), name


def test_an_untrained_fusion_is_the_mean():
    joints, bones = torch.randn(2, 2, 3, 17, 8)
    assert torch.allclose(Fusion(8)(joints, bones), (joints + bones) / 2, atol=1e-6)


def test_output_0_of_the_fusion_weights_the_joints():
    fusion = Fusion(8)
    with torch.no_grad():
        fusion.score.bias.copy_(torch.tensor([50.0, -50.0]))
    joints, bones = torch.randn(2, 2, 3, 17, 8)
    assert torch.allclose(fusion(joints, bones), joints)


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


# --- Training ---------------------------------------------------------------------------------


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


def test_drop_path_rates_grow_to_one_tenth():
    rates = [0, 0.1 / 3, 0.2 / 3, 0.1]
    for module in (BoneAwareModule(64, 4), Lifter(H36M, 9, 16, 4)):
        for blocks in (module.spatial, module.temporal):
            assert [block.drop_path.rate for block in blocks] == pytest.approx(rates)
    assert module.bone_branch.spatial.drop_path.rate == 0
    assert module.bone_branch.temporal.drop_path.rate == 0


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


def test_the_gelu_is_the_exact_one():
    mlp = MLP(1, 1)
    with torch.no_grad():
        for value in mlp.state_dict().values():
            value.fill_(1)
        mlp.fc1.bias.zero_()
        mlp.fc2.bias.zero_()
        x = torch.tensor([[2.0]])
        assert mlp(x).item() == pytest.approx(2 * (1 + math.erf(2 / math.sqrt(2))) / 2, abs=1e-6)


# --- Ablations --------------------------------------------------------------------------------


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


def test_stage_2_works_on_the_3dhp_skeleton():
    model = MDTF(BoneAwareModule(16, 2), Lifter(MPI_INF_3DHP, 9, 16, 2), MPI_INF_3DHP, "child")
    assert torch.isfinite(model.eval()(clips())).all()


def test_a_standing_still_clip_of_zeros_is_finite():
    model = small().eval()
    assert torch.isfinite(model(torch.zeros(1, 9, 17, 3))).all()
