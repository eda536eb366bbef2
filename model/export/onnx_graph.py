"""The model as an ONNX graph: traced by PyTorch around its residual blocks, which we write.

PyTorch's exporter would unroll the scans. So each block is one node of our own while it traces,
and is replaced by the nodes of model/export/block.py afterwards. All else, every form of the
model included, is the model's own code.
"""

import math

import torch
from onnx import ModelProto, NodeProto, TensorProto, checker, helper, numpy_helper
from onnxscript import FLOAT
from onnxscript import opset20 as op
from torch import Tensor, nn

from model.blocks import FRAMES, MambaBlock
from model.export.block import Zeros, write_block
from model.export.nodes import Constants, Nodes
from model.export.trace import BATCH, quiet, trace
from model.mdtf import MDTF
from model.ops.weights import LEAVES, BlockWeights, Settings, flat, unflat

OPSET = 20  # the first with Gelu
IR_VERSION = 10
DOMAIN, BLOCK = "mdtf", "Block"
INPUT, OUTPUT = "pose_2d", "pose_3d"


class OneNode(nn.Module):
    """In place of a MambaBlock while PyTorch traces: one node with the block's weights."""

    def __init__(self, block: MambaBlock, name: str) -> None:
        super().__init__()
        self.block, self.name = block, name

    def forward(self, x: Tensor, axis: int, norm: nn.Module | None = None) -> Tensor:
        weights, settings = self.block.weights(norm), self.block.settings(axis, norm)
        axis, *eps = settings
        y: Tensor = torch.onnx.ops.symbolic(
            f"{DOMAIN}::{BLOCK}",
            (x, *flat(weights)),
            {"axis": axis, "eps": list(eps), "name": self.name},
            dtype=x.dtype,
            shape=x.shape,
            version=1,
        )
        return y


def _atan2(y: FLOAT, x: FLOAT) -> FLOAT:
    """As torch.atan2, but for the sign of zeros. PyTorch's exporter gives a level bone that points
    to the left (y = 0, x < 0) the angle -π in place of π, and NaN the angle 0."""
    nothing = op.Constant(value_float=0.0)
    half_turn = op.Constant(value_float=math.pi)
    angle = op.Atan(op.Div(y, x))
    turned = op.Where(op.Less(y, nothing), op.Sub(angle, half_turn), op.Add(angle, half_turn))
    angle = op.Where(op.Less(x, nothing), turned, angle)
    is_point = op.And(op.Equal(x, nothing), op.Equal(y, nothing))
    return op.Where(is_point, nothing, angle)


def onnx_graph(model: MDTF, *, flip: bool) -> ModelProto:
    """(B, T, J, 3): x, y on the normalised screen, confidence -> (B, T, J, 3), as predict_batch().

    flip: average with the mirrored clip, inside the graph. model: in eval mode, on the CPU.
    """
    program = trace(model, OneNode, flip=flip)
    with quiet():
        traced = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            custom_translation_table={torch.ops.aten.atan2.default: _atan2},
            verbose=False,
        )
    assert traced is not None  # for the type
    return _with_blocks_written(traced.model_proto, model.n_frames, model.skeleton.num_joints)


def _with_blocks_written(traced: ModelProto, frames: int, joints: int) -> ModelProto:
    """The same graph with the nodes of each block, and without what nothing reads."""
    weights = {
        t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in traced.graph.initializer
    }
    constants, zeros = Constants(), Zeros()
    nodes: list[NodeProto] = []
    for node in traced.graph.node:
        if node.domain != DOMAIN:
            plain = NodeProto()
            plain.CopyFrom(node)
            plain.ClearField("metadata_props")
            nodes.append(plain)
            continue
        told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        settings = Settings(told["axis"], *told["eps"])
        x, *names = node.input
        names += [""] * (len(LEAVES[BlockWeights]) - len(names))  # those at the end may be left out
        block = unflat(BlockWeights, [weights[name] if name else None for name in names])
        written = Nodes(told["name"].decode(), constants)
        others = joints if settings.axis == FRAMES else frames
        write_block(written, x, block, settings, others, zeros)
        written.nodes[-1].output[0] = node.output[0]
        nodes += written.nodes
    read = {name for node in nodes for name in node.input}
    kept = [t for t in traced.graph.initializer if t.name in read]
    shape: list[str | int | None] = [BATCH, frames, joints, 3]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in (INPUT, OUTPUT)
    ]
    graph = helper.make_graph(nodes, "mdtf", ends[:1], ends[1:], [*kept, *constants.tensors])
    opset = helper.make_opsetid("", OPSET)
    written_model = helper.make_model(
        graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="mdtf"
    )
    checker.check_model(written_model, full_check=True)
    return written_model
