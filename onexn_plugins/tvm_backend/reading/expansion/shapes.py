"""Padding by a value that is computed, Split into parts of which some are empty, Slice from beyond the end, and
Transpose of a scalar.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def pad(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Padded by zeros, then the value where there was nothing. A value that is known, in the type of what is padded:
    the converter of old models makes a float32 of each.
    """
    value, dtype = graph.constant(node, 2), graph.dtype(node.inputs[0])
    if value is not None and value.size and value.dtype != dtype:
        return [node.rewired({node.input(2): graph.add_constant(value.astype(dtype), node.input(2))})]
    amounts, axes = graph.constant(node, 1), graph.constant(node, 3)
    if (not node.input(2) or node.input(2) in graph.constants or amounts is None or (node.input(3) and axes is None)
            or node.text("mode", "constant") != "constant"):
        return None
    shape, rank = graph.shape(node.inputs[0]), len(graph.shape(node.inputs[0]))
    named = [int(axis) % rank for axis in (range(rank) if axes is None else axes.tolist())]
    around = np.zeros((rank, 2), np.int64)
    around[named] = amounts.reshape(2, -1).T
    inside = np.zeros(np.array(shape) + around.sum(1), np.bool_)
    # Less than nothing is cut off at that end, and nothing is put there.
    inside[tuple(slice(max(before, 0), size - max(after, 0)) for (before, after), size in zip(
        around.tolist(), inside.shape, strict=True))] = True
    write = Writer(graph, node)
    padded = write("Pad", node.inputs[0], write.integers(*around.T.reshape(-1).tolist()))
    scalar = write("Reshape", node.inputs[2], write.integers())
    write("Where", graph.add_constant(inside, "inside"), padded, scalar, to=node.output)
    return write.nodes


def split(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Parts without an element are left to be seen as known; the others are slices."""
    shape = graph.shape(node.inputs[0])
    axis = node.attributes.get("axis", 0) % len(shape)
    sizes = node.attributes.get("split") if graph.opset < 13 else graph.constant(node, 1)
    if sizes is None and (not node.input(1)):
        count = len(node.proto.output)
        each = -(-shape[axis] // count)
        sizes = np.clip(shape[axis] - each * np.arange(count), 0, each)
    if sizes is None or all(sizes) or sum(sizes) != shape[axis]:
        return None
    write, starts = Writer(graph, node), np.cumsum([0, *sizes])
    for name, start, end in zip(node.proto.output, starts[:-1].tolist(), starts[1:].tolist(), strict=False):
        if name:
            write("Slice", node.inputs[0], write.integers(start), write.integers(end), write.integers(axis), to=name)
    return write.nodes


# Before the first element, for an end that counts backwards; from -1 on ends count from behind.
_BEFORE = -2**31


def slices(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Starts, ends and axes as what they are clamped to, so that nothing is left to whoever reads them."""
    shape, given = graph.shape(node.inputs[0]), [graph.constant(node, place) for place in range(1, 5)]
    if any(name and value is None for name, value in zip(node.inputs[1:], given, strict=False)):
        return None
    starts, ends = (value.reshape(-1).tolist() for value in given[:2] if value is not None)
    axes = range(len(starts)) if given[2] is None else (int(axis) % len(shape) for axis in given[2].reshape(-1))
    steps = [1] * len(starts) if given[3] is None else given[3].reshape(-1).tolist()
    whole = [(*_clamped(start, end, step, shape[axis]), axis, step)
             for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)]
    asked = [list(items) for items in zip(*whole, strict=True)]
    if not whole or asked == [None if value is None else value.reshape(-1).tolist() for value in given]:
        return None
    write = Writer(graph, node)
    write("Slice", node.inputs[0], *(write.integers(*items) for items in asked), to=node.output)
    return write.nodes


def _clamped(start: int, end: int, step: int, size: int) -> tuple[int, int]:
    """Into the axis, as the standard says: counted backwards the last element is the highest start."""
    start, end = (place + size if place < 0 else place for place in (start, end))
    if step > 0:
        return min(max(start, 0), size), min(max(end, 0), size)
    end = min(max(end, -1), size - 1)
    return min(max(start, 0), size - 1), _BEFORE if end < 0 else end


def transpose(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Of a scalar there is nothing to turn, and older opsets tell no shape of it."""
    return None if graph.shape(node.inputs[0]) else [Node.make("Identity", node.inputs, node.outputs, node.name)]
