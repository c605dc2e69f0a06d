"""Operators that only move elements: Concat, Pad by what the image holds, Tile, SpaceToDepth, DepthToSpace."""

from __future__ import annotations

from functools import partial, reduce
from itertools import accumulate

import numpy as np
from tvm import relax, te, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.lowering.operators.layout import around
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec

_MODES = ("reflect", "edge", "wrap")


def concatenate(builder: relax.BlockBuilder, graph: Graph, node: Node,
                inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Along the last axis: runs of every input, copied one input after the other.

    TVM asks of each element which input it is from; along other axes the answer is the same for a whole row, and what
    stands before and after is computed with it.
    """
    shape, axis = graph.shape(node.output), node.attributes["axis"]
    outer, size, inner = around(shape, axis)
    if inner > 1:
        return None
    runs = [around(graph.shape(name), axis)[1] for name in node.inputs]

    def body(*tensors: Buffer) -> None:
        *parts, whole = tensors
        for part, run, first in zip(parts, runs, accumulate(runs, initial=0), strict=False):
            with T.serial(0, outer) as before, T.serial(0, run) as after:
                T.buffer_store(whole, part[before * run + after], [before * size + (after + first)])

    return call(builder, "concatenate", body, inputs, [TensorSpec(shape, graph.dtype(node.output))])


def pad(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Known amounts, some of which may be negative; elements before the first and behind the last one are copies."""
    amounts, axes = graph.constant(node, 1), graph.constant(node, 3)
    mode, shape = node.text("mode", "constant"), graph.shape(node.inputs[0])
    if amounts is None or mode not in _MODES or (node.input(3) and axes is None):
        return None
    named = [int(axis) % len(shape) for axis in (range(len(shape)) if axes is None else axes.tolist())]
    value = inputs[0]
    for axis, before, after in zip(named, amounts[:len(named)].tolist(), amounts[len(named):].tolist(), strict=True):
        if before or after:
            value = _taken(builder, value, _padded(shape[axis], before, after, mode), axis)
    return [builder.emit(value)]


def tile(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Known repeats."""
    repeats = graph.constant(node, 1)
    if repeats is None:
        return None
    value = inputs[0]
    for axis, count in enumerate(repeats.tolist()):
        if count != 1:
            value = _taken(builder, value, np.tile(np.arange(graph.shape(node.inputs[0])[axis]), count), axis)
    return [builder.emit(value)]


def depth_to_space(builder: relax.BlockBuilder, graph: Graph, node: Node,
                   inputs: list[relax.Expr]) -> list[relax.Expr]:
    """Channels become pixels: in the order depth, column, row, or column, row, depth."""
    batch, channels, height, width = graph.shape(node.inputs[0])
    block = node.attributes["blocksize"]
    depth = channels // block**2
    if node.text("mode", "DCR") == "CRD":
        parts, order = (batch, depth, block, block, height, width), (0, 1, 4, 2, 5, 3)
    else:
        parts, order = (batch, block, block, depth, height, width), (0, 3, 4, 1, 5, 2)
    return _rearranged(builder, inputs[0], parts, order, graph.shape(node.output))


def space_to_depth(builder: relax.BlockBuilder, graph: Graph, node: Node,
                   inputs: list[relax.Expr]) -> list[relax.Expr]:
    """Pixels become channels: in the order column, row, depth, or depth, column, row (mode CRD)."""
    batch, channels, height, width = graph.shape(node.inputs[0])
    block = node.attributes["blocksize"]
    parts = (batch, channels, height // block, block, width // block, block)
    order = (0, 1, 3, 5, 2, 4) if node.text("mode", "DCR") == "CRD" else (0, 3, 5, 1, 2, 4)
    return _rearranged(builder, inputs[0], parts, order, graph.shape(node.output))


def _rearranged(builder: relax.BlockBuilder, value: relax.Expr, parts: tuple[int, ...], order: tuple[int, ...],
                shape: tuple[int, ...]) -> list[relax.Expr]:
    """A tensor, seen in parts that change places."""
    steps = (lambda x: relax.op.reshape(x, parts), lambda x: relax.op.permute_dims(x, order),
             lambda x: relax.op.reshape(x, shape))
    return [reduce(lambda x, step: builder.emit(step(x)), steps, value)]


def _padded(size: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which element stands at each place; amounts below 0 cut off."""
    kept = np.arange(max(-before, 0), size - max(-after, 0))
    grown = (max(before, 0), max(after, 0))
    return np.pad(kept, grown, "edge" if mode == "reflect" and len(kept) == 1 else mode)  # type: ignore[call-overload]


def _taken(builder: relax.BlockBuilder, value: relax.Expr, places: np.ndarray, axis: int) -> relax.Expr:
    """The elements at these places of an axis."""
    return builder.emit_te(partial(_gather, axis), value, relax.const(places.astype(np.int32)),
                           primfunc_name_hint="moved")


def _gather(axis: int, x: te.Tensor, places: te.Tensor) -> te.Tensor:
    shape = [*x.shape[:axis], places.shape[0], *x.shape[axis + 1:]]

    def element(*position: tirx.Var) -> tirx.Expr:
        return x[(*position[:axis], places[position[axis]], *position[axis + 1:])]

    return te.compute(shape, element, "moved")
