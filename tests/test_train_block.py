"""A residual block as one operator for training: gradients against float64, how it behaves."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lib.skeleton import H36M
from model.blocks import FRAMES, JOINTS, MambaBlock
from model.ops import Settings
from model.ops import backend as seam
from model.ops.cpu import backend as cpu
from model.ops.weights import LEAVES, BlockWeights, flat, unflat

pytestmark = pytest.mark.skipif(cpu.unavailable() is not None, reason="no C kernel here")
ADJACENCY = torch.from_numpy(H36M.adjacency()).float()
CHANNELS = 32


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    monkeypatch.setattr(seam, "_default", "auto")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


CASES = {
    "joints": (JOINTS, None, False),
    "frames": (FRAMES, None, False),
    "graphs": (JOINTS, ADJACENCY, True),
    "forward graph": (JOINTS, ADJACENCY, False),
}


def build(dim, adjacency=None, backward_graph=True, drop_path=0.3):
    """A block with no weight at its special initial value, and a norm to follow it."""
    torch.manual_seed(0)
    block = MambaBlock(dim, 16, 4, drop_path, adjacency, backward_graph)
    both = nn.ModuleList([block, nn.LayerNorm(dim)])
    with torch.no_grad():
        for tensor in both.parameters():
            tensor += 0.1 * torch.rand_like(tensor)
        for name, tensor in both.named_buffers():
            if "running" in name:
                tensor += 0.1 * torch.rand_like(tensor)
    return both


def away_from_kinks(block, shape):
    """Inputs on which no graph's ReLU is within 1e-5 of its kink.

    There float32's rounding, which differs between CPUs, decides about the whole gradient.
    """
    exact, sums = copy.deepcopy(block).double(), []
    for graph in exact.mixer.graphs:
        if graph is not None:
            graph.conv.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
            graph.conv.norm.register_forward_hook(
                lambda _, __, mixed: sums.append(sums.pop() + mixed)
            )
    for seed in range(100):
        x = draw(*shape, seed=seed)
        sums.clear()
        if exact.mixer.graphs != (None, None):
            exact(x.double())
        if all(before_relu.abs().min() > 1e-5 for before_relu in sums):
            return x
    raise AssertionError("no such inputs")


def assert_near(found, expected, tolerance=1e-5):
    for a, b in zip(found, expected, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max()


@pytest.mark.parametrize("dim", [16, 64, 128])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("last_norm", [True, False])
def test_a_block_equals_the_block_in_float64(dim, case, training, last_norm):
    """The output, every gradient and the running statistics, DropPath on."""
    axis, adjacency, backward_graph = CASES[case]
    block, norm = build(dim, adjacency, backward_graph).train(training)
    norm = norm if last_norm else None
    x = away_from_kinks(block, (2, 11, 17, dim)).requires_grad_()
    # Random signs would let some sums over all rows cancel to a hundredth of their terms, whose
    # rounding in float32, the readable definition's too, then shows.
    cotangent = x.detach()
    results = []
    exact = copy.deepcopy(block).double(), copy.deepcopy(norm and norm.double())
    for (block_, norm_), leaf in (
        ((block, norm and norm.float()), x),
        (exact, x.detach().double().requires_grad_()),
    ):
        torch.manual_seed(3)  # the same rows dropped
        y = block_(leaf, axis, norm_)
        learnt = [*block_.parameters(), *(norm_.parameters() if norm_ else ())]
        gradients = torch.autograd.grad(y, [leaf, *learnt], cotangent.to(y.dtype))
        results.append([y, *gradients, *(b.double() for b in block_.buffers())])
    torch.manual_seed(3)
    masks = block.drop_path.mask(x, axis), block.drop_path.mask(x, axis)
    weights, settings = block.weights(norm), block.settings(axis, norm)
    found = cpu.Cpu().block(x, weights, settings, masks, batch_statistics=training)
    assert torch.equal(found[0], results[0][0])  # the kernels did run
    assert_near(*results)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frames", [0, 1, 2, 3, 40])
def test_any_number_of_frames(frames, training):
    block, _ = build(CHANNELS, ADJACENCY, drop_path=0.0).train(training)
    x = draw(1, frames, 17, CHANNELS).requires_grad_()
    y = block(x)
    leaves = [x, *block.parameters()]
    gradients = torch.autograd.grad(y.sum(), leaves)  # a cotangent without memory of its own
    if not frames:
        assert y.shape == x.shape
        assert all(
            g.shape == t.shape and not g.any() for g, t in zip(gradients, leaves, strict=True)
        )
        return
    exact, leaf = copy.deepcopy(block).double(), x.detach().double().requires_grad_()
    expected = torch.autograd.grad(exact(leaf).sum(), [leaf, *exact.parameters()])
    for found, exact_gradient in zip(gradients, expected, strict=True):
        assert (found - exact_gradient).abs().max() <= 1e-5 * max(1, exact_gradient.abs().max())


@pytest.mark.parametrize("x", [0.0, 0.5, -0.5, 3.0, -3.0, 6.0, -6.0, 40.0, -40.0])
def test_the_slope_of_gelu_far_out_and_near_zero(x):
    """A block that is GELU alone: LN makes (x, -x, ...) of unit size, fc1 scales it to x."""
    c = 32
    block = MambaBlock(c, 16, 4).train()
    with torch.no_grad():
        for parameter in (*block.mixer.out_proj.parameters(), *block.mlp.parameters()):
            parameter.zero_()
        block.mlp.fc1.weight.copy_(x * torch.eye(c, 2 * c).T)
        block.mlp.fc2.weight.copy_(torch.eye(c, 2 * c))
    block.norm2.eps = block.norm1.eps = 0.0
    signs = torch.tensor([1.0, -1.0]).repeat(c // 2)
    row = signs[None, None].clone()
    out = block(row)
    (slope,) = torch.autograd.grad(out, block.mlp.fc1.bias, torch.ones_like(out))
    at = (x * signs).double().requires_grad_()
    expected = F.gelu(at)
    torch.testing.assert_close((out - row)[0, 0].double(), expected.detach(), rtol=1e-6, atol=1e-6)
    (exact,) = torch.autograd.grad(expected.sum(), at)
    torch.testing.assert_close(slope[:c].double(), exact, rtol=1e-6, atol=1e-7)


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
    block, norm = build(CHANNELS, ADJACENCY, drop_path=0.0).train()
    x = draw(2, 5, 17, CHANNELS)
    strided = x.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(block(x, JOINTS, norm), block(strided, JOINTS, norm))


def operator_arguments(axis, adjacency, training):
    block, norm = build(CHANNELS, adjacency)
    weights = [
        t if t is None else t.detach().requires_grad_(leaf.is_learnt)
        for t, leaf in zip(flat(block.weights(norm)), LEAVES[BlockWeights], strict=True)
    ]
    x, mask = draw(2, 17, CHANNELS).requires_grad_(), torch.ones(2, 17, 1)
    if axis == FRAMES:
        x, mask = draw(1, 3, 5, CHANNELS).requires_grad_(), torch.ones(1, 3, 5, 1)
    return x, mask, None, weights, axis, [1e-6, 1e-6, 1e-5], training, True


@pytest.mark.parametrize(
    ("axis", "adjacency", "training"),
    [(FRAMES, None, True), (JOINTS, ADJACENCY, True), (JOINTS, ADJACENCY, False)],
)
def test_opcheck(axis, adjacency, training):
    arguments = operator_arguments(axis, adjacency, training)
    torch.library.opcheck(torch.ops.mdtf.block_forward, arguments)


@pytest.mark.parametrize("dynamic", [False, True])
def test_torch_compile_sees_the_operator_and_its_backward(dynamic):
    """In one graph for all lengths where sizes are symbols, then in eval mode, too."""
    torch._dynamo.reset()
    block, norm = build(CHANNELS, ADJACENCY, drop_path=0.0).train()
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for batch, frames in ((1, 3), (2, 5)):
        x = draw(batch, frames, 17, CHANNELS).requires_grad_()
        results = []
        for function in (block, compiled):
            y = function(x, JOINTS, norm)
            results.append([y, *torch.autograd.grad(y.square().sum(), [x, *block.parameters()])])
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        with torch.no_grad():
            block.eval()
            assert torch.equal(block(x, JOINTS, norm), compiled(x, JOINTS, norm))
            block.train()


def test_opcheck_inference():
    x, _, _, weights, axis, eps, *_ = operator_arguments(JOINTS, ADJACENCY, False)
    detached = [t if t is None else t.detach() for t in weights]
    torch.library.opcheck(torch.ops.mdtf.block_infer, (x.detach(), detached, axis, eps))


def test_each_weight_of_another_size_is_refused_before_the_kernel_reads_it():
    block, norm = build(CHANNELS, ADJACENCY)
    x, weights = draw(2, 17, CHANNELS), block.weights(norm)
    for number in range(len(LEAVES[BlockWeights])):
        tensors = flat(weights)
        tensors[number] = torch.cat([tensors[number]] * 2, -1)
        with pytest.raises(ValueError, match=r"is wanted|up to 4 taps"):
            cpu.Cpu().block(
                x, unflat(BlockWeights, tensors), Settings(), (None, None), batch_statistics=True
            )


def test_a_second_derivative_is_refused():
    block, norm = build(CHANNELS)
    x = draw(2, 3, CHANNELS).requires_grad_()
    (gradient,) = torch.autograd.grad(block(x, JOINTS, norm).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        gradient.sum().backward()
