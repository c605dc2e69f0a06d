"""Pow of two types, Celu, PRelu of a scalar, CastLike, Gemm of a transposed first factor, Dropout outside training."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def power(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Both operands of the wider type, the result of the base's; float64 for whole numbers, as float32 would round
    large ones.
    """
    base, exponent = (graph.dtype(name) for name in node.inputs)
    if base == exponent and np.issubdtype(base, np.floating):
        return None
    wide = base if np.issubdtype(base, np.floating) else np.dtype(np.float64)
    write = Writer(graph, node)
    x, y = (name if graph.dtype(name) == wide else write.cast(name, wide) for name in node.inputs)
    if wide == base:
        write("Pow", x, y, to=node.output)
    else:
        write.cast(write("Pow", x, y), base, to=node.output)
    return write.nodes


def celu(graph: Graph, node: Node) -> Iterable[Node]:
    """max(0, x) + min(0, alpha (exp(x / alpha) - 1)). The standard's other definition, by Elu, is the same for positive
    alpha alone, and infinite where x / alpha is.
    """
    write, x, alpha = Writer(graph, node), node.inputs[0], float(node.attributes.get("alpha", 1.0))
    below = write("Sub", write("Exp", write("Div", x, write.number(alpha))), write.number(1))
    write("Add", write("Relu", x), write("Min", write("Mul", below, write.number(alpha)), write.number(0)),
          to=node.output)
    return write.nodes


def prelu(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Of a scalar or of whole numbers, which TVM does not take."""
    x, slope = node.inputs
    if graph.shape(x) and np.issubdtype(graph.dtype(x), np.floating):
        return None
    write = Writer(graph, node)
    write("Where", write("Less", x, write.number(0)), write("Mul", x, slope), x, to=node.output)
    return write.nodes


def gemm(graph: Graph, node: Node) -> Iterable[Node] | None:
    """A transposed first factor is transposed on its own: the rest is an ordinary linear layer."""
    if not node.attributes.get("transA", 0):
        return None
    write = Writer(graph, node)
    transposed = write("Transpose", node.inputs[0], perm=[1, 0])
    write("Gemm", transposed, *node.inputs[1:], to=node.output, **{**node.attributes, "transA": 0})
    return write.nodes


def dropout(graph: Graph, node: Node) -> Iterable[Node]:
    """Outside training, or where nothing is dropped: the input, and a mask that is true everywhere.

    Raises:
        OneXNError: it may drop something.
    """
    ratio, training = graph.constant(node, 1), graph.constant(node, 2)
    trains = bool(node.input(2)) and (training is None or bool(training.any()))
    if trains and (ratio is None or bool(ratio.any())):
        raise OneXNError(node.label, "drops values at random, as in training: a compiled network gives the same result "
                         "for the same input", "Export the model in evaluation mode")
    mask = graph.add_constant(np.ones(graph.shape(node.inputs[0]), np.bool_), node.output)
    return [Node.make("Identity", [source], [name], node.name)
            for source, name in zip((node.inputs[0], mask), node.proto.output, strict=False) if name]


def cast_like(graph: Graph, node: Node) -> Iterable[Node]:
    """Of the second input nothing but its type is needed."""
    write = Writer(graph, node)
    write.cast(node.inputs[0], graph.dtype(node.inputs[1]), to=node.output)
    return write.nodes
