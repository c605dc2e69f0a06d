"""Operators that choose between values: NaN stays NaN, and nothing is larger than infinity.

TVM's maximum compares and selects, so that max(NaN, 0) is 0, and its largest of a row is never below the smallest
finite number. ONNX's operators are those of numpy, which pass NaN on.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, reduce
from typing import Literal

import numpy as np
from tvm import relax, te, tirx

from onexn_plugins.tvm_backend.lowering.operators.comparisons import known
from onexn_plugins.tvm_backend.lowering.operators.numbers import number
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

Kind = Literal["max", "min"]


def relu(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    if not _floats(graph, node):
        return None
    return [_at_least(builder, inputs[0], number(graph, node, 0))]


def clip(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """The lower bound first, as the definition says: where the bounds cross, the upper one holds."""
    if not _floats(graph, node):
        return None
    value, low, high = (*inputs, None, None)[:3]
    value = value if low is None else _at_least(builder, value, low)
    return [builder.emit(value) if high is None else _at_most(builder, value, high)]


def largest(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _many(builder, graph, node, inputs, relax.op.greater)


def smallest(builder: relax.BlockBuilder, graph: Graph, node: Node,
             inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _many(builder, graph, node, inputs, relax.op.less)


def hard_sigmoid(builder: relax.BlockBuilder, graph: Graph, node: Node,
                 inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    slope, shift = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
    return _hard_sigmoid(builder, graph, node, inputs[0], slope, shift)


def hard_swish(builder: relax.BlockBuilder, graph: Graph, node: Node,
               inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    gate = _hard_sigmoid(builder, graph, node, inputs[0], 1 / 6, 0.5)
    return None if gate is None else [builder.emit(relax.op.multiply(inputs[0], gate[0]))]


def thresholded_relu(builder: relax.BlockBuilder, graph: Graph, node: Node,
                     inputs: list[relax.Expr]) -> list[relax.Expr]:
    """What is not above the threshold is 0, also NaN."""
    above = builder.emit(relax.op.greater(inputs[0], number(graph, node, node.attributes.get("alpha", 1.0))))
    return [builder.emit(relax.op.where(above, inputs[0], number(graph, node, 0)))]


def reduce_max(builder: relax.BlockBuilder, graph: Graph, node: Node,
               inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _reduced(builder, graph, node, inputs[0], "max")


def reduce_min(builder: relax.BlockBuilder, graph: Graph, node: Node,
               inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    return _reduced(builder, graph, node, inputs[0], "min")


def is_infinite(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """Both signs, or one, or none."""
    signs = [sign * np.inf for sign, name in ((1, "detect_positive"), (-1, "detect_negative"))
             if node.attributes.get(name, 1)]
    dtype = graph.dtype(node.inputs[0])
    # Of no sign at all: nothing equals NaN.
    equal = [builder.emit(relax.op.equal(inputs[0], relax.const(np.array(value, dtype), str(dtype))))
             for value in signs or [np.nan]]
    return [known(builder, reduce(lambda left, right: builder.emit(relax.op.logical_or(left, right)), equal))]


def _floats(graph: Graph, node: Node) -> bool:
    return np.issubdtype(graph.dtype(node.output), np.floating)


def _at_least(builder: relax.BlockBuilder, value: relax.Expr, bound: relax.Expr) -> relax.Expr:
    return builder.emit(relax.op.where(builder.emit(relax.op.less(value, bound)), bound, value))


def _at_most(builder: relax.BlockBuilder, value: relax.Expr, bound: relax.Expr) -> relax.Expr:
    return builder.emit(relax.op.where(builder.emit(relax.op.greater(value, bound)), bound, value))


def _many(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr],
          wins: relax.Expr) -> list[relax.Expr] | None:
    """One value after the other: the one that wins, or is NaN."""
    if not _floats(graph, node):
        return None

    def better(best: relax.Expr, other: relax.Expr) -> relax.Expr:
        is_better = builder.emit(wins(other, best))
        is_nan = builder.emit(relax.op.isnan(other))
        return builder.emit(relax.op.where(builder.emit(relax.op.logical_or(is_better, is_nan)), other, best))

    return [builder.emit(reduce(better, inputs))]


def _hard_sigmoid(builder: relax.BlockBuilder, graph: Graph, node: Node, value: relax.Expr, slope: float,
                  shift: float) -> list[relax.Expr] | None:
    if not _floats(graph, node):
        return None
    scaled = builder.emit(relax.op.multiply(value, number(graph, node, slope)))
    line = builder.emit(relax.op.add(scaled, number(graph, node, shift)))
    return [_at_most(builder, _at_least(builder, line, number(graph, node, 0)), number(graph, node, 1))]


def _reduced(builder: relax.BlockBuilder, graph: Graph, node: Node, value: relax.Expr,
             kind: Kind) -> list[relax.Expr] | None:
    axes, given = node.attributes.get("axes"), graph.constant(node, 1)
    if not _floats(graph, node) or (node.input(1) and given is None):
        return None
    if axes is None and given is not None:
        axes = given.tolist()
    if not axes and node.attributes.get("noop_with_empty_axes", 0):
        return [builder.emit(value)]
    rank = len(graph.shape(node.inputs[0]))
    places = sorted({axis % rank for axis in axes} if axes else range(rank))
    made = builder.emit_te(partial(_reduction, places, kind), value, primfunc_name_hint=f"reduce_{kind}")
    return [builder.emit(relax.op.reshape(made, graph.shape(node.output)))]


def reducer(kind: Kind, dtype: str) -> Callable[..., tirx.Expr]:
    """What folds values of that type into the largest or smallest of them; NaN is both."""
    floating = "float" in dtype

    def better(best: tirx.Expr, value: tirx.Expr) -> tirx.Expr:
        wins = value > best if kind == "max" else value < best
        return tirx.Select(tirx.Or(wins, tirx.isnan(value)) if floating else wins, value, best)

    return te.comm_reducer(better, lambda made: worst(kind, made), name=kind)


def worst(kind: Kind, dtype: str) -> tirx.Expr:
    """What no value is worse than."""
    sign = -1 if kind == "max" else 1
    if "float" in dtype:
        return tirx.const(sign * np.inf, dtype)
    limits = np.iinfo(dtype)
    return tirx.const(int(limits.min if kind == "max" else limits.max), dtype)


def _reduction(places: list[int], kind: Kind, x: te.Tensor) -> te.Tensor:
    """The largest or smallest value over these axes, which are left out."""
    reduced = {place: te.reduce_axis((0, x.shape[place]), f"r{place}") for place in places}
    shape = [size for place, size in enumerate(x.shape) if place not in reduced]

    def element(*position: tirx.Var) -> tirx.Expr:
        free = iter(position)
        at = tuple(reduced[place] if place in reduced else next(free) for place in range(len(x.shape)))
        return reducer(kind, str(x.dtype))(x[at], axis=list(reduced.values()))

    return te.compute(shape, element, f"reduce_{kind}")
