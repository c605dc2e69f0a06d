"""Normalisations, by the mean of the squared deviation: the standard's definitions subtract squares, which leaves
nothing right of a small deviation from a large mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def group_normalization(graph: Graph, node: Node) -> Iterator[Node]:
    """Scale and bias are one value per channel, as since opset 21; what opset 18 had is deprecated."""
    x, scale, bias = node.inputs
    shape, groups = graph.shape(x), node.attributes["num_groups"]
    write = Writer(graph, node)
    rows = write("Reshape", x, write.integers(shape[0], groups, math.prod(shape[1:]) // groups))
    normalised, _, _ = _normalised(write, rows, [2], _epsilon(node))
    per_channel = write.integers(1, shape[1], *(1 for _ in shape[2:]))
    scaled = write("Mul", write("Reshape", normalised, write.integers(*shape)), write("Reshape", scale, per_channel))
    write("Add", scaled, write("Reshape", bias, per_channel), to=node.output)
    yield from write.nodes


def layer_normalization(graph: Graph, node: Node) -> Iterator[Node] | None:
    """Only where more than its first output is asked for, or in float64: as a whole, which TVM has in float32, it is
    faster.
    """
    as_parts = len(node.outputs) > 1 or graph.dtype(node.inputs[0]) != np.float32
    return _layer_normalization(graph, node) if as_parts else None


def _layer_normalization(graph: Graph, node: Node) -> Iterator[Node]:
    rank = len(graph.shape(node.inputs[0]))
    axes = list(range(node.attributes.get("axis", -1) % rank, rank))
    write = Writer(graph, node)
    normalised, mean, inverse = _normalised(write, node.inputs[0], axes, _epsilon(node))
    scaled = write("Mul", normalised, node.inputs[1])
    write("Add" if node.input(2) else "Identity", scaled, *filter(None, [node.input(2)]), to=node.output)
    for name, value in zip(node.proto.output[1:], (mean, inverse), strict=False):
        if name:  # in float32, whatever is normalised
            write.cast(value, np.dtype(np.float32), to=name)
    yield from write.nodes


def mean_variance_normalization(graph: Graph, node: Node) -> Iterator[Node]:
    write = Writer(graph, node)
    axes = node.attributes.get("axes", [0, 2, 3])
    deviation, spread = _deviation(write, node.inputs[0], axes)[1:]
    write("Div", deviation, write("Add", write("Sqrt", spread), write.number(1e-9)), to=node.output)
    yield from write.nodes


def lp_normalization(graph: Graph, node: Node) -> Iterator[Node]:
    """x / norm, and 0 where the norm is 0."""
    write, x = Writer(graph, node), node.inputs[0]
    axis, order = node.attributes.get("axis", -1), node.attributes.get("p", 2)
    norm = write.reduce("ReduceL1" if order == 1 else "ReduceL2", x, [axis])
    quotient = write("Div", x, norm)
    write("Where", write("Equal", norm, write.number(0)), write.number(0), quotient, to=node.output)
    yield from write.nodes


def _normalised(write: Writer, x: str, axes: list[int], epsilon: float) -> tuple[str, str, str]:
    """x without its mean and with deviation 1; the mean; what it was multiplied by."""
    mean, deviation, variance = _deviation(write, x, axes)
    inverse = write("Reciprocal", write("Sqrt", write("Add", variance, write.number(epsilon))))
    return write("Mul", deviation, inverse), mean, inverse


def _deviation(write: Writer, x: str, axes: list[int]) -> tuple[str, str, str]:
    """Mean, x without it, and the mean of that squared."""
    mean = write.reduce("ReduceMean", x, axes)
    deviation = write("Sub", x, mean)
    return mean, deviation, write.reduce("ReduceMean", write("Mul", deviation, deviation), axes)


def _epsilon(node: Node) -> float:
    return float(np.float32(node.attributes.get("epsilon", 1e-5)))
