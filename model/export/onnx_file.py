"""ONNX files as bytes: with metadata, with weights stored in half precision, and run."""

from collections.abc import Callable, Mapping

import numpy as np
import onnxruntime
from onnx import ModelProto, TensorProto, helper, load_from_string, numpy_helper

from lib.arrays import Floats
from model.export.onnx_graph import INPUT, onnx_graph
from model.mdtf import MDTF

HALVED_FROM = 256  # elements; smaller tensors are stored as they are


def make_file(model: MDTF, metadata: Mapping[str, str], *, flip: bool) -> bytes:
    """(B, T, J, 3) -> (B, T, J, 3), as predict_batch()."""
    written = onnx_graph(model, flip=flip)
    helper.set_model_props(written, dict(metadata))
    contents: bytes = written.SerializeToString()
    return contents


def with_half_weights(contents: bytes) -> bytes:
    """The same file with weights in float16, which a runtime makes float32 when it loads them."""
    model: ModelProto = load_from_string(contents)
    graph, casts, stored = model.graph, [], []
    for tensor in graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32 and array.size >= HALVED_FROM:
            name = f"{tensor.name}_half"
            casts.append(helper.make_node("Cast", [name], [tensor.name], to=TensorProto.FLOAT))
            tensor = numpy_helper.from_array(array.astype(np.float16), name)
        stored.append(tensor)
    nodes = [*casts, *graph.node]
    halved = helper.make_graph(nodes, graph.name, graph.input, graph.output, stored)
    model.graph.CopyFrom(halved)
    halved_contents: bytes = model.SerializeToString()
    return halved_contents


def runner(contents: bytes) -> Callable[[Floats], Floats]:
    session = onnxruntime.InferenceSession(contents, providers=["CPUExecutionProvider"])

    def run(clips: Floats) -> Floats:
        poses: Floats = session.run(None, {INPUT: clips})[0]
        return poses

    return run
