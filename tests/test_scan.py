"""The scan's definition, and the backends in PyTorch held to it."""

import sys
import types

import pytest
import torch
import torch.nn.functional as F

from lib.errors import UserError
from model.ops import backend as seam
from model.ops import bidirectional_inner, reference, resolve_backend, set_default_backend, upstream
from model.ops.check import check
from model.ops.reference import causal_conv
from tests.scan_cases import (
    SCANS,
    assert_close,
    both_directions,
    inner_inputs,
    results,
    run_inner,
    run_scan,
    scan_inputs,
)
from tests.skips import NEEDS_GPU

F64 = torch.float64
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _restore_default_backend(monkeypatch):
    monkeypatch.setattr(seam, "_default", None)
    monkeypatch.delenv(seam.ENVIRONMENT_VARIABLE, raising=False)


# --- the definition -------------------------------------------------------------------------------
@pytest.mark.parametrize("backend", SCANS)
def test_with_no_decay_the_scan_is_a_running_sum(backend):
    """A = 0 and B = C = delta = 1, N = 2, D = 10: y[t] = 2 * sum(u[:t+1]) + 10 u[t], by hand."""
    u, one = torch.tensor([1.0, 2.0, 3.0]).view(1, 3, 1), torch.ones(1, 3, 2)
    A, D = torch.zeros(1, 2), torch.tensor([10.0])
    y = SCANS[backend](u, torch.ones_like(u), A, one, one, D)
    assert y.flatten().tolist() == [2 + 10, 6 + 20, 12 + 30]
    y = SCANS[backend](u, torch.ones_like(u), A, one, one, D, reverse=True)
    assert y.flatten().tolist() == [12 + 10, 10 + 20, 6 + 30]


def test_a_single_step_by_hand():
    """h = delta B u, y = C h + D u: 3 * (0.5 * 2 * 4) + 7 * 4."""
    one = torch.ones(1, 1, 1)
    for scan in SCANS.values():
        y = scan(4 * one, 0.5 * one, -torch.ones(1, 1), 2 * one, 3 * one, torch.tensor([7.0]))
        assert y.item() == 40


def test_the_definition_has_the_gradients_of_its_finite_differences():
    inputs = scan_inputs((2,), 3, 2, states=2)
    leaves = [t.requires_grad_() for t in inputs.values()]
    assert torch.autograd.gradcheck(lambda *t: reference.scan(*t, reverse=True), leaves)


def test_the_inner_definition_has_the_gradients_of_its_finite_differences():
    inputs = inner_inputs((1,), 3, 2, states=2, rank=1, taps=2)
    names, leaves = list(inputs), [t.requires_grad_() for t in inputs.values()]
    assert torch.autograd.gradcheck(
        lambda *t: run_inner(dict(zip(names, t, strict=True)), "sequential", graph=True), leaves
    )


@pytest.mark.parametrize("taps", [2, 3, 4])
def test_causal_conv_is_torchs_padded_and_cut(taps):
    x, weight, bias = torch.randn(2, 9, 5), torch.randn(5, 1, taps), torch.randn(5)

    def reference(x):
        y = F.conv1d(x.transpose(1, 2), weight, bias, padding=taps - 1, groups=5)
        return y[..., :9].transpose(1, 2)

    torch.testing.assert_close(causal_conv(x, weight, bias), reference(x))
    torch.testing.assert_close(
        causal_conv(x, weight, bias, reverse=True), reference(x.flip(1)).flip(1)
    )


@pytest.mark.parametrize("backend", ["sequential", "torch"])
def test_reverse_is_flip_scan_flip(backend):
    inputs = scan_inputs((2,), 7, 3)
    flipped = {k: t.flip(1) if t.dim() == 3 else t for k, t in inputs.items()}
    torch.testing.assert_close(
        run_scan(inputs, backend, reverse=True), run_scan(flipped, backend).flip(1)
    )


def test_the_backward_direction_is_the_forward_one_of_the_flipped_sequence():
    """Equal weights in both directions: flipping the sequence flips the output."""
    inputs = inner_inputs((2,), 11, 4)
    same = {k: inputs[k.replace("backward", "forward")] for k in inputs}
    y = run_inner(same, "sequential")
    flipped = run_inner(same | {"xz": same["xz"].flip(-2)}, "sequential")
    torch.testing.assert_close(flipped.flip(-2), y)


