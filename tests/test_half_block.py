"""The kernels of a block's two halves: gradients against float64, and how they behave."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lib.skeleton import H36M
from model.blocks import FRAMES, JOINTS, MambaBlock
from model.fused import fused_training
from model.ops import dispatch, native
from model.ops.half_block import block_tail, norm_graph, norm_linears

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason="no C kernel here")
ADJACENCY = torch.from_numpy(H36M.adjacency()).float()
CHANNELS, HIDDEN = 32, 64


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setattr(dispatch, "_default", "auto")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def tail_weights(channels=CHANNELS, hidden=HIDDEN):
    c, h = channels, hidden
    shapes = [(c, c), (c,), (c,), (h, c), (h,), (c, h), (c,)]
    return [draw(*s, seed=i) / s[-1] ** 0.5 for i, s in enumerate(shapes)]


@pytest.mark.parametrize("dim", [16, 64, 128])
@pytest.mark.parametrize(
    ("axis", "adjacency", "backward_graph"),
    [
        (JOINTS, None, False),
        (FRAMES, None, False),
        (JOINTS, ADJACENCY, True),
        (JOINTS, ADJACENCY, False),
    ],
)
def test_a_training_block_equals_the_block_in_float64(dim, axis, adjacency, backward_graph):
    """The output, every gradient and the running statistics, DropPath on."""
    torch.manual_seed(0)
    block = MambaBlock(dim, 16, 4, 0.3, adjacency, backward_graph).train()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter += 0.1 * torch.rand_like(parameter)
    exact = copy.deepcopy(block).double()
    x = draw(2, 11, 17, dim).requires_grad_()
    cotangent = draw(2, 11, 17, dim, seed=1)
    results = []
    for module, leaf in ((block, x), (exact, x.detach().double().requires_grad_())):
        torch.manual_seed(3)  # the same rows dropped
        y = module(leaf, axis)
        gradients = torch.autograd.grad(y, [leaf, *module.parameters()], cotangent.to(y.dtype))
        results.append([y, *gradients, *(b.double() for b in module.buffers())])
    torch.manual_seed(3)
    assert torch.equal(fused_training(block, x, axis), results[0][0])  # the kernels did run
    for found, expected in zip(*results, strict=True):
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize("rows", [0, 1, 47, 48, 49, 200])
def test_any_number_of_rows(rows):
    x, inner, mask = (
        draw(rows, 1, CHANNELS),
        draw(rows, 1, CHANNELS, seed=1),
        torch.ones(rows, 1, 1),
    )
    leaves = [t.requires_grad_() for t in (x, inner, *tail_weights())]
    out = block_tail(leaves[0], leaves[1], mask, None, tuple(leaves[2:]), 1e-6)
    assert out.shape == x.shape
    gradients = torch.autograd.grad(out.sum(), leaves)  # a cotangent without memory of its own
    doubles = [t.detach().double().requires_grad_() for t in leaves]
    x, inner, out_proj, *mlp = doubles
    y = x + F.linear(inner, out_proj)
    hidden = F.gelu(F.linear(F.layer_norm(y, (CHANNELS,), *mlp[:2], 1e-6), *mlp[2:4]))
    expected = y + F.linear(hidden, *mlp[4:])
    if not rows:
        assert all(
            g.shape == t.shape and not g.any() for g, t in zip(gradients, leaves, strict=True)
        )
        return
    assert (out - expected).abs().max() < 1e-6 * expected.abs().max()
    for found, exact in zip(gradients, torch.autograd.grad(expected.sum(), doubles), strict=True):
        assert (found - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.parametrize("x", [0.0, 0.5, -0.5, 3.0, -3.0, 6.0, -6.0, 40.0, -40.0])
def test_the_slope_of_gelu_far_out_and_near_zero(x):
    """A tail that is GELU alone: LN makes (x, -x, ...) of unit size, fc1 scales it to x."""
    c = 32
    signs = torch.tensor([1.0, -1.0]).repeat(c // 2)
    row = signs[None].clone()
    eye, zeros = torch.eye(c), torch.zeros(c)
    weights = (0 * eye, torch.ones(c), zeros, x * eye, zeros.clone().requires_grad_(), eye, zeros)
    out = block_tail(row, 0 * row, None, None, weights, 0.0)
    (slope,) = torch.autograd.grad(out, weights[4], torch.ones_like(out))
    at = (x * signs).double().requires_grad_()
    expected = F.gelu(at)
    torch.testing.assert_close((out - row)[0].double(), expected.detach(), rtol=1e-6, atol=1e-6)
    (exact,) = torch.autograd.grad(expected.sum(), at)
    torch.testing.assert_close(slope.double(), exact, rtol=1e-6, atol=1e-7)


def results_of(block, x):
    y = block(x)
    return [y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])]


def test_gradients_are_the_same_bit_for_bit_and_nearly_so_for_other_thread_counts():
    block, x = MambaBlock(32, 16, 4, 0.0, ADJACENCY).train(), draw(1, 40, 17, 32).requires_grad_()
    first, again = results_of(block, x), results_of(block, x)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    torch.set_num_threads(1)
    for alone, both in zip(results_of(block, x), first, strict=True):
        assert (alone - both).abs().max() <= 1e-5 * both.abs().max()


def test_strided_inputs_are_read_in_their_order():
    x = draw(2, 5, 17, CHANNELS)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    weights = [draw(CHANNELS, CHANNELS, seed=i) for i in range(2)]
    norm = torch.ones(CHANNELS), torch.zeros(CHANNELS)
    for a, b in zip(
        norm_linears(x, *norm, *weights, 1e-6),
        norm_linears(strided, *norm, *weights, 1e-6),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_opcheck():
    c = CHANNELS
    head = [draw(c), draw(c), draw(c, c), draw(c, c)]
    head = [t.requires_grad_() for t in head]
    biases = [draw(c, seed=i).requires_grad_() for i in range(2)]
    x, inner = draw(2, 17, c).requires_grad_(), draw(2, 17, c, seed=1).requires_grad_()
    mask = torch.ones(2, 17, 1)
    ops, tail = torch.ops.mdtf, [t.requires_grad_() for t in tail_weights()]
    torch.library.opcheck(ops.head_forward, (x, head, None, 1e-6))
    torch.library.opcheck(ops.head_forward, (x, head + biases, ADJACENCY, 1e-6))
    torch.library.opcheck(ops.tail_forward, (x, inner, mask, None, tail, 1e-6))


def test_wrong_shapes_are_refused_before_the_kernel_reads_them():
    x, weights = draw(2, 17, CHANNELS), tail_weights()
    with pytest.raises(ValueError, match="fc1"):
        block_tail(x, x, None, None, (*weights[:3], weights[3][:, 1:], *weights[4:]), 1e-6)
    vector, square = draw(CHANNELS), draw(CHANNELS, CHANNELS)
    with pytest.raises(ValueError, match="adjacency"):
        norm_graph(x, vector, vector, square, square, vector, vector, torch.eye(5), 1e-6)


def test_a_second_derivative_is_refused():
    x, weights = draw(2, 3, CHANNELS).requires_grad_(), tuple(tail_weights())
    out = block_tail(x, x, None, None, weights, 1e-6)
    (gradient,) = torch.autograd.grad(out.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        gradient.sum().backward()
