"""Moves the reshape after a linear layer behind what is computed element by element on its result.

A linear layer on more than two axes is a Gemm on rows between two reshapes (see canonical). Bias, scale, residual and
activation come after the second one in the file; on rows they stand next to the Gemm, which takes them in.
"""

from __future__ import annotations

import numpy as np

from onexn_plugins.tvm_backend.reading.canonical import reshape
from onexn_plugins.tvm_backend.reading.graph import ELEMENTWISE, Graph, Node, TensorSpec


def sink_reshapes(graph: Graph) -> None:
    """Do every such operator on rows, in place."""
    makers = {node.output: node for node in graph.nodes}
    rows: dict[str, str] = {}  # values and what they are reshaped from
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op == "Reshape" and makers.get(node.inputs[0], node).op == "Gemm" and _keeps_rows(graph, node):
            rows[node.output] = node.inputs[0]
        nodes.extend(_on_rows(graph, node, rows) or [node])
    graph.nodes = nodes
    graph.prune()


def _keeps_rows(graph: Graph, node: Node) -> bool:
    return graph.shape(node.inputs[0])[-1:] == graph.shape(node.output)[-1:]


def _on_rows(graph: Graph, node: Node, rows: dict[str, str]) -> list[Node] | None:
    """The operator on rows and a reshape of its result; other activations are reshaped as well."""
    known = [name for name in graph.activations(node) if name in rows]
    shape = graph.shape(node.output)
    if not known or node.op not in ELEMENTWISE or any(graph.shape(name) != shape for name in graph.activations(node)):
        return None
    spec = graph.specs[rows[known[0]]]
    constants = {name: graph.constants[name] for name in node.inputs if name in graph.constants}
    if not all(_is_per_feature(value, shape) for value in constants.values()):
        return None
    names = {name: rows[name] for name in known}
    before = []
    for name in graph.activations(node):
        if name not in names:
            names[name] = graph.add_value(TensorSpec(spec.shape, graph.dtype(name)), name)
            before.append(reshape(graph, name, names[name]))
    for name, value in constants.items():
        if value.ndim > 2:
            names[name] = graph.add_constant(value.reshape(-1), name)
    result = graph.add_value(TensorSpec(spec.shape, graph.dtype(node.output)), node.output)
    rows[node.output] = result
    moved = Node.make(node.op, [names.get(name, name) for name in node.inputs], [result], node.name, **node.attributes)
    return [*before, moved, reshape(graph, result, node.output)]


def _is_per_feature(value: np.ndarray, shape: tuple[int, ...]) -> bool:
    """One number, or one for each element of the last axis."""
    return value.size == 1 or (value.size == shape[-1] and value.shape[-1:] == shape[-1:])
