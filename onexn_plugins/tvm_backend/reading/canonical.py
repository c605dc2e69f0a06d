"""Brings operators that say the same thing into one form, so that every later rule has to know one form only.

Each rule looks at one node. It returns the nodes that replace it (none, if its output is one of its inputs), or None
where it does not apply.

    Identity                        gone
    Flatten, Squeeze, Unsqueeze     Reshape to a constant shape
    ConvTranspose of stride 1       Conv
    Conv, MaxPool, AveragePool      explicit pads instead of auto_pad
    BatchNormalization              Mul and Add of one constant per channel
    Sub of a constant               Add
    Div by a power of two or 0      Mul
    ReduceMean over the image       GlobalAveragePool
    Resize                          no input where an empty constant says so
    MatMul, Gemm by a weight        Gemm(x [rows, in], weight [out, in], bias [out]), transB=1
    Gemm of two activations         Transpose, MatMul, Mul and Add, as it is defined
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec
from onexn_plugins.tvm_backend.reading.transposed import as_convolution

Rule = Callable[[Graph, Node], "list[Node] | None"]


def canonicalise(graph: Graph) -> None:
    """Apply the rules to every node, in place."""
    renamed: dict[str, str] = {}
    nodes: list[Node] = []
    for node in graph.nodes:
        node = node.rewired(renamed)
        rule = RULES.get(node.op)
        replacement = rule(graph, node) if rule is not None else None
        if replacement == []:
            renamed[node.output] = node.inputs[0]
        else:
            nodes.extend([node] if replacement is None else replacement)
    graph.nodes = nodes
    graph.outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    graph.prune()


def _drop(graph: Graph, node: Node) -> list[Node]:
    return []


def _reshape(graph: Graph, node: Node) -> list[Node] | None:
    if node.inputs[0] in graph.constants:
        return None
    if graph.shape(node.output) == graph.shape(node.inputs[0]):
        return []
    return [reshape(graph, node.inputs[0], node.output, node.name)]


def reshape(graph: Graph, source: str, output: str, name: str = "") -> Node:
    """A Reshape of `source` to the shape that `output` has."""
    shape = graph.add_constant(np.array(graph.shape(output), np.int64), "shape")
    return Node.make("Reshape", [source, shape], [output], name)


def _explicit_padding(graph: Graph, node: Node) -> list[Node] | None:
    mode = node.text("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return None
    attributes = {key: value for key, value in node.attributes.items() if key != "auto_pad"}
    image = graph.shape(node.inputs[0])[2:]
    kernel = attributes.get("kernel_shape") or graph.shape(node.inputs[1])[2:]
    attributes["pads"] = _pads(mode, image, kernel, attributes)
    return [Node.make(node.op, node.inputs, node.outputs, node.name, **attributes)]


def _pads(mode: str, image: Sequence[int], kernel: Sequence[int], attributes: dict[str, list[int]]) -> list[int]:
    """Padding at the beginning of every axis, then at the end. "SAME" makes ceil(size / stride) outputs."""
    strides = attributes.get("strides", [1] * len(image))
    dilations = attributes.get("dilations", [1] * len(image))
    if mode == "VALID":
        return [0] * (2 * len(image))
    totals = [
        max((-(-size // stride) - 1) * stride + (taps - 1) * dilation + 1 - size, 0)
        for size, taps, stride, dilation in zip(image, kernel, strides, dilations, strict=True)
    ]
    smaller, larger = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return smaller + larger if mode == "SAME_UPPER" else larger + smaller


def _batch_norm(graph: Graph, node: Node) -> list[Node] | None:
    parameters = [graph.constant(node, position) for position in (1, 2, 3, 4)]
    if is_training(node) or any(value is None for value in parameters):
        return None
    gamma, beta, mean, variance = (value.astype(np.float64) for value in parameters if value is not None)
    source, dtype = node.inputs[0], graph.dtype(node.inputs[0])
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + node.attributes.get("epsilon", 1e-5))
        shift = beta - mean * scale
        # A channel without variance, where epsilon is 0 or too small, has no such constants.
        if not np.isfinite([scale.astype(dtype), shift.astype(dtype)]).all():
            return None
    per_channel = (-1, *(1 for _ in graph.shape(source)[2:]))
    scaled = graph.add_value(graph.specs[node.output], node.output)
    factors = graph.add_constant(scale.astype(dtype).reshape(per_channel), node.inputs[1])
    offsets = graph.add_constant(shift.astype(dtype).reshape(per_channel), node.inputs[2])
    return [Node.make("Mul", [source, factors], [scaled], node.name),
            Node.make("Add", [scaled, offsets], [node.output], node.name)]


def is_training(node: Node) -> bool:
    """Whether a BatchNormalization takes its statistics from the batch."""
    return bool(node.attributes.get("training_mode", 0))


def _subtract(graph: Graph, node: Node) -> list[Node] | None:
    value = graph.constant(node, 1)
    if value is None or not np.issubdtype(value.dtype, np.floating):
        return None
    return [Node.make("Add", [node.inputs[0], graph.add_constant(-value, node.inputs[1])], node.outputs, node.name)]


def _divide(graph: Graph, node: Node) -> list[Node] | None:
    value = graph.constant(node, 1)
    if value is None or not np.issubdtype(value.dtype, np.floating):
        return None
    with np.errstate(all="ignore"):
        inverse = 1 / value
    # Another inverse would be rounded: 49 / 49 is 1 and 49 × 1/49 is less, which shows where it is floored. A quotient
    # by 0 is a product with infinity.
    exact = (np.isfinite(inverse) & (np.abs(np.frexp(value)[0]) == 0.5)) | (value == 0)
    if not exact.all():
        return None
    return [Node.make("Mul", [node.inputs[0], graph.add_constant(inverse, node.inputs[1])], node.outputs, node.name)]


def _global_average(graph: Graph, node: Node) -> list[Node] | None:
    shape = graph.shape(node.inputs[0])
    axes = node.attributes.get("axes")
    if axes is None and (listed := graph.constant(node, 1)) is not None:
        axes = listed.tolist()
    if len(shape) != 4 or axes is None or sorted(axis % 4 for axis in axes) != [2, 3]:
        return None
    if graph.dtype(node.inputs[0]) != np.float32:
        return None
    if node.attributes.get("keepdims", 1):
        return [Node.make("GlobalAveragePool", node.inputs[:1], node.outputs, node.name)]
    pooled = graph.add_value(TensorSpec((*shape[:2], 1, 1), graph.dtype(node.inputs[0])), node.output)
    return [Node.make("GlobalAveragePool", node.inputs[:1], [pooled], node.name),
            reshape(graph, pooled, node.output, node.name)]


def _matmul(graph: Graph, node: Node) -> list[Node] | None:
    weight = graph.constant(node, 1)
    if weight is None or weight.ndim != 2 or weight.dtype != np.float32 or len(graph.shape(node.inputs[0])) < 2:
        return None
    return _linear(graph, node, weight.T, np.zeros(weight.shape[1], np.float32))


def _gemm(graph: Graph, node: Node) -> list[Node] | None:
    weight, attributes = graph.constant(node, 1), node.attributes
    if len(graph.activations(node)) > 1 and weight is None and node.inputs[0] not in graph.constants:
        return _gemm_of_activations(graph, node)
    if weight is None or weight.dtype != np.float32 or attributes.get("transA", 0):
        return None
    weight = weight if attributes.get("transB", 0) else weight.T
    bias = np.zeros(1, np.float32) if not node.input(2) else graph.constant(node, 2)
    if bias is None or bias.shape not in ((), (1,), (1, 1), (weight.shape[0],), (1, weight.shape[0])):
        return None  # one value per row, say
    bias = np.broadcast_to(bias.reshape(-1), weight.shape[:1]) * np.float32(attributes.get("beta", 1.0))
    alpha = np.float32(attributes.get("alpha", 1.0))
    return _linear(graph, node, weight if alpha == 1 else weight * alpha, bias)


def _gemm_of_activations(graph: Graph, node: Node) -> list[Node] | None:
    """alpha × A' B' + beta × C."""
    attributes, spec = node.attributes, graph.specs[node.output]
    if spec.dtype != np.float32:
        return None
    steps: list[tuple[str, list[str]]] = []
    nodes: list[Node] = []
    operands = []
    for name, turned in zip(node.inputs[:2], ("transA", "transB"), strict=True):
        if attributes.get(turned, 0):
            shape = graph.shape(name)
            operands.append(graph.add_value(TensorSpec(shape[::-1], spec.dtype), name))
            nodes.append(Node.make("Transpose", [name], [operands[-1]], perm=[1, 0]))
        else:
            operands.append(name)
    steps.append(("MatMul", operands))

    def factor(name: str) -> str | None:
        value = attributes.get(name, 1.0)
        return None if value == 1 else graph.add_constant(np.array([value], np.float32), name)

    if (alpha := factor("alpha")) is not None:
        steps.append(("Mul", [alpha]))
    if node.input(2):
        added = node.input(2)
        if (beta := factor("beta")) is not None:
            scaled = graph.add_value(TensorSpec(graph.shape(added), spec.dtype), added)
            nodes.append(Node.make("Mul", [added, beta], [scaled]))
            added = scaled
        steps.append(("Add", [added]))
    value: list[str] = []
    for place, (op, names) in enumerate(steps):
        made = node.output if place == len(steps) - 1 else graph.add_value(spec, node.output)
        nodes.append(Node.make(op, [*value, *names], [made], node.name))
        value = [made]
    return nodes


def _resize(graph: Graph, node: Node) -> list[Node] | None:
    empty = {name: "" for name in node.inputs if name in graph.constants and graph.constants[name].size == 0}
    return [node.rewired(empty)] if empty else None


def _linear(graph: Graph, node: Node, weight: np.ndarray, bias: np.ndarray) -> list[Node]:
    source, features = node.inputs[0], weight.shape[0]
    constants = [graph.add_constant(np.ascontiguousarray(weight), node.inputs[1]),
                 graph.add_constant(np.ascontiguousarray(bias), node.input(2) or node.inputs[1])]
    shape, dtype = graph.shape(source), graph.dtype(source)
    if len(shape) == 2:
        return [Node.make("Gemm", [source, *constants], node.outputs, node.name, transB=1)]
    rows = int(np.prod(shape[:-1]))
    flat = graph.add_value(TensorSpec((rows, shape[-1]), dtype), source)
    product = graph.add_value(TensorSpec((rows, features), dtype), node.output)
    return [reshape(graph, source, flat),
            Node.make("Gemm", [flat, *constants], [product], node.name, transB=1),
            reshape(graph, product, node.output)]


RULES: dict[str, Rule] = {
    "Identity": _drop,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Conv": _explicit_padding,
    "ConvTranspose": as_convolution,
    "MaxPool": _explicit_padding,
    "AveragePool": _explicit_padding,
    "BatchNormalization": _batch_norm,
    "Sub": _subtract,
    "Div": _divide,
    "ReduceMean": _global_average,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "Resize": _resize,
}
