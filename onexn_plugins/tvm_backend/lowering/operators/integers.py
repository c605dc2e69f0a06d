"""Division of whole numbers. Processors stop the program at a division by zero, and of the smallest number by -1; here
what is divided by zero is 0, as in numpy, and no other result is open. And what remains of floats.
"""

from __future__ import annotations

import numpy as np
from tvm import relax

from onexn_plugins.tvm_backend.lowering.operators.comparisons import known
from onexn_plugins.tvm_backend.lowering.operators.numbers import number
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def divide_whole(builder: relax.BlockBuilder, graph: Graph, node: Node, x: relax.Expr,
                 divisor: relax.Expr) -> relax.Expr:
    """Towards zero."""
    quotient = builder.emit(relax.op.divide(x, _harmless(builder, graph, node, divisor)))
    return _elsewhere(builder, graph, node, x, divisor, quotient)


def modulo(builder: relax.BlockBuilder, graph: Graph, node: Node,
           inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """With the sign of the divisor; with that of the dividend where fmod is set."""
    x, divisor = inputs
    if not _whole(graph, node):
        return None if node.attributes.get("fmod", 0) else [_float_modulo(builder, graph, node, x, divisor)]
    harmless = _harmless(builder, graph, node, divisor)
    if node.attributes.get("fmod", 0):
        quotient = builder.emit(relax.op.divide(x, harmless))
        return [builder.emit(relax.op.subtract(x, builder.emit(relax.op.multiply(quotient, harmless))))]
    return [builder.emit(relax.op.floor_mod(x, harmless))]


def _float_modulo(builder: relax.BlockBuilder, graph: Graph, node: Node, x: relax.Expr,
                  divisor: relax.Expr) -> relax.Expr:
    """With the sign of the divisor, also where it is infinite or nothing remains."""
    zero, nothing = number(graph, node, 0), number(graph, node, -0.0)
    rest = builder.emit(relax.op.mod(x, divisor))
    backwards = known(builder, builder.emit(relax.op.less(divisor, zero)))
    negative = known(builder, builder.emit(relax.op.less(rest, zero)))
    other_sign = builder.emit(relax.op.not_equal(*(builder.emit(relax.op.astype(truth, "uint8"))
                                                   for truth in (negative, backwards))))
    moved = builder.emit(relax.op.where(other_sign, builder.emit(relax.op.add(rest, divisor)), rest))
    none_left = known(builder, builder.emit(relax.op.equal(rest, zero)))
    return builder.emit(relax.op.where(none_left, builder.emit(relax.op.where(backwards, nothing, zero)), moved))


def _whole(graph: Graph, node: Node) -> bool:
    return np.issubdtype(graph.dtype(node.output), np.integer)


def _harmless(builder: relax.BlockBuilder, graph: Graph, node: Node, divisor: relax.Expr) -> relax.Expr:
    """The divisor, and 1 in place of what no processor takes: everything is a multiple of 0, -1 and 1."""
    stops = builder.emit(relax.op.equal(divisor, number(graph, node, 0)))
    if _signed(graph, node):
        negative = builder.emit(relax.op.equal(divisor, number(graph, node, -1)))
        stops = builder.emit(relax.op.logical_or(stops, negative))
    return builder.emit(relax.op.where(stops, number(graph, node, 1), divisor))


def _elsewhere(builder: relax.BlockBuilder, graph: Graph, node: Node, x: relax.Expr, divisor: relax.Expr,
               quotient: relax.Expr) -> relax.Expr:
    """The quotient, -x by -1, and 0 by 0."""
    zero = number(graph, node, 0)
    if _signed(graph, node):
        negative = builder.emit(relax.op.equal(divisor, number(graph, node, -1)))
        quotient = builder.emit(relax.op.where(negative, builder.emit(relax.op.negative(x)), quotient))
    return builder.emit(relax.op.where(builder.emit(relax.op.equal(divisor, zero)), zero, quotient))


def _signed(graph: Graph, node: Node) -> bool:
    return np.issubdtype(graph.dtype(node.output), np.signedinteger)