def test_no_step_sees_a_later_one():
    inputs = scan_inputs((1,), 6, 3)
    y = run_scan(inputs, "sequential")
    cut = {k: t[:, :4] if t.dim() == 3 else t for k, t in inputs.items()}
    torch.testing.assert_close(run_scan(cut, "sequential"), y[:, :4])


# --- the PyTorch backend --------------------------------------------------------------------------
@pytest.mark.parametrize("length", [1, 2, 3, 16, 17, 27, 33, 81])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_torch_backend_equals_the_definition(length, reverse):
    inputs = scan_inputs((2, 3), length, 5)
    want = results(run_scan, inputs, "sequential", F64, reverse=reverse)
    assert_close(results(run_scan, inputs, "torch", F64, reverse=reverse), want, 1e-12)
    assert_close(results(run_scan, inputs, "torch", torch.float32, reverse=reverse), want, 1e-5)


def test_rows_in_several_slices_give_the_same(monkeypatch):
    from model.ops import eager

    inputs = scan_inputs((7,), 40, 5)
    want = results(run_scan, inputs, "torch", F64)
    monkeypatch.setattr(eager, "_TEMPORARY_ELEMENTS", 1000)  # two rows a slice
    assert_close(results(run_scan, inputs, "torch", F64), want, 1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-8, 50.0, 1e4])
def test_zero_and_huge_steps(scale):
    """delta = 0 keeps the state; a huge one forgets it: exp underflows to 0, and nothing is NaN."""
    inputs = scan_inputs((2,), 40, 8)
    inputs["delta"] = inputs["delta"] * scale
    want = results(run_scan, inputs, "sequential", F64)
    assert all(t.isfinite().all() for t in want.values())
    assert_close(results(run_scan, inputs, "torch", F64), want, 1e-5)


def test_the_torch_backend_takes_an_empty_batch():
    inputs = scan_inputs((0,), 5, 3)
    got = results(run_scan, inputs, "torch", F64)
    assert got["output"].shape == (0, 5, 3)
    assert not got["A"].any()


def test_the_torch_backend_keeps_no_states_but_each_chunks_first():
    inputs = scan_inputs((1,), 400, 64)
    leaves = {k: t.requires_grad_() for k, t in inputs.items()}
    kept = 0

    def pack(t):
        nonlocal kept
        kept += t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        run_scan(leaves, "torch")
    every_state = 400 * 64 * 16
    assert kept < every_state / 2


# --- which backend --------------------------------------------------------------------------------
def test_backends_are_chosen_by_argument_then_flag_then_environment(monkeypatch):
    monkeypatch.setenv("MDTF_SCAN_BACKEND", "sequential")
    assert resolve_backend("auto", CPU, torch.float32)[0] == "sequential"
    set_default_backend("torch")
    assert resolve_backend("auto", CPU, torch.float32)[0] == "torch"
    assert resolve_backend("sequential", CPU, torch.float32)[0] == "sequential"


def test_auto_says_why_it_is_not_the_faster_one():
    name, reason = resolve_backend("auto", CPU, F64)
    assert name == "torch"
    assert "float32" in reason and "float64" in reason


def test_a_backend_that_cannot_run_is_an_error_not_a_fallback():
    with pytest.raises(UserError, match=r"'mamba_ssm' cannot run: .*CUDA"):
        resolve_backend("mamba_ssm", CPU, torch.float32)


def test_a_misspelt_backend_is_named(monkeypatch):
    with pytest.raises(UserError, match="did you mean 'torch'"):
        set_default_backend("troch")
    monkeypatch.setenv("MDTF_SCAN_BACKEND", "fast")
    with pytest.raises(UserError, match="MDTF_SCAN_BACKEND"):
        resolve_backend("auto", CPU, torch.float32)


