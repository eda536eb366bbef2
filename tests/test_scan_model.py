"""The model's fast paths against its readable one: kernels, recomputed blocks, fused inference."""

import pytest
import torch

from lib.skeleton import H36M
from model.blocks import FRAMES, JOINTS, MambaBlock, over_frames, over_joints, recompute_blocks
from model.lifter import Lifter
from model.ops import backend as seam
from model.ops import set_default_backend
from model.ops.cpu import backend as cpu
from tests.models import unsettle

needs_kernel = pytest.mark.skipif(cpu.unavailable() is not None, reason="no C kernel here")
ADJACENCY = torch.from_numpy(H36M.adjacency()).float()


@pytest.fixture(autouse=True)
def _automatic_backend(monkeypatch):
    monkeypatch.setattr(seam, "_default", "auto")


@needs_kernel
@pytest.mark.parametrize("vectors", [1, 2, 5])
@pytest.mark.parametrize("frames", [1, 5, 60])
@pytest.mark.parametrize("is_followed_by_norm", [False, True])
@pytest.mark.parametrize(
    ("axis", "adjacency", "backward_graph"),
    [
        (JOINTS, None, False),
        (FRAMES, None, False),
        (JOINTS, ADJACENCY, True),
        (JOINTS, ADJACENCY, False),
    ],
)
def test_the_block_kernel_equals_the_block_in_float64(
    vectors, frames, axis, adjacency, backward_graph, is_followed_by_norm
):
    dim = vectors * cpu.abi.library().mdtf_lanes()
    block = unsettle(MambaBlock(dim, 16, 4, 0.1, adjacency, backward_graph)).eval()
    x = torch.randn(2, frames, 17, dim)
    norm = unsettle(torch.nn.LayerNorm(dim, eps=1e-3)) if is_followed_by_norm else None
    with torch.inference_mode():
        found = block(x, axis, norm)
    assert found.is_contiguous()
    with torch.no_grad():
        expected = block.double()(x.double(), axis, norm and norm.double())
    assert (found - expected).abs().max() < 2e-6 * expected.abs().max()


@needs_kernel
def test_the_kernel_of_inference_runs_in_inference_and_only_there():
    lifter = Lifter(H36M, 9, 64, 2, bone_branch=False)
    clips = torch.randn(1, 9, 17, 3)

    def ran():
        """Which operators of blocks did."""
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            lifter(clips, None)
        names = {event.key for event in profile.key_averages()}
        return {name for name in names if name.startswith("mdtf::block")}

    lifter.eval()
    assert ran() == {"mdtf::block_forward"}  # gradients are wanted
    with torch.no_grad():
        assert ran() == {"mdtf::block_infer"}
        lifter.train()
        assert "mdtf::block_forward" in ran()  # DropPath is on, and BatchNorm wants statistics
    lifter.eval()
    set_default_backend("sequential")
    with torch.inference_mode():
        assert ran() == set()


@needs_kernel
def test_the_block_kernel_reads_the_weights_of_the_moment():
    """In-place updates behind autograd's back, as an optimizer or an average makes them."""
    block, x = MambaBlock(16, 16, 4).eval(), torch.randn(1, 5, 17, 16)
    with torch.no_grad():
        before = block(x)
        for parameter in block.parameters():
            parameter.data.mul_(1.5)
        after = block(x)
        expected = block.double()(x.double())
    assert not torch.allclose(before, after)
    assert (after - expected).abs().max() < 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("run", "adjacency"), [(over_joints, None), (over_joints, ADJACENCY), (over_frames, None)]
)
def test_every_backend_trains_alike(run, adjacency):
    """Outputs, gradients and running statistics of a block in training, DropPath on."""
    found = {}
    names = ["sequential", "torch"] + ["c"] * (cpu.unavailable() is None)
    for name in names:
        torch.manual_seed(1)
        block = unsettle(MambaBlock(16, 16, 4, 0.3, adjacency)).train()
        set_default_backend(name)
        x = torch.randn(2, 12, 17, 16, requires_grad=True)
        y = run(block, x)
        y.square().sum().backward()
        found[name] = {"y": y, "x": x.grad}
        found[name] |= {k: p.grad for k, p in block.named_parameters()}
        found[name] |= {k: b.float() for k, b in block.named_buffers()}
    for name in names[1:]:
        for key, expected in found["sequential"].items():
            error = (found[name][key] - expected).abs().max()
            assert error <= 1e-5 * expected.abs().max(), (name, key, error)


@pytest.mark.parametrize("has_hooks", [False, True])
def test_recomputed_blocks_give_the_same_and_keep_less(has_hooks):
    """With a hook the parts are called one by one, so that the recomputation meets BatchNorm."""

    def step(recompute):
        torch.manual_seed(2)
        lifter = unsettle(Lifter(H36M, 27, 16, 3)).train()
        recompute_blocks(lifter, recompute)
        if has_hooks:
            for block in (*lifter.spatial, *lifter.temporal):
                block.mlp.register_forward_hook(lambda *_: None)
        inputs = torch.randn(2, 2, 27, 17, 3)
        kept = set()

        def pack(t):
            kept.add((t.untyped_storage().data_ptr(), t.untyped_storage().nbytes()))
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = lifter(*inputs).square().sum()
        loss.backward()
        state = {k: v.clone() for k, v in lifter.state_dict().items()}
        gradients = {k: p.grad for k, p in lifter.named_parameters()}
        return loss, gradients, state, sum(size for _, size in kept)

    plain, recomputed = step(False), step(True)
    assert torch.equal(plain[0], recomputed[0])
    for a, b in zip(plain[1:3], recomputed[1:3], strict=True):
        assert all(torch.equal(a[k], b[k]) for k in a)  # also the running statistics
    assert recomputed[3] < plain[3] / 3


@needs_kernel
def test_a_model_exports_with_its_kernels_inside():
    lifter = Lifter(H36M, 9, 16, 2, bone_branch=False).eval()
    clips = torch.randn(1, 9, 17, 3)
    with torch.no_grad():
        program = torch.export.export(lifter, (clips, None))
        torch.testing.assert_close(program.module()(clips, None), lifter(clips, None))


@needs_kernel
@pytest.mark.parametrize("is_training", [False, True])
def test_a_compiled_block_has_its_kernels_inside(is_training):
    """In one graph: nothing about the backend's choice breaks it."""
    block, x = MambaBlock(16, 16, 4).train(is_training), torch.randn(1, 9, 17, 16)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    with torch.set_grad_enabled(is_training):
        y, expected = compiled(x), block(x)
    torch.testing.assert_close(y, expected)
    if is_training:
        gradients = [torch.autograd.grad(t.sum(), list(block.parameters())) for t in (y, expected)]
        torch.testing.assert_close(*gradients)
