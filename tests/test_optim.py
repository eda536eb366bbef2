"""The moving average of the weights, by hand; Muon beside AdamW."""

import copy

import pytest
import torch

from lib.processes import Processes
from lib.skeleton import H36M
from lib.training.optim import MovingAverage, make_optimizer
from lib.training.step import Stepper
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from tests.mistakes import told
from tests.test_step import Numbers


def model_at(value: float) -> torch.nn.Module:
    """A trained weight, a frozen one and a BatchNorm with its statistics, all of one value."""
    model = torch.nn.Sequential(
        torch.nn.Linear(1, 1), torch.nn.BatchNorm1d(1), torch.nn.Linear(1, 1)
    )
    model[2].requires_grad_(False)
    return set_to(model, value)


def set_to(model: torch.nn.Module, value: float) -> torch.nn.Module:
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(value)
    return model


def test_the_average_moves_by_one_minus_its_decay_and_buffers_are_the_latest():
    """Decay 0.9, weights 1, then 2, then 4: 1 + 0.1 = 1.1, then 1.1 + 0.1 (4 - 1.1) = 1.39."""
    model = model_at(1)
    average = MovingAverage(model, 0.9)
    for value, expected in ((2, 1.1), (4, 1.39)):
        average.update(set_to(model, value))
        assert average.weights["0.weight"].item() == pytest.approx(expected)
        assert average.weights["1.bias"].item() == pytest.approx(expected)
        assert average.weights["1.running_var"].item() == value
        assert average.weights["1.num_batches_tracked"].item() == value
    assert not any(name.startswith("2.") for name in average.weights)
    assert model[0].weight.item() == 4  # the trained model keeps its own
    assert average.model[0].weight.item() == pytest.approx(1.39)
    assert average.model[2].weight.item() == 1


def test_a_restored_average_goes_on_where_it_was():
    model = model_at(1)
    one, two = MovingAverage(model, 0.9), MovingAverage(model, 0.9)
    one.update(set_to(model, 3))
    two.restore({name: value.clone() for name, value in one.weights.items()})
    for average in (one, two):
        average.update(set_to(model, 5))
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in one.weights)
    with pytest.raises(KeyError):
        two.restore({"0.weight": torch.zeros(1, 1)})


# --- Muon ---------------------------------------------------------------------------------------


def both_stages() -> MDTF:
    lifter = Lifter(H36M, n_frames=4, channel=32, depth=1)
    return MDTF(BoneAwareModule(16, 2), lifter, H36M, train_bone_aware=True)


def stepped(model: torch.nn.Module, *settings) -> dict[str, torch.Tensor]:
    """How one step with random gradients moves each parameter."""
    moved = copy.deepcopy(model)
    torch.manual_seed(1)
    for parameter in moved.parameters():
        parameter.grad = torch.randn_like(parameter)
    make_optimizer(moved, *settings).step()
    before = dict(model.named_parameters())
    return {name: (p - before[name]).detach() for name, p in moved.named_parameters()}


def test_muon_moves_the_matrices_of_the_blocks_and_adamw_the_rest():
    """A step of Muon is 10 · lr · sqrt(rows / columns, at least 1) times a matrix whose singular
    values are about 1 (its five iterations lift all but the smallest above 0.6); the rest moves as
    AdamW does."""
    model = both_stages()
    muon, adamw = (stepped(model, 0.01, 0.0, "all", kind) for kind in ("muon", "adamw"))
    by_muon = {name for name in muon if not torch.equal(muon[name], adamw[name])}
    inside = {f"mixer.{n}.weight" for n in ("in_proj", "out_proj", "forward_scan.x_proj")}
    inside |= {"mixer.backward_scan.dt_proj.weight", "mlp.fc1.weight", "mlp.fc2.weight"}
    for block in ("lifter.spatial.0", "lifter.bone_branch.temporal", "bone_aware.spatial.1"):
        assert {f"{block}.{name}" for name in inside} < by_muon
    assert "lifter.spatial.0.mixer.forward_graph.conv.own.weight" in by_muon
    ends = ("A_log", ".D", "bias", "embed.weight", "head.1.weight", "conv1d.weight", "_position")
    assert not [name for name in by_muon if name.endswith(ends) or "narrow" in name]
    for name in by_muon:
        rows, columns = muon[name].shape
        step = muon[name] / (0.01 * 10 * max(1, rows / columns) ** 0.5)
        values = torch.linalg.svdvals(step)
        assert values.median() > 0.6 and values.max() < 1.3, name


def test_muons_matrices_shrink_and_the_rest_as_weight_decay_on_says():
    """Learning rate 0.05, decay 0.1, gradients 0: decayed weights shrink to 0.995, Muon's, whose
    rate and decay are ten times those, to 0.5."""
    model = both_stages()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    make_optimizer(model, 0.05, 0.1, "matrices", "muon").step()
    after = dict(model.named_parameters())
    for name, kept in (("lifter.temporal.0.mlp.fc1.weight", 0.5), ("lifter.embed.weight", 0.995)):
        torch.testing.assert_close(after[name], kept * before[name])
    for name in ("lifter.spatial_norm.weight", "lifter.temporal.0.mixer.forward_scan.A_log"):
        assert torch.equal(after[name], before[name])


def test_an_overflow_of_fp16_skips_the_steps_of_both():
    model = both_stages()
    optimizer = make_optimizer(model, 0.1, 0.1, "all", "muon")
    before = copy.deepcopy(model.state_dict())
    spoilt = model.lifter.head[1].bias  # one of AdamW's; the gradients of the others are finite

    def losses(batch):
        total = sum(p.sum() for p in model.parameters())
        return {"total": total + (spoilt - spoilt.detach()).sqrt().sum()}

    cpu = torch.device("cpu")
    step = Stepper(losses, optimizer, device=cpu, processes=Processes(), precision="fp16")
    step(Numbers(torch.ones(2)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_pytorch_without_muon_is_told(monkeypatch):
    monkeypatch.delattr(torch.optim, "Muon")
    make_optimizer(both_stages(), 0.1, 0.1, "all", "adamw")
    assert "optimizer muon: PyTorch" in told(make_optimizer, both_stages(), 0.1, 0.1, "all", "muon")
