"""OneHot and Hardmax as a comparison with each place along an axis; MaxUnpool to a larger shape as one with zeros
around it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def one_hot(graph: Graph, node: Node) -> Iterable[Node] | None:
    depth = graph.constant(node, 1)
    if depth is None:
        return None
    count, shape = int(depth.reshape(())), graph.shape(node.inputs[0])
    axis = node.attributes.get("axis", -1) % (len(shape) + 1)
    write = Writer(graph, node)
    indices = write.cast(node.inputs[0], np.dtype(np.int64))
    # Negative ones count from the end; those that lie outside are nowhere.
    backwards = write("Add", indices, write.integers(count))
    indices = write("Where", write("Less", indices, write.integers(0)), backwards, indices)
    spread = write("Reshape", indices, write.integers(*shape[:axis], 1, *shape[axis:]))
    places = graph.add_constant(np.arange(count).reshape(-1, *(1 for _ in shape[axis:])), "places")
    off, on = (write("Gather", node.inputs[2], graph.add_constant(np.array(at), "place"), axis=0) for at in (0, 1))
    write("Where", write("Equal", spread, places), on, off, to=node.output)
    return write.nodes


def hardmax(graph: Graph, node: Node) -> Iterable[Node]:
    """1 at the first maximum along the axis; before opset 13, of everything from the axis on."""
    shape, dtype = graph.shape(node.inputs[0]), graph.dtype(node.inputs[0])
    flat = graph.opset < 13
    axis = node.attributes.get("axis", 1 if flat else -1) % len(shape)
    seen = (math.prod(shape[:axis]), math.prod(shape[axis:])) if flat else shape
    axis = 1 if flat else axis
    write = Writer(graph, node)
    x = write("Reshape", node.inputs[0], write.integers(*seen)) if flat else node.inputs[0]
    places = np.arange(seen[axis]).reshape(-1, *(1 for _ in seen[axis + 1:]))
    chosen = write("Equal", write("ArgMax", x, axis=axis, keepdims=1), graph.add_constant(places, "places"))
    write("Reshape", write.cast(chosen, dtype), write.integers(*shape), to=node.output)
    return write.nodes


def max_unpool(graph: Graph, node: Node) -> Iterable[Node] | None:
    """The places are those of the shape that pooling came from. Where they are a MaxPool's, of an image of the shape
    asked for, that one is it. Otherwise it follows from windows and strides, and the shape asked for continues it.
    """
    wanted = graph.constant(node, 2)
    if wanted is None:
        return None
    maker = next((item for item in graph.nodes if node.inputs[1] in item.outputs), None)
    if maker is not None and maker.op == "MaxPool" and list(graph.shape(maker.inputs[0])) == wanted.tolist():
        return _scattered(graph, node, wanted)
    rank, kernel = len(wanted) - 2, node.attributes["kernel_shape"]
    strides, pads = node.attributes.get("strides", [1] * rank), node.attributes.get("pads", [0] * (2 * rank))
    pooled = [(size - 1) * strides[axis] - pads[axis] - pads[rank + axis] + kernel[axis]
              for axis, size in enumerate(graph.shape(node.inputs[0])[2:])]
    write = Writer(graph, node)
    spread = write("MaxUnpool", *node.inputs[:2], **node.attributes)
    more = [0, 0, *(int(size) - before for size, before in zip(wanted[2:], pooled, strict=True))]
    write("Pad", spread, write.integers(*(0 for _ in wanted), *more), to=node.output)
    return write.nodes


def _scattered(graph: Graph, node: Node, shape: np.ndarray) -> Iterable[Node]:
    """Each value at its place in a tensor of that shape that is zero elsewhere."""
    write = Writer(graph, node)
    zeros = graph.add_constant(np.zeros(math.prod(shape.tolist()), graph.dtype(node.inputs[0])), "zeros")
    values, places = (write("Reshape", name, write.integers(-1)) for name in node.inputs[:2])
    write("Reshape", write("ScatterElements", zeros, places, values), write.integers(*shape.tolist()), to=node.output)
    return write.nodes
