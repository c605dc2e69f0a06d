"""ConvTranspose to a given shape; and dilated where no kernel takes it, as a convolution of pixels with zeros between
them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import Graph, Node
from onexn_plugins.tvm_backend.reading.transposed import as_conv_weight, groups_of


def conv_transpose(graph: Graph, node: Node) -> Iterable[Node] | None:
    """Padding as numbers instead of the shape or rule that it follows from."""
    mode, wanted = node.text("auto_pad", "NOTSET"), node.attributes.get("output_shape")
    if mode == "NOTSET" and not wanted:
        return _spread(graph, node) if _lacks_kernel(graph, node) else None
    image, weight = graph.shape(node.inputs[0])[2:], graph.shape(node.inputs[1])[2:]
    replaced = ("auto_pad", "output_shape", "pads")
    attributes = {key: value for key, value in node.attributes.items() if key not in replaced}
    strides, dilations = (attributes.get(name, [1] * len(image)) for name in ("strides", "dilations"))
    more = list(attributes.get("output_padding", [0] * len(image)))
    if mode == "VALID" and not wanted:
        return [Node.make(node.op, node.inputs, node.outputs, node.name, **attributes)]
    sizes = list(wanted or [size * stride for size, stride in zip(image, strides, strict=True)])[-len(image):]
    begins, ends = [], []
    for axis, size in enumerate(sizes):
        total = (strides[axis] * (image[axis] - 1) + more[axis] + (weight[axis] - 1) * dilations[axis] + 1) - size
        more[axis] += max(-total, 0)
        smaller, larger = max(total, 0) // 2, max(total, 0) - max(total, 0) // 2
        begins.append(smaller if mode == "SAME_UPPER" else larger)
        ends.append(larger if mode == "SAME_UPPER" else smaller)
    attributes |= {"pads": begins + ends, "output_padding": more}
    return [Node.make(node.op, node.inputs, node.outputs, node.name, **attributes)]


def _lacks_kernel(graph: Graph, node: Node) -> bool:
    """Whether TVM would compute a dilated one: it multiplies zeros between the taps, and zero times NaN is NaN."""
    dilated = any(gap != 1 for gap in node.attributes.get("dilations", ()))
    known = all(name in graph.constants for name in node.inputs[1:] if name)
    shape, dtype = graph.shape(node.inputs[0]), graph.dtype(node.inputs[0])
    return dilated and not (known and len(shape) < 5 and dtype == np.float32)


def _spread(graph: Graph, node: Node) -> Iterable[Node]:
    write, attributes = Writer(graph, node), node.attributes
    shape, kernel = graph.shape(node.inputs[0]), graph.shape(node.inputs[1])[2:]
    axes, groups = range(len(kernel)), groups_of(node)
    strides, dilations = (attributes.get(name, [1] * len(kernel)) for name in ("strides", "dilations"))
    pads = attributes.get("pads", [0] * (2 * len(kernel)))
    more = attributes.get("output_padding", [0] * len(kernel))
    reach = [(taps - 1) * gap for taps, gap in zip(kernel, dilations, strict=True)]
    # The zeros behind the last pixel are padding, too.
    before = [reach[axis] - pads[axis] for axis in axes]
    behind = [reach[axis] - pads[len(kernel) + axis] + more[axis] - (strides[axis] - 1) for axis in axes]
    apart = write("Reshape", node.inputs[0], write.integers(*shape[:2], *(n for size in shape[2:] for n in (size, 1))))
    gaps = [0, 0, *(n for stride in strides for n in (0, stride - 1))]
    wide = write("Pad", apart, write.integers(*(0 for _ in gaps), *gaps))
    image = write("Reshape", wide, write.integers(*shape[:2], *(size * stride for size, stride in zip(
        shape[2:], strides, strict=True))))
    padded = write("Pad", image, write.integers(0, 0, *before, 0, 0, *behind))
    write("Conv", padded, _turned(graph, write, node.inputs[1], groups), *node.inputs[2:], to=node.output,
          dilations=list(dilations), group=groups)
    return write.nodes


def _turned(graph: Graph, write: Writer, weight: str, groups: int) -> str:
    """[in, out / groups, *kernel] as [out, in / groups, *kernel], its taps turned round."""
    inputs, outputs, *kernel = graph.shape(weight)
    axes = tuple(range(2, 2 + len(kernel)))
    if weight in graph.constants:
        return graph.add_constant(np.flip(as_conv_weight(graph.constants[weight], groups), axes).copy(), weight)
    parts = write("Reshape", weight, write.integers(groups, inputs // groups, outputs, *kernel))
    swapped = write("Transpose", parts, perm=[0, 2, 1, *(axis + 1 for axis in axes)])
    rows = write("Reshape", swapped, write.integers(groups * outputs, inputs // groups, *kernel))
    last, before = write.integers(*(size - 1 for size in kernel)), write.integers(*(-2**31 for _ in kernel))
    return write("Slice", rows, last, before, write.integers(*axes), write.integers(*(-1 for _ in kernel)))
