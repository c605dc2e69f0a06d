"""Reading and writing at places that are known at run time only: Gather, GatherElements, GatherND, ScatterElements,
ScatterND, MaxUnpool, ReverseSequence.

ONNX leaves open what an index outside the tensor does. Here it never reads or writes other memory: what it reads is
NaN, 0 where the type has no NaN; what it writes is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.lowering.operators.layout import around, coordinates, counted, is_inside, place, strides
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

_REDUCTIONS: dict[str, Callable[[Expr, Expr], Any]] = {
    "none": lambda old, new: new, "add": lambda old, new: old + new, "mul": lambda old, new: old * new,
    "max": tirx.max, "min": tirx.min}


def gather(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Whole slices along an axis. Indices that are known were checked, and TVM's own loops are faster then."""
    if graph.constant(node, 1) is not None:
        return None
    spec = graph.specs[node.output]
    outer, size, inner = around(graph.shape(node.inputs[0]), node.attributes.get("axis", 0))
    count = math.prod(graph.shape(node.inputs[1]))

    def body(x: Buffer, indices: Buffer, y: Buffer) -> None:
        with T.serial(0, outer) as before, T.serial(0, count) as number:
            index = counted(indices[number], size)
            with T.serial(0, inner) as after:
                _read(x, (before * size + index) * inner + after, is_inside(index, size), y,
                      (before * count + number) * inner + after, spec.dtype)

    return call(builder, "gather", body, inputs, [spec])


def gather_elements(builder: relax.BlockBuilder, graph: Graph, node: Node,
                    inputs: list[relax.Expr]) -> list[relax.Expr]:
    spec, shape = graph.specs[node.output], graph.shape(node.inputs[0])
    axis = node.attributes.get("axis", 0) % len(shape)

    def body(x: Buffer, indices: Buffer, y: Buffer) -> None:
        with T.serial(0, math.prod(spec.shape)) as flat:
            index, position = counted(indices[flat], shape[axis]), coordinates(flat, spec.shape)
            position[axis] = index
            _read(x, place(position, shape), is_inside(index, shape[axis]), y, flat, spec.dtype)

    return call(builder, "gather_elements", body, inputs, [spec])


def gather_nd(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """Each row of indices is a position along the axes behind the shared ones."""
    spec, shape = graph.specs[node.output], graph.shape(node.inputs[0])
    batch_axes, (*rows, depth) = node.attributes.get("batch_dims", 0), graph.shape(node.inputs[1])
    batch, inner = math.prod(shape[:batch_axes]), math.prod(shape[batch_axes + depth:])
    named, count = shape[batch_axes:batch_axes + depth], math.prod(rows) // batch

    def body(x: Buffer, indices: Buffer, y: Buffer) -> None:
        with T.serial(0, batch) as before, T.serial(0, count) as number:
            start, inside = _position(indices, (before * count + number) * depth, named)
            with T.serial(0, inner) as after:
                _read(x, (before * math.prod(named) + start) * inner + after, inside, y,
                      (before * count + number) * inner + after, spec.dtype)

    return call(builder, "gather_nd", body, inputs, [spec])


def scatter_elements(builder: relax.BlockBuilder, graph: Graph, node: Node,
                     inputs: list[relax.Expr]) -> list[relax.Expr]:
    spec, updated = graph.specs[node.output], graph.shape(node.inputs[1])
    axis = node.attributes.get("axis", 0) % len(spec.shape)
    reduce = _REDUCTIONS[node.text("reduction", "none")]

    def body(x: Buffer, indices: Buffer, updates: Buffer, y: Buffer) -> None:
        _copy(x, y, math.prod(spec.shape))
        with T.serial(0, math.prod(updated)) as flat:
            index, position = counted(indices[flat], spec.shape[axis]), coordinates(flat, updated)
            position[axis] = index
            with T.If(is_inside(index, spec.shape[axis])), T.Then():
                to = T.bind(place(position, spec.shape))
                T.buffer_store(y, reduce(y[to], updates[flat]), [to])

    return call(builder, "scatter_elements", body, inputs, [spec])


def scatter_nd(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    spec, (*rows, depth) = graph.specs[node.output], graph.shape(node.inputs[1])
    inner, reduce = math.prod(spec.shape[depth:]), _REDUCTIONS[node.text("reduction", "none")]

    def body(x: Buffer, indices: Buffer, updates: Buffer, y: Buffer) -> None:
        _copy(x, y, math.prod(spec.shape))
        with T.serial(0, math.prod(rows)) as number:
            start, inside = _position(indices, number * depth, spec.shape[:depth])
            with T.If(inside), T.Then(), T.serial(0, inner) as after:
                to = start * inner + after
                T.buffer_store(y, reduce(y[to], updates[number * inner + after]), [to])

    return call(builder, "scatter_nd", body, inputs, [spec])


def max_unpool(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr]:
    """Indices count through the whole result."""
    spec, given = graph.specs[node.output], math.prod(graph.shape(node.inputs[0]))
    size = math.prod(spec.shape)

    def body(x: Buffer, indices: Buffer, y: Buffer) -> None:
        with T.serial(0, size) as flat:
            T.buffer_store(y, tirx.const(0, str(spec.dtype)), [flat])
        with T.serial(0, given) as flat:
            index = counted(indices[flat], size)
            with T.If(is_inside(index, size)), T.Then():
                T.buffer_store(y, x[flat], [index])

    return call(builder, "max_unpool", body, inputs[:2], [spec])


def reverse_sequence(builder: relax.BlockBuilder, graph: Graph, node: Node,
                     inputs: list[relax.Expr]) -> list[relax.Expr]:
    """The first elements of each sequence, as many as it is long, in reverse order."""
    spec = graph.specs[node.output]
    batch, time = node.attributes.get("batch_axis", 1), node.attributes.get("time_axis", 0)

    def body(x: Buffer, lengths: Buffer, y: Buffer) -> None:
        with T.serial(0, math.prod(spec.shape)) as flat:
            position = coordinates(flat, spec.shape)
            length = tirx.min(T.cast(lengths[position[batch]], "int32"), tirx.const(spec.shape[time], "int32"))
            step = position[time]
            position[time] = tirx.Select(step < length, length - 1 - step, step)
            T.buffer_store(y, x[place(position, spec.shape)], [flat])

    return call(builder, "reverse_sequence", body, inputs, [spec])


def _read(x: Buffer, at: Expr, inside: Expr, y: Buffer, to: Expr, dtype: np.dtype) -> None:
    nothing = tirx.const(math.nan if np.issubdtype(dtype, np.floating) else 0, str(dtype))
    with T.If(inside):
        with T.Then():
            T.buffer_store(y, x[at], [to])
        with T.Else():
            T.buffer_store(y, nothing, [to])


def _copy(x: Buffer, y: Buffer, count: int) -> None:
    with T.serial(0, count) as flat:
        T.buffer_store(y, x[flat], [flat])


def _position(indices: Buffer, start: Expr, shape: tuple[int, ...]) -> tuple[Expr, Expr]:
    """Where the position lies that stands in `indices` from `start` on, and whether it lies inside."""
    found: list[Expr] = [counted(indices[start + axis], size) for axis, size in enumerate(shape)]
    inside: Expr = tirx.const(1, "bool")
    for index, size in zip(found, shape, strict=True):
        inside = tirx.And(inside, is_inside(index, size))
    at = sum((index * stride for index, stride in zip(found, strides(shape), strict=True)), tirx.const(0, "int32"))
    return T.bind(at), T.bind(inside)
