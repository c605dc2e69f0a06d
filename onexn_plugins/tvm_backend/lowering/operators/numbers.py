"""Numbers of the type that an operator computes in."""

from __future__ import annotations

import numpy as np
from tvm import relax

from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def number(graph: Graph, node: Node, value: float) -> relax.Expr:
    """A constant of the node's output type, which is said: TVM takes single 64-bit numbers for 32-bit ones."""
    dtype = str(graph.dtype(node.output))
    return relax.const(np.array(value, dtype), dtype)
