"""LpPool as a depthwise convolution of powers, which kernels compute; GlobalMaxPool as a reduction; Resize of whole
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

_TAKEN = ("strides", "pads", "dilations", "auto_pad")


def lp_pool(graph: Graph, node: Node) -> Iterable[Node] | None:
    """The p-th root of the sum of |x|^p under each window."""
    shape, dtype = graph.shape(node.inputs[0]), graph.dtype(node.inputs[0])
    kernel, order = node.attributes["kernel_shape"], float(node.attributes.get("p", 2))
    if len(kernel) != len(shape) - 2:
        return None
    attributes = {name: value for name, value in node.attributes.items() if name in _TAKEN}
    if node.attributes.get("ceil_mode", 0) and node.text("auto_pad", "NOTSET") in ("NOTSET", "VALID"):
        attributes |= {"auto_pad": "NOTSET", "pads": _reaching(shape[2:], kernel, attributes)}
    write = Writer(graph, node)
    weight = graph.add_constant(np.ones((shape[1], 1, *kernel), dtype), "ones")
    powers = write("Pow", write("Abs", node.inputs[0]), write.number(order))
    total = write("Conv", powers, weight, group=shape[1], kernel_shape=kernel, **attributes)
    write("Pow", total, write.number(1 / order), to=node.output)
    return write.nodes


def global_max_pool(graph: Graph, node: Node) -> Iterable[Node] | None:
    axes = list(range(2, len(graph.shape(node.inputs[0]))))
    if not axes:
        return None
    write = Writer(graph, node)
    write.reduce("ReduceMax", node.inputs[0], axes, to=node.output)
    return write.nodes


def resize(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Of whole numbers in between: in float32, cut afterwards."""
    dtype = graph.dtype(node.inputs[0])
    if node.text("mode", "nearest") == "nearest" or not np.issubdtype(dtype, np.integer):
        return None
    write = Writer(graph, node)
    wide = write.cast(node.inputs[0], np.dtype(np.float32))
    write.cast(write("Resize", wide, *node.inputs[1:], **node.attributes), dtype, to=node.output)
    return write.nodes


def _reaching(image: tuple[int, ...], kernel: list[int], attributes: dict[str, list[int]]) -> list[int]:
    """Padding that makes room for the last windows, which begin inside the image or the padding before it."""
    rank = len(image)
    strides, dilations = (attributes.get(name, [1] * rank) for name in ("strides", "dilations"))
    pads = list(attributes.get("pads", [0] * (2 * rank)))
    for axis, size in enumerate(image):
        reach = (kernel[axis] - 1) * dilations[axis] + 1
        padded = size + pads[axis] + pads[rank + axis]
        last = -(-(padded - reach) // strides[axis]) * strides[axis]
        if last >= size + pads[axis]:
            last -= strides[axis]
        pads[rank + axis] += max(last + reach - padded, 0)
    return pads
