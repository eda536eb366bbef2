"""The seam between modules and backends: another backend, and modules that are not as they were."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from lib.errors import UserError
from lib.skeleton import H36M
from model import ops
from model.blocks import FRAMES, JOINTS, MambaBlock, weights_say_all
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from model.ops import backend as seam
from model.ops import reference
from model.ops.check import check
from model.ops.weights import sizes_of, wrong_size

ADJACENCY = torch.from_numpy(H36M.adjacency()).float()


@pytest.fixture(autouse=True)
def _default_settings(monkeypatch):
    monkeypatch.setattr(seam, "_default", None)
    monkeypatch.setattr(seam, "_registry", dict(seam._registry))


# --- another backend ------------------------------------------------------------------------------
class Mock:
    """Counts its calls; that is all a backend has to be."""

    name, device = "mock", None

    def __init__(self, has_block):
        self.has_block, self.inners, self.blocks = has_block, 0, 0
        if has_block is None:
            self.block = None

    def obstacle(self, device, dtype):
        return None if dtype == torch.float32 else "float32 only"

    def inner(self, *inputs):
        self.inners += 1
        return reference.inner(*inputs)

    def block(self, x, weights, settings, masks, *, batch_statistics):
        if not self.has_block:
            return None
        self.blocks += 1
        return reference.residual_block(
            x, weights, settings, masks, batch_statistics=batch_statistics
        )


@pytest.mark.parametrize("has_block", [None, False, True])
@pytest.mark.parametrize("training", [False, True])
def test_a_registered_backend_runs_the_whole_model(has_block, training):
    """has_block: None for one whose block is None, False for one whose block gives None."""
    model = MDTF(BoneAwareModule(16, 2), Lifter(H36M, 4, 16, 2), H36M).train(training)
    clip, mock = torch.rand(1, 4, 17, 3), Mock(has_block)
    torch.manual_seed(0)
    expected = model(clip)
    ops.register(mock)
    ops.set_default_backend("mock")
    torch.manual_seed(0)
    torch.testing.assert_close(model(clip), expected, rtol=1e-4, atol=1e-5)
    count = 4 + 6  # blocks of both stages
    assert (mock.inners, mock.blocks) == ((0, count) if has_block else (count, 0))


def test_a_registered_backend_is_known_checked_and_never_taken_silently():
    mock = Mock(True)
    assert "mock" not in ops.backend_names()
    ops.register(mock)
    assert "mock" in ops.backend_names()
    assert check(mock) is None
    assert ops.resolve_backend("auto", torch.device("cpu"), torch.float32)[0] != "mock"
    with pytest.raises(UserError, match="'mock' cannot run: float32 only"):
        ops.resolve_backend("mock", torch.device("cpu"), torch.float64)


@pytest.mark.parametrize("part", ["inner", "block"])
def test_a_backend_that_is_wrong_fails_its_check(part):
    mock = Mock(True)
    right = getattr(mock, part)

    def wrong(*inputs, **options):
        found = right(*inputs, **options)
        return found * 1.001 if part == "inner" else (found[0] * 1.001, found[1])

    setattr(mock, part, wrong)
    assert "off by" in check(mock)


# --- modules that are not as they were ------------------------------------------------------------
def block(adjacency=ADJACENCY):
    torch.manual_seed(0)
    made = MambaBlock(16, 16, 4, 0.0, adjacency)
    with torch.no_grad():
        for tensor in made.state_dict().values():
            if tensor.is_floating_point():
                tensor += 0.1 * torch.rand_like(tensor)
    return made


C = 16
X = torch.rand(2, 3, 17, C)
CALLED = (
    "norm1",
    "mixer",
    "mixer.in_proj",
    "mixer.out_proj",
    "mixer.forward_graph",
    "mixer.forward_graph.norm",
    "mixer.forward_graph.conv",
    "mixer.backward_graph.conv.own",
    "mixer.backward_graph.conv.neighbours",
    "mixer.backward_graph.conv.norm",
    "norm2",
    "mlp",
    "mlp.fc1",
    "mlp.fc2",
    "drop_path",
)
READ = (
    "mixer.forward_scan",
    "mixer.backward_scan.conv1d",
    "mixer.forward_scan.x_proj",
    "mixer.forward_scan.dt_proj",
)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("axis", [JOINTS, FRAMES])
def test_calling_the_parts_gives_what_the_weights_give(axis, training):
    this, norm = block(ADJACENCY if axis == JOINTS else None).train(training), nn.LayerNorm(16)
    assert weights_say_all(this, norm)
    plain = this(X, axis, norm)
    statistics = {k: v.clone() for k, v in this.named_buffers()}
    again = block(ADJACENCY if axis == JOINTS else None).train(training)
    again.norm1.register_forward_hook(lambda *_: None)
    assert not weights_say_all(again, norm)
    torch.testing.assert_close(again(X, axis, norm), plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(dict(again.named_buffers()), statistics, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", CALLED)
@pytest.mark.parametrize("training", [False, True])
def test_a_hook_runs_and_what_it_changes_counts(name, training):
    this = block().train(training)
    with torch.set_grad_enabled(training):
        before, calls = this(X), []
        handle = this.get_submodule(name).register_forward_hook(
            lambda _, __, y: calls.append(1) or 2 * y
        )
        hooked = this(X)
        handle.remove()
        assert calls and not torch.allclose(hooked, before)
        before_hook = this.get_submodule(name).register_forward_pre_hook(lambda *_: calls.clear())
        this(X)
        assert not calls
        before_hook.remove()


@pytest.mark.parametrize("name", CALLED)
def test_a_replaced_module_is_called(name):
    """By one of a class of its own, with equal weights but another output."""
    this = block().eval()
    before, old = this(X), this.get_submodule(name)
    twice = type("Twice", (type(old),), {"forward": lambda self, *a: 2 * old(*a)})
    new = twice.__new__(twice)
    new.__dict__ = old.__dict__
    parent, _, child = name.rpartition(".")
    setattr(this.get_submodule(parent), child, new)
    assert not torch.allclose(this(X), before)
    old.forward = lambda *a: 3 * type(old).forward(old, *a)
    setattr(this.get_submodule(parent), child, old)
    assert not torch.allclose(this(X), before)  # nor a forward of its own


def test_identity_in_place_of_a_part_is_called():
    this = block().eval()
    for name in ("drop_path", "norm1", "mlp"):
        setattr(this, name, nn.Identity())
    expected = X + this.mixer(X)
    torch.testing.assert_close(this(X), expected + this.norm2(expected))


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("mixer.in_proj", nn.Linear(C, 2 * C)),
        ("mixer.out_proj", nn.Linear(C, C)),
        ("mlp.fc1", nn.Linear(C, 2 * C, bias=False)),
        ("mlp.fc2", nn.Linear(2 * C, C, bias=False)),
        ("norm1", nn.LayerNorm(C, eps=1e-6, bias=False)),
        ("norm2", nn.LayerNorm(C, eps=1e-6, elementwise_affine=False)),
        ("mixer.forward_graph.norm", nn.LayerNorm(C, bias=False)),
        ("mixer.backward_graph.conv.own", nn.Linear(C, C, bias=False)),
    ],
)
def test_another_bias_than_the_weights_can_say_is_respected(name, new):
    """The kernels would leave out a bias that they do not know, or read one that is not there."""
    this = block().eval()
    parent, _, child = name.rpartition(".")
    setattr(this.get_submodule(parent), child, new)
    expected = X + this.mixer(this.norm1(X))
    torch.testing.assert_close(this(X), expected + this.mlp(this.norm2(expected)))


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("x_proj", nn.Linear(C, 1 + 2 * 16)),
        ("dt_proj", nn.Linear(1, C, bias=False)),
        ("conv1d", nn.Conv1d(C, C, 4, groups=C, bias=False)),
        ("conv1d", nn.Conv1d(C, C, 4, groups=C, dilation=2)),
    ],
)
def test_a_scan_direction_refuses_what_its_weights_cannot_say(name, new):
    this = block()
    setattr(this.mixer.backward_scan, name, new)
    with pytest.raises(ValueError, match=f"{name} has a hook, or is no"):
        this(X)


@pytest.mark.parametrize("name", ["fc1_bias", "backward.conv_bias", "last_bias"])
def test_a_missing_weight_is_named(name):
    this, norm = block(), nn.LayerNorm(C)
    weights, (part, _, field) = this.weights(norm), name.partition(".")
    inner = getattr(weights, part)
    assert wrong_size(weights, sizes_of(weights), X) is None
    missing = weights._replace(**{part: inner._replace(**{field: None}) if field else None})
    assert wrong_size(missing, sizes_of(weights), X) == f"{name} is missing"


@pytest.mark.parametrize("name", READ)
def test_a_module_that_is_only_read_refuses_hooks_and_others_in_its_place(name):
    this = block()
    handle = this.get_submodule(name).register_forward_hook(lambda *_: None)
    with pytest.raises(ValueError, match="never called"):
        this(X)
    handle.remove()
    this(X)
    module = this.get_submodule(name)
    module.__class__ = type("Other", (type(module),), {})
    with pytest.raises(ValueError, match="never called"):
        this(X)


@pytest.mark.parametrize(
    "name",
    [name for name in (*CALLED, *READ) if hasattr(block().get_submodule(name), "weight")],
)
def test_a_parametrized_weight_counts(name):
    this = block().eval()
    module = this.get_submodule(name)
    before = this(X)
    double = nn.Module()
    double.forward = lambda weight: 2 * weight
    parametrize.register_parametrization(module, "weight", double)
    parametrized = this(X)
    assert not torch.allclose(parametrized, before)
    assert weights_say_all(this, None)
    parametrized.sum().backward()
    assert module.parametrizations.weight.original.grad.any()


def test_a_hook_on_all_modules_runs():
    this, called = block().eval(), set()
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: called.add(type(m)))
    try:
        this(X)
    finally:
        handle.remove()
    assert {MambaBlock, nn.LayerNorm, nn.Linear} <= called


def test_norms_of_unequal_eps_are_each_taken_as_they_are():
    this = block().eval()
    this.norm2.eps = 10.0
    exact = this.double()(X.double())
    torch.testing.assert_close(this.float()(X).double(), exact, rtol=1e-5, atol=1e-5)
