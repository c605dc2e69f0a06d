"""Writes the nodes that an operator is expanded into."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import helper

from onexn_plugins.tvm_backend.reading.graph import Graph, Node

# Since when axes are an input and no attribute.
_AXES_ARE_INPUTS = {"ReduceSum": 13, "Squeeze": 13, "Unsqueeze": 13}
_REDUCED_AXES_ARE_INPUTS = 18


class Writer:
    """Collects nodes under the name of the operator they stand for.

        write = Writer(graph, node)
        write("Add", write("Mul", a, b), c, to=node.output)
        return write.nodes

    Attributes:
        nodes: what was written.
    """

    def __init__(self, graph: Graph, node: Node) -> None:
        self.nodes: list[Node] = []
        self._graph, self._node = graph, node

    def __call__(self, op: str, *inputs: str, to: str = "", **attributes: Any) -> str:
        """Write a node of one output, `to` or a new value, and return its name."""
        output = to or self._graph.new_name(self._node.output)
        self.nodes.append(Node.make(op, inputs, [output], self._node.name or self._node.output, **attributes))
        return output

    def cast(self, x: str, dtype: np.dtype, to: str = "") -> str:
        """A Cast to that type."""
        output = to or self._graph.new_name(self._node.output)
        self.nodes.append(Node.make("Cast", [x], [output], self._node.name, to=helper.np_dtype_to_tensor_dtype(dtype)))
        return output

    def reduce(self, op: str, x: str, axes: list[int], to: str = "") -> str:
        """A reduction, or Squeeze or Unsqueeze, along these axes; reduced axes stay with one element."""
        if self._graph.opset < _AXES_ARE_INPUTS.get(op, _REDUCED_AXES_ARE_INPUTS):
            return self(op, x, to=to, axes=axes)
        return self(op, x, self.integers(*axes), to=to)

    def integers(self, *values: int) -> str:
        """A constant list of int64."""
        return self._graph.add_constant(np.array(values, np.int64), "integers")

    def number(self, value: float) -> str:
        """A constant of the type that the node's first input has."""
        return self._graph.add_constant(np.array(value, self._graph.dtype(self._node.inputs[0])), "number")
