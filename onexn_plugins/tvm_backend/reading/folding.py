"""Folds what stands around a convolution or linear layer into its weights, bias and padding.

    Mul, Div by one constant per channel      into weight and bias (a zero block stays zero)
    Add of one constant per output channel    into the bias, unless it is so large that adding it rounds
    Pad with zeros before a convolution       into its padding
"""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.reading.graph import Graph, Node
from onexn_plugins.tvm_backend.reading.transposed import groups_of, per_output

# Beyond this a sum in float32 has lost what layers compute: 1.5 * 2^23, added and taken away, rounds to whole numbers.
_LARGEST_ADDED = 2.0**20
_COMBINE = {"Mul": np.multiply, "Div": np.divide, "Add": np.add}


def fold_layers(graph: Graph) -> None:
    """Fold every such neighbour, in place; afterwards each convolution, transposed or not, with a constant weight has a
    constant bias.
    """
    graph.nodes = [_with_bias(graph, node) for node in graph.nodes]
    single = graph.single_consumers()
    nodes: list[Node] = []
    made_at: dict[str, int] = {}
    for node in graph.nodes:
        merged = _merge(graph, node, nodes, made_at, single)
        if merged is None:
            made_at.update(dict.fromkeys(node.outputs, len(nodes)))
            nodes.append(node)
        else:
            position, merged_node = merged
            made_at[merged_node.output] = position
            nodes[position] = merged_node
    graph.nodes = nodes
    graph.prune()


def has_weight(graph: Graph, node: Node) -> bool:
    """A Conv, ConvTranspose, or Gemm in canonical form, with float32 weight and bias known now."""
    weight, bias = graph.constant(node, 1), graph.constant(node, 2)
    canonical = node.op in ("Conv", "ConvTranspose") or (node.op == "Gemm" and bool(node.attributes.get("transB")))
    return canonical and weight is not None and bias is not None and weight.dtype == bias.dtype == np.float32


def _with_bias(graph: Graph, node: Node) -> Node:
    weight = graph.constant(node, 1)
    if node.op not in ("Conv", "ConvTranspose") or node.input(2) or weight is None:
        return node
    channels = graph.shape(node.output)[1]
    bias = graph.add_constant(np.zeros(channels, weight.dtype), node.inputs[1])
    return Node.make(node.op, [*node.inputs[:2], bias], node.outputs, node.name, **node.attributes)


def _merge(
    graph: Graph, node: Node, nodes: list[Node], made_at: dict[str, int], single: dict[str, Node]
) -> tuple[int, Node] | None:
    """Which earlier node takes this one in, and what it becomes; None where none does."""
    for source in graph.activations(node):
        if source not in made_at or source not in single:
            continue
        position = made_at[source]
        before = nodes[position]
        merged = None
        if node.op in ("Mul", "Add", "Div") and has_weight(graph, before):
            merged = _absorb_constant(graph, before, node)
        elif node.op == "Conv" and before.op == "Pad" and has_weight(graph, node):
            merged = _absorb_padding(graph, before, node)
        if merged is not None:
            return position, merged
    return None


def _absorb_constant(graph: Graph, layer: Node, node: Node) -> Node | None:
    """`layer` with the constant that `node` multiplies, divides by or adds."""
    position = next((place for place, name in enumerate(node.inputs) if name in graph.constants), None)
    if position is None or (node.op == "Div" and position == 0):
        return None
    operand = graph.constants[node.inputs[position]]
    if operand.dtype != np.float32 or graph.shape(node.output) != graph.shape(layer.output):
        return None
    weight, bias = graph.constants[layer.inputs[1]], graph.constants[layer.inputs[2]]
    values = _per_channel(operand, len(graph.shape(layer.output)), 1, len(bias))
    if values is None or (node.op == "Add" and (np.abs(values) > _LARGEST_ADDED).any()):
        return None
    weight_name, combine = layer.inputs[1], _COMBINE[node.op]
    with np.errstate(all="ignore"):
        shifted = combine(bias, values)
        factors = (per_output(values, weight.shape, groups_of(layer)) if layer.op == "ConvTranspose" else
                   values.reshape(-1, *(1 for _ in weight.shape[1:])))
        scaled = weight if node.op == "Add" else combine(weight, factors)
    # What overflows, or is rounded to few digits, would do so for every input.
    if not np.isfinite(shifted).all() or (scaled is not weight and _loses(weight, scaled, factors)):
        return None
    if scaled is not weight:
        weight_name = graph.add_constant(scaled, weight_name)
    names = [layer.inputs[0], weight_name, graph.add_constant(shifted, layer.inputs[2])]
    return Node.make(layer.op, names, node.outputs, layer.name, **layer.attributes)


def _loses(weight: np.ndarray, scaled: np.ndarray, factors: np.ndarray) -> bool:
    """Whether a weight is infinite when scaled, or has lost digits as a denormal number; a factor of 0 is exact."""
    smallest = np.finfo(np.float32).tiny
    vanished = (np.abs(scaled) < smallest) & (np.abs(weight) >= smallest) & (factors != 0)
    return not np.isfinite(scaled).all() or bool(vanished.any())


def _per_channel(operand: np.ndarray, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """The operand as one value per channel, where it varies along no other axis."""
    shape = (1,) * (rank - operand.ndim) + operand.shape
    if len(shape) != rank or any(size != 1 for index, size in enumerate(shape) if index != axis):
        return None
    return np.broadcast_to(operand.reshape(-1), (channels,)) if shape[axis] in (1, channels) else None


def _absorb_padding(graph: Graph, pad: Node, conv: Node) -> Node | None:
    pads, rank = graph.constant(pad, 1), len(graph.shape(pad.output))
    value = graph.constant(pad, 2)
    if pad.input(2) and value is None:
        return None
    if pads is None or pad.input(3) or pad.text("mode", "constant") != "constant" or len(pads) != 2 * rank:
        return None
    if (value is not None and value.any()) or (pads < 0).any() or pads[[0, 1, rank, rank + 1]].any():
        return None
    around = np.array(conv.attributes.get("pads", [0] * (2 * (rank - 2)))) + np.delete(pads, [0, 1, rank, rank + 1])
    attributes = conv.attributes | {"pads": around.tolist()}
    return Node.make("Conv", [pad.inputs[0], *conv.inputs[1:]], conv.outputs, conv.name, **attributes)
