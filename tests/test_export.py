"""The exported file: ONNX Runtime gives PyTorch's poses, for every form of the model."""

import json
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper

from data.benchmarks import skeleton_of
from lib.checkpoint import save_checkpoint
from lib.evaluation.predict import predict
from lib.export import main
from lib.skeleton import H36M
from model.blocks import FRAMES, JOINTS, MambaBlock
from model.build import load_mdtf
from model.export.block import Zeros, write_block
from model.export.check import swinging
from model.export.nodes import Constants, Nodes
from model.export.onnx_file import with_half_weights
from model.export.onnx_graph import IR_VERSION, OPSET, onnx_graph
from tests.exported import FORMS, saved
from tests.mistakes import told
from tests.models import unsettle


def session(contents):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(contents, options, providers=["CPUExecutionProvider"])


# --- One block ------------------------------------------------------------------------------


def written_block(block, norm, axis, frames):
    """The block as an ONNX model from x to y, (B, T, 17, C)."""
    nodes = Nodes("block", Constants())
    weights, settings = block.weights(norm), block.settings(axis, norm)
    weights = torch.utils._pytree.tree_map(lambda t: t if t is None else t.detach(), weights)
    y = write_block(nodes, "x", weights, settings, 17 if axis == FRAMES else frames, Zeros())
    channels = len(weights.norm1_weight)
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", frames, 17, channels])
        for name in ("x", y)
    ]
    graph = helper.make_graph(nodes.nodes, "g", values[:1], values[1:], nodes.constants.tensors)
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


@pytest.mark.parametrize(
    ("axis", "channels", "states", "taps", "graph", "has_norm"),
    [
        (JOINTS, 16, 16, 4, "both", True),
        (JOINTS, 24, 5, 3, "forward", False),
        (JOINTS, 8, 1, 2, "none", True),
        (FRAMES, 24, 16, 4, "none", True),
        (FRAMES, 8, 3, 2, "none", False),
    ],
)
def test_a_block_against_the_definition(axis, channels, states, taps, graph, has_norm):
    adjacency = None if graph == "none" else torch.from_numpy(H36M.adjacency()).float()
    block = MambaBlock(channels, states, taps, 0.1, adjacency, graph == "both")
    block = unsettle(block).eval()
    norm = unsettle(torch.nn.LayerNorm(channels, eps=1e-3)) if has_norm else None
    run = session(written_block(block, norm, axis, frames=5).SerializeToString())
    for batch in (1, 3):
        x = 3 * torch.randn(batch, 5, 17, channels)
        with torch.no_grad():
            expected = block.double()(x.double(), axis, norm and norm.double())
        block.float(), norm and norm.float()
        (found,) = run.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(found, expected, atol=1e-5 * expected.abs().max().item())


# --- The whole model ------------------------------------------------------------------------


def test_the_file_gives_pytorchs_poses_of_any_number_of_clips(exported, rng):
    source, out = exported
    model, run = load_mdtf(source), session(out.read_bytes())
    for batch in (1, 3):
        clips = np.stack([swinging(H36M, 9, rng) for _ in range(batch)])
        clips[0, 4] = clips[0, 4, :1]  # all joints in one point
        clips[0, 5, :, 0], clips[0, 5, :, 1] = -np.arange(17), 0  # all bones level, to the left
        clips[0, 6, :, 0], clips[0, 6, :, 1] = 0, np.arange(17)  # all upright
        expected = predict(model, clips, H36M, flip=False)
        np.testing.assert_allclose(run.run(None, {"pose_2d": clips})[0], expected, atol=1e-5)


def test_a_frame_that_is_not_finite_spoils_its_own_clip_alone(exported, rng):
    source, out = exported
    clips = np.stack([swinging(H36M, 9, rng) for _ in range(2)])
    clips[0, 3, 5, 1] = np.nan
    (found,) = session(out.read_bytes()).run(None, {"pose_2d": clips})
    expected = predict(load_mdtf(source), clips, H36M, flip=False)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_each_block_is_one_scan_with_a_state_made_at_run_time(exported):
    source, out = exported
    model = onnx.load(out)
    (opset,) = model.opset_import
    assert (opset.domain, opset.version) == ("", 20)
    for end in (*model.graph.input, *model.graph.output):
        sizes = [dim.dim_param or dim.dim_value for dim in end.type.tensor_type.shape.dim]
        assert sizes == ["batch", 9, 17, 3]
    scans = [node for node in model.graph.node if node.op_type == "Scan"]
    blocks = [m for m in load_mdtf(source).modules() if isinstance(m, MambaBlock)]
    assert len(scans) == len(blocks)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in scans:
        body = next(a.g for a in node.attribute if a.name == "body")
        state, result = body.input[0].type.tensor_type, body.output[0].type.tensor_type
        assert len(state.shape.dim) == len(result.shape.dim) == 4  # (2, rows, N, C)
        assert node.input[0] not in constants
    weights = sum(p.numel() for p in load_mdtf(source).parameters())
    assert sum(np.prod(t.dims, dtype=int) for t in constants.values()) < 1.5 * weights


