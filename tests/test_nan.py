"""NaN and infinity reach the output, on every backend as in the definition, and are refused."""

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lib.config import load_config
from lib.errors import UserError
from lib.evaluation.predict import predict
from lib.processes import Processes
from lib.skeleton import H36M
from lib.training.stages import BoneStage, LiftingStage
from lib.training.step import BadNumber, Stepper
from model.blocks import FRAMES, JOINTS, MambaBlock
from model.bone_aware import BoneAwareModule
from model.lifter import Lifter
from model.mdtf import MDTF
from model.ops import backend as seam
from model.ops import check, set_default_backend
from model.ops.cpu import backend as cpu
from model.ops.matmul import fast_matmul
from tests.scan_cases import inner_inputs, results, run_inner

NAN, INF = math.nan, math.inf
VALUES = (NAN, INF, -INF)
ADJACENCY = torch.from_numpy(H36M.adjacency()).float()
needs_kernel = pytest.mark.skipif(cpu.unavailable() is not None, reason="no C kernel here")


@pytest.fixture(autouse=True)
def _automatic_backend(monkeypatch):
    monkeypatch.setattr(seam, "_default", "auto")


# --- backends -------------------------------------------------------------------------------------
@needs_kernel
@pytest.mark.parametrize("value", VALUES)
def test_each_kernel_carries_it_on_as_its_definition_does(value):
    """Output and gradients, with the value in one place of each weight and each input in turn."""
    for case in check.cases(cpu.Cpu(), length=21):
        assert list(check.swallowed(case, value)) == [], case.name


@needs_kernel
def test_a_kernel_that_swallows_nan_fails_its_check():
    case = next(check.cases(cpu.Cpu(), length=3))
    clean = case._replace(function=lambda *t: case.function(*t).nan_to_num())
    assert list(check.swallowed(clean, NAN)) == list(case.inputs)


