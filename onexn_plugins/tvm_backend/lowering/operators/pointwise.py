"""Functions of single values, of which TVM's versions lose NaN."""

from __future__ import annotations

import numpy as np
from tvm import relax

from onexn_plugins.tvm_backend.lowering.operators.integers import divide_whole
from onexn_plugins.tvm_backend.lowering.operators.numbers import number
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def erf(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _nan_kept(builder, graph, node, inputs[0], relax.op.erf)


def sign(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    if np.issubdtype(graph.dtype(node.output), np.unsignedinteger):
        return [builder.emit(relax.op.minimum(inputs[0], number(graph, node, 1)))]
    return _nan_kept(builder, graph, node, inputs[0], relax.op.sign)


def multiply(builder: relax.BlockBuilder, graph: Graph, node: Node,
             inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """By the number 0, which TVM takes for 0 whatever it multiplies: infinity times 0 is NaN."""
    zero = [value is not None and value.size == 1 and not value.any()
            for value in (graph.constant(node, place) for place in range(2))]
    if not any(zero) or not np.issubdtype(graph.dtype(node.output), np.floating):
        return None
    x = inputs[zero.index(False)] if False in zero else inputs[0]
    nothing = builder.emit(relax.op.where(builder.emit(relax.op.isfinite(x)), number(graph, node, 0),
                                          number(graph, node, np.nan)))
    return [builder.emit(relax.op.broadcast_to(nothing, graph.shape(node.output)))]


def divide(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Whole numbers, and the number 0 by whatever there is, which TVM takes for 0: zero by zero is NaN."""
    if np.issubdtype(graph.dtype(node.output), np.integer):
        return [divide_whole(builder, graph, node, *inputs)]
    numerator = graph.constant(node, 0)
    if numerator is None or numerator.size != 1 or numerator.any():
        return None
    x, zero = inputs[1], float(numerator.reshape(()))
    below = builder.emit(relax.op.less(x, number(graph, node, 0)))
    above = builder.emit(relax.op.greater(x, number(graph, node, 0)))
    signed = builder.emit(relax.op.where(below, number(graph, node, -zero), number(graph, node, np.nan)))
    made = builder.emit(relax.op.where(above, number(graph, node, zero), signed))
    return [builder.emit(relax.op.broadcast_to(made, graph.shape(node.output)))]


def sigmoid(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """1 / (1 + exp(-x)): of TVM's own, the C library's exp is called value by value, six times slower."""
    risen = builder.emit(relax.op.exp(builder.emit(relax.op.negative(inputs[0]))))
    one = number(graph, node, 1)
    return [builder.emit(relax.op.divide(one, builder.emit(relax.op.add(one, risen))))]


def tanh(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Of doubles: TVM's is a quotient of differences from 1, in which small numbers vanish; theirs is a series."""
    if graph.dtype(node.output) != np.float64:
        return None
    x = inputs[0]
    square = builder.emit(relax.op.multiply(x, x))
    cubed = builder.emit(relax.op.multiply(builder.emit(relax.op.multiply(square, x)), number(graph, node, -1 / 3)))
    is_small = builder.emit(relax.op.less(square, number(graph, node, 1e-6)))
    return [builder.emit(relax.op.where(is_small, builder.emit(relax.op.add(x, cubed)),
                                        builder.emit(relax.op.tanh(x))))]


def elu(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """x above 0, alpha (exp(x) - 1) below."""
    return [_exponential_unit(builder, graph, node, inputs[0], node.attributes.get("alpha", 1.0))]


def selu(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """As elu, times gamma."""
    unit = _exponential_unit(builder, graph, node, inputs[0], node.attributes.get("alpha", 1.67326319217681884765625))
    gamma = number(graph, node, node.attributes.get("gamma", 1.05070102214813232421875))
    return [builder.emit(relax.op.multiply(unit, gamma))]


def _exponential_unit(builder: relax.BlockBuilder, graph: Graph, node: Node, x: relax.Expr,
                      alpha: float) -> relax.Expr:
    risen = builder.emit(relax.op.subtract(builder.emit(relax.op.exp(x)), number(graph, node, 1)))
    below = builder.emit(relax.op.multiply(risen, number(graph, node, alpha)))
    return builder.emit(relax.op.where(builder.emit(relax.op.less(x, number(graph, node, 0))), below, x))


def _nan_kept(builder: relax.BlockBuilder, graph: Graph, node: Node, x: relax.Expr,
              function: relax.Expr) -> list[relax.Expr] | None:
    if not np.issubdtype(graph.dtype(node.output), np.floating):
        return None
    return [builder.emit(relax.op.where(builder.emit(relax.op.isnan(x)), x, builder.emit(function(x))))]