# --- the upstream kernels, with stand-ins that compute what their documentation says --------------
@pytest.fixture
def fake_upstream(monkeypatch):
    """Modules with upstream's signatures: (batch, channels, length), one direction."""

    def selective_scan_fn(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False):
        assert u.is_contiguous() and delta.is_contiguous()
        assert B.dim() == 3 and B.shape[1:] == (A.shape[1], u.shape[2])
        if delta_bias is not None:
            delta = delta + delta_bias[:, None]
        if delta_softplus:
            delta = F.softplus(delta)
        state, outputs = u.new_zeros(*u.shape[:2], A.shape[1]), []
        for t in range(u.shape[2]):
            decay = torch.exp(delta[:, :, t, None] * A)
            state = decay * state + (delta * u)[:, :, t, None] * B[:, None, :, t]
            outputs.append((state * C[:, None, :, t]).sum(-1))
        return torch.stack(outputs, -1) + D[:, None] * u

    def causal_conv1d_fn(x, weight, bias=None, activation=None):
        assert activation == "silu" and weight.dim() == 2
        padded = F.pad(x, (weight.shape[1] - 1, 0))
        return F.silu(F.conv1d(padded, weight[:, None], bias, groups=x.shape[1]))

    modules = {
        "mamba_ssm": {},
        "mamba_ssm.ops": {},
        "mamba_ssm.ops.selective_scan_interface": {"selective_scan_fn": selective_scan_fn},
        "causal_conv1d": {"causal_conv1d_fn": causal_conv1d_fn},
        "selective_scan_cuda": {},
        "causal_conv1d_cuda": {},
    }
    for name, attributes in modules.items():
        module = types.ModuleType(name)
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)


def test_the_upstream_wrappers_equal_the_definition(fake_upstream):
    assert upstream.missing() is None
    assert check(upstream.Upstream()) is None
    inner = inner_inputs((2, 3), 9, 4)
    x, z = inner["xz"].chunk(2, -1)
    arguments = x, x.tanh(), z, *both_directions(inner)
    torch.testing.assert_close(upstream.Upstream().inner(*arguments), reference.inner(*arguments))


@pytest.mark.skipif(not torch.cuda.is_available(), reason=NEEDS_GPU)
@pytest.mark.parametrize("length", [17, 27])
def test_upstreams_kernels_give_what_upstreams_references_give(length):
    """Outputs and gradients of our adapter against selective_scan_ref and causal_conv1d_ref."""
    reason = upstream.missing()
    if reason:
        pytest.skip(reason)
    from causal_conv1d.causal_conv1d_interface import causal_conv1d_ref
    from mamba_ssm.ops.selective_scan_interface import selective_scan_ref

    def direction(x, w, reverse):
        x = x.flip(-2) if reverse else x
        u = causal_conv1d_ref(x.mT, w.conv_weight.squeeze(1), w.conv_bias, activation="silu")
        rank, states = w.dt_proj.shape[1], w.A_log.shape[1]
        dt, B, C = F.linear(u.mT, w.x_proj).split([rank, states, states], dim=-1)
        y = selective_scan_ref(
            u,
            F.linear(dt, w.dt_proj).mT,
            -torch.exp(w.A_log),
            B.mT,
            C.mT,
            w.D,
            delta_bias=w.dt_bias,
            delta_softplus=True,
        ).mT
        return y.flip(-2) if reverse else y

    def composed(leaves, _):
        x, z = leaves["xz"].chunk(2, -1)
        forward, backward = both_directions(leaves)
        return 0.5 * (direction(x, forward, False) + direction(x, backward, True)) * F.silu(z)

    inputs = {name: t.cuda() for name, t in inner_inputs((3,), length, 16).items()}
    want = results(composed, inputs, "", torch.float32)
    want = {name: t.double() for name, t in want.items()}
    assert_close(results(run_inner, inputs, "mamba_ssm", torch.float32), want, 1e-4)


def test_upstream_packages_without_their_compiled_parts_are_not_used(fake_upstream, monkeypatch):
    monkeypatch.setitem(sys.modules, "causal_conv1d_cuda", None)  # import raises
    assert "causal_conv1d_cuda" in upstream.missing()


def test_a_view_is_as_good_as_a_copy():
    """Temporal scans read (B, T, J, C) memory as (B, J, T, C)."""
    inputs = inner_inputs((2, 6), 5, 4)
    x, z = inputs["xz"].transpose(1, 2).chunk(2, -1)
    pair = list(both_directions(inputs))
    for backend in ("sequential", "torch"):
        torch.testing.assert_close(
            bidirectional_inner(x, x, z, *pair, backend=backend),
            bidirectional_inner(
                x.contiguous(), x.contiguous(), z.contiguous(), *pair, backend=backend
            ),
        )
