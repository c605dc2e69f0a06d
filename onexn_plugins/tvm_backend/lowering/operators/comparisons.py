"""Comparisons and differences of floats, kept from TVM's simplifier, which takes them for numbers that are never NaN.

Where one loop computes several operators, it makes a <= b of not (a > b), true of a == a and of a > b or b >= a, 0 of
a - a, and a of (a + b) - b, which is another number wherever a + b is rounded. Of a truth value that went through a
byte it knows nothing, and of a sum with the negative neither.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm import relax, tirx

from onexn_plugins.tvm_backend.lowering.operators.numbers import number
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def greater(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _compared(builder, graph, node, inputs, relax.op.greater)


def greater_or_equal(builder: relax.BlockBuilder, graph: Graph, node: Node,
                     inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _compared(builder, graph, node, inputs, relax.op.greater_equal)


def less(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _compared(builder, graph, node, inputs, relax.op.less)


def less_or_equal(builder: relax.BlockBuilder, graph: Graph, node: Node,
                  inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _compared(builder, graph, node, inputs, relax.op.less_equal)


def equal(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Floats by two comparisons that NaN fails; truth values as bytes, which LLVM compares."""
    dtype = graph.dtype(node.inputs[0])
    if dtype == np.bool_:
        return [builder.emit(relax.op.equal(*(builder.emit(relax.op.astype(value, "uint8")) for value in inputs)))]
    if not np.issubdtype(dtype, np.floating):
        return None
    sides = [known(builder, builder.emit(compare(*inputs))) for compare in (relax.op.less_equal,
                                                                            relax.op.greater_equal)]
    return [builder.emit(relax.op.logical_and(*sides))]


def subtract(builder: relax.BlockBuilder, graph: Graph, node: Node,
             inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    if not np.issubdtype(graph.dtype(node.output), np.floating):
        return None
    negative = builder.emit(relax.op.multiply(inputs[1], number(graph, node, -1)))
    return [builder.emit(relax.op.add(inputs[0], negative))]


def known(builder: relax.BlockBuilder, truth: relax.Expr) -> relax.Expr:
    """The same truth value, of which the simplifier does not know what it compares."""
    as_bytes = builder.emit(relax.op.astype(truth, "uint8"))
    return builder.emit(relax.op.not_equal(as_bytes, relax.const(np.array(0, np.uint8), "uint8")))


def settled(truth: tirx.Expr) -> tirx.Expr:
    """As `known`, in a function of our own."""
    return tirx.NE(tirx.Cast("uint8", truth), tirx.const(0, "uint8"))


def _compared(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr],
              compare: Callable[..., relax.Expr]) -> list[relax.Expr] | None:
    if not np.issubdtype(graph.dtype(node.inputs[0]), np.floating):
        return None
    return [known(builder, builder.emit(compare(*inputs)))]
