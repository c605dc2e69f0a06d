"""Reductions over no axes at all, and of whole numbers where what is between is none."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

REDUCTIONS = ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin",
              "ReduceProd", "ReduceSum", "ReduceSumSquare")
# What they make of each element alone; the others leave it as it is.
_OF_ONE = {"ReduceL1": "Abs", "ReduceL2": "Abs", "ReduceLogSum": "Log"}
_BETWEEN = frozenset({"ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean"})


def reduction(graph: Graph, node: Node) -> Iterable[Node] | None:
    """TVM reduces over all axes where the file says none. Means and roots of whole numbers are cut in float64."""
    axes, x, dtype = graph.constant(node, 1), node.inputs[0], graph.dtype(node.inputs[0])
    write = Writer(graph, node)
    if node.attributes.get("noop_with_empty_axes", 0) and (not node.input(1) or (axes is not None and not axes.size)):
        if node.op == "ReduceSumSquare":
            write("Mul", x, x, to=node.output)
        else:
            write(_OF_ONE.get(node.op, "Identity"), x, to=node.output)
        return write.nodes
    if node.op not in _BETWEEN or not np.issubdtype(dtype, np.integer) or dtype.itemsize < 4:  # which are none of ONNX
        return None
    wide = write.cast(x, np.dtype(np.float64))
    write.cast(write(node.op, wide, *node.inputs[1:], **node.attributes), dtype, to=node.output)
    return write.nodes
