"""ArgMax and ArgMin: NaN is the largest and the smallest at once, as in numpy and torch. TVM's forget what stood before
a NaN, and answer -1 where nothing beats infinity.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from tvm import relax, te, tirx

from onexn_plugins.tvm_backend.lowering.operators.comparisons import settled
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def arg_max(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    return _place(builder, graph, node, inputs[0], largest=True)


def arg_min(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    return _place(builder, graph, node, inputs[0], largest=False)


def _place(builder: relax.BlockBuilder, graph: Graph, node: Node, value: relax.Expr, *,
           largest: bool) -> list[relax.Expr]:
    axis = node.attributes.get("axis", 0) % len(graph.shape(node.inputs[0]))
    floating = np.issubdtype(graph.dtype(node.inputs[0]), np.floating)
    last = bool(node.attributes.get("select_last_index", 0))
    made = builder.emit_te(partial(_reduction, axis, largest, last, floating), value, primfunc_name_hint="arg_extreme")
    return [builder.emit(relax.op.reshape(made, graph.shape(node.output)))]


def _reduction(axis: int, largest: bool, last: bool, floating: bool, x: te.Tensor) -> te.Tensor:
    """The place of the extreme value along the axis, which is left out."""

    def better(best: tuple[tirx.Expr, tirx.Expr], other: tuple[tirx.Expr, tirx.Expr]) -> tuple[tirx.Expr, tirx.Expr]:
        (place, value), (new_place, new_value) = best, other
        wins = new_value > value if largest else new_value < value
        equal = new_value == value
        if floating:
            is_nan, was_nan = settled(tirx.isnan(new_value)), settled(tirx.isnan(value))
            wins = tirx.And(tirx.Not(was_nan), tirx.Or(settled(wins), is_nan))
            equal = tirx.Or(settled(equal), tirx.And(is_nan, was_nan))
        first = place < 0
        moves = tirx.Or(first, tirx.Or(wins, equal) if last else wins)
        return tirx.Select(moves, new_place, place), tirx.Select(moves, new_value, value)

    def nothing(place_type: str, value_type: str) -> tuple[tirx.Expr, tirx.Expr]:
        return tirx.const(-1, place_type), tirx.const(0, value_type)

    reducer = te.comm_reducer(better, nothing, name="arg_extreme")
    along = te.reduce_axis((0, x.shape[axis]), "along")
    shape = [size for place, size in enumerate(x.shape) if place != axis]

    def element(*position: tirx.Var) -> tirx.Expr:
        at = (*position[:axis], along, *position[axis:])
        return reducer((tirx.Cast("int64", along.var), x[at]), axis=along)

    return te.compute(shape, element, "arg_extreme")[0]
