"""Writing the nodes of an ONNX graph, one call each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from torch import Tensor

# The name of a value; or what becomes a constant: weights, or whole numbers (sizes, axes).
Operand = str | Tensor | Sequence[int]


class Constants:
    """The constant tensors of a graph; equal ones are stored once."""

    def __init__(self) -> None:
        self.tensors: list[TensorProto] = []
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def name(self, value: Tensor | Sequence[int]) -> str:
        """The name of the constant."""
        array = value.numpy() if isinstance(value, Tensor) else np.array(value, np.int64)
        array = np.ascontiguousarray(array).reshape(array.shape)  # a number stays without axes
        key = str(array.dtype), array.shape, array.tobytes()
        if key not in self._names:
            self._names[key] = f"constant_{len(self.tensors)}"
            self.tensors.append(numpy_helper.from_array(array, self._names[key]))
        return self._names[key]


class Nodes:
    """The nodes of a graph, or of the body of a Scan, in the order of their calls."""

    def __init__(self, prefix: str, constants: Constants) -> None:
        """prefix: of the names of all nodes and values; must be unique in the file."""
        self.prefix, self.constants = prefix, constants
        self.nodes: list[NodeProto] = []

    def call(self, kind: str, *operands: Operand, count: int = 1, **settings: Any) -> list[str]:
        """Append a node with `count` outputs; returns their names."""
        names = [o if isinstance(o, str) else self.constants.name(o) for o in operands]
        node = f"{self.prefix}/{kind}_{len(self.nodes)}"
        outputs = [node if count == 1 else f"{node}:{number}" for number in range(count)]
        self.nodes.append(helper.make_node(kind, names, outputs, node, **settings))
        return outputs

    def __call__(self, kind: str, *operands: Operand, **settings: Any) -> str:
        """Append a node with one output; returns its name."""
        return self.call(kind, *operands, **settings)[0]

    def body(self, inputs: dict[str, int], outputs: dict[str, int]) -> GraphProto:
        """These nodes as a graph; inputs, outputs: name -> number of axes, all float32."""
        told = [
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * axes)
                for name, axes in names.items()
            ]
            for names in (inputs, outputs)
        ]
        return helper.make_graph(self.nodes, self.prefix, told[0], told[1])


def number(value: float) -> Tensor:
    """A constant without axes."""
    return torch.tensor(value, dtype=torch.float32)


def polynomial(nodes: Nodes, x: str, coefficients: Sequence[float]) -> str:
    """Horner's scheme; coefficients: of the highest power first, two at least."""
    highest, *others, lowest = map(number, coefficients)
    value = nodes("Mul", x, highest)
    for coefficient in others:
        value = nodes("Mul", nodes("Add", value, coefficient), x)
    return nodes("Add", value, lowest)