def test_the_file_says_what_its_numbers_mean(exported):
    told = {entry.key: entry.value for entry in onnx.load(exported[1]).metadata_props}
    assert json.loads(told["joints"]) == list(H36M.names)
    assert json.loads(told["parents"]) == list(H36M.parents)
    assert (told["frames"], told["frame_rate"], told["flip_averaged"]) == ("9", "25", "false")
    assert (told["dataset"], told["root_relative"], told["mdtf_version"]) == (
        "mocap",
        "true",
        "0.1.0",
    )
    assert "half picture widths" in told["output"] and "width" in told["input"]


@pytest.mark.parametrize(("name", "flip"), [("screen", True), ("no bones", False)])
def test_other_forms(name, flip, tmp_path, rng):
    source = saved(tmp_path / "best_epoch.pth.tr", FORMS[name])
    model = load_mdtf(source, skeleton_of=skeleton_of)
    run = session(onnx_graph(model, flip=flip).SerializeToString())
    for batch in (1, 3):
        clips = np.stack([swinging(model.skeleton, 9, rng) for _ in range(batch)])
        expected = predict(model, clips, model.skeleton, flip=flip)
        np.testing.assert_allclose(run.run(None, {"pose_2d": clips})[0], expected, atol=1e-5)
        assert np.abs(predict(model, clips, model.skeleton, flip=not flip) - expected).max() > 0.01


def test_weights_in_half_precision(exported, rng):
    contents = exported[1].read_bytes()
    halved = with_half_weights(contents)
    before, after = onnx.load_from_string(contents), onnx.load_from_string(halved)
    stored = {t.name.removesuffix("_half"): t for t in after.graph.initializer}
    for tensor in before.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        found = onnx.numpy_helper.to_array(stored[tensor.name])
        is_halved = array.dtype == np.float32 and array.size >= 256
        np.testing.assert_array_equal(found, array.astype(np.float16) if is_halved else array)
    clips = np.stack([swinging(H36M, 9, rng) for _ in range(2)])
    full, half = (session(each).run(None, {"pose_2d": clips})[0] for each in (contents, halved))
    assert 0 < np.abs(full - half).max() < 0.05 * np.abs(full).max()


LOADED_WITH_PYTORCH_ALONE = """
import json, sys, numpy, torch
told = {"mdtf.json": ""}
program = torch.export.load(sys.argv[1], extra_files=told).module()
numpy.save(sys.argv[3], program(torch.from_numpy(numpy.load(sys.argv[2]))).detach().numpy())
assert json.loads(told["mdtf.json"])["frames"] == "9"
assert not [name for name in sys.modules if name.split(".")[0] in ("model", "lib")]
"""


def test_a_pt2_needs_nothing_of_ours(tmp_path, rng):
    source = saved(tmp_path / "best_epoch.pth.tr", FORMS["no bones"])
    out = tmp_path / "m.pt2"
    assert main(["--checkpoint", str(source), "--out", str(out), "--format", "pt2"]) == 0
    clips = np.stack([swinging(H36M, 9, rng) for _ in range(3)])
    np.save(tmp_path / "clips.npy", clips)
    files = ["m.pt2", "clips.npy", "poses.npy"]
    command = [sys.executable, "-c", LOADED_WITH_PYTORCH_ALONE, *files]
    subprocess.run(command, cwd=tmp_path, check=True)
    expected = predict(load_mdtf(source), clips, H36M, flip=False)
    np.testing.assert_allclose(np.load(tmp_path / "poses.npy"), expected, atol=1e-5)


# --- Mistakes -------------------------------------------------------------------------------


def test_mistakes_leave_no_file(tmp_path, monkeypatch):
    source, out = saved(tmp_path / "best_epoch.pth.tr", {}), tmp_path / "m.onnx"

    def export(checkpoint=source, out=out, *more):
        return told(main, ["--checkpoint", str(checkpoint), "--out", str(out), *more])

    assert "no such checkpoint" in export(tmp_path / "nowhere")
    assert "no such config" in export(source, out, "--config", "nowhere.yaml")
    assert "would be overwritten" in export(out=source)
    contents = torch.load(source, weights_only=True)
    contents["model"]["head.1.bias"][0] = torch.nan
    damaged = tmp_path / "damaged.pth.tr"
    save_checkpoint(damaged, contents)
    assert "not finite" in export(damaged)
    assert "a folder" in export(out=tmp_path)
    # Told before the model is loaded.
    assert "choose another place" in export(damaged, out=source / "m.onnx")
    half = ("--weights", "float16", "--format", "pt2")
    assert "is for onnx files" in export(source, out, *half)
    monkeypatch.setitem(sys.modules, "onnx", None)  # not installed
    for name in [name for name in sys.modules if name.startswith("model.export.")]:
        monkeypatch.delitem(sys.modules, name)
    assert "requirements-export.txt" in export()
    assert not out.exists()