@pytest.mark.parametrize("backend", ["torch", "c"])
@pytest.mark.parametrize("value", VALUES)
def test_an_inner_block_is_not_finite_where_the_definition_is_not(backend, value):
    if backend == "c" and cpu.unavailable() is not None:
        pytest.skip("no C kernel here")
    # Of infinity, states that pad a vector make NaN: then only whole vectors of them are alike.
    inputs = inner_inputs((2,), 5, 8, states=3 if math.isnan(value) else 16)
    for name, tensor in inputs.items():
        for place in (0, tensor.numel() // 2, -1):
            spoilt = inputs | {name: tensor.clone()}
            spoilt[name].view(-1)[place] = value
            found, expected = (
                results(run_inner, spoilt, b, torch.float32, graph=True)
                for b in (backend, "sequential")
            )
            for key, want in expected.items():
                assert torch.equal(found[key].isfinite(), want.isfinite()), (name, place, key)


@needs_kernel
def test_a_nan_of_any_bits_stays_one():
    """What the exponent's bits are added to may have some of a NaN's lower bits set."""
    inputs = {k: t.float() for k, t in inner_inputs((1,), 1, 64).items()}
    bits = torch.randint(1, 1 << 23, (64,), dtype=torch.int32) | 0x7F800000
    bits[::2] |= -(1 << 31)  # of either sign
    inputs["forward.dt_bias"] = bits.view(torch.float32)
    assert run_inner(inputs, "c").isnan().all()


def test_fast_products_carry_it_on():
    a, b = torch.randn(70, 64), torch.randn(96, 64)
    for value in VALUES:
        a[5, 7], b[8, 9] = value, value
        with fast_matmul():
            found = F.linear(a, b)
        assert torch.equal(found.isfinite(), F.linear(a.double(), b.double()).isfinite())


# --- blocks ---------------------------------------------------------------------------------------
def with_one_spoilt(module: torch.nn.Module, value: float):
    """The module's names of parameters and statistics; `value` is in one place of each in turn."""
    state = {k: t.clone() for k, t in module.state_dict().items()}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            module.state_dict()[name].view(-1)[tensor.numel() // 2] = value
            yield name
            module.load_state_dict(state)


@needs_kernel
@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(("axis", "adjacency"), [(FRAMES, None), (JOINTS, ADJACENCY)])
def test_a_block_is_not_finite_where_the_readable_one_is_not(axis, adjacency, training, value):
    x, norm = torch.randn(2, 3, 17, 16), torch.nn.LayerNorm(16)
    block = MambaBlock(16, 16, 4, 0.0, adjacency).train(training)
    for name in with_one_spoilt(block, value):
        found = []
        for backend in ("c", "sequential"):
            set_default_backend(backend)
            again = copy.deepcopy(block)
            leaf = x.clone().requires_grad_()
            y = again(leaf, axis, norm)
            gradients = torch.autograd.grad(y, [leaf, *again.parameters()], torch.ones_like(y))
            with torch.no_grad():
                inferred = copy.deepcopy(block).eval()(x, axis, norm)
            found.append([y, inferred, *gradients])
        for number, (kernel, readable) in enumerate(zip(*found, strict=True)):
            lost, expected = ~kernel.isfinite(), ~readable.isfinite()
            if math.isnan(value) or "graph.conv" not in name:
                assert torch.equal(lost, expected), name
                continue
            if number < 2:  # the outputs
                assert torch.equal(lost, expected), name
            # Of the derivatives the two may differ where infinity meets a factor 0: the kernel
            # multiplies by 0 what fixed statistics do not depend on.
            assert lost.any() or not expected.any(), name


# --- the whole model, and its guards --------------------------------------------------------------
class OneClip:
    """Of four frames: a batch, and a set of clips that gives it."""

    def __init__(self):
        self.clips, self.shares, self.total = [0], [(0, 1)], 1
        self.pose_2d, self.pose_3d = torch.rand(2, 1, 4, 17, 3).unbind()

    def __len__(self):
        return 1

    def __getitems__(self, clips):
        return self

    def part(self, start, end):
        return self

    def to(self, device):
        return self


def small_mdtf() -> MDTF:
    return MDTF(BoneAwareModule(16, 1), Lifter(H36M, 4, 16, 1), H36M)


def test_a_model_with_a_nan_is_neither_trained_nor_evaluated():
    """NaN in each parameter and statistic in turn, also of the frozen stage 1."""
    clip, model, cpu = OneClip(), small_mdtf(), torch.device("cpu")
    config = load_config("configs/quickstart/tiny.yaml")
    stage = LiftingStage(model, config, H36M, [], cpu)
    optimizer = torch.optim.SGD(model.lifter.parameters(), 0.1)
    step = Stepper(stage.losses, optimizer, device=cpu, processes=Processes())
    for name in with_one_spoilt(model, NAN):
        poses = predict(model.eval(), clip.pose_2d, H36M, flip=False)
        assert not np.isfinite(poses).all(), name
        if "running" not in name:  # training normalises with the batch's own
            model.train()
            with pytest.raises(BadNumber, match="nan"):
                step(clip)


def test_a_bone_aware_module_with_a_nan_is_not_scored():
    model = BoneAwareModule(16, 2)
    stage = BoneStage(model, H36M, OneClip(), 1, "cpu")
    for _ in with_one_spoilt(model, NAN):
        with pytest.raises(UserError, match="not finite"):
            stage.evaluate(model)


def test_only_the_frames_that_stage_1_cannot_judge_lose_their_bone_features():
    model = small_mdtf().eval()
    logits = torch.zeros(1, 4, 17, 6)
    logits[0, 2, 5, 1] = NAN
    model.bone_aware.forward = lambda _: logits
    features = model.bone_features(OneClip().pose_2d)
    assert features.isnan().flatten(2).all(-1).tolist() == [[False, False, True, False]]
    assert not features[:, [0, 1, 3]].isnan().any()
