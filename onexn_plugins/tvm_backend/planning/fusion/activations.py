"""Which activation follows a layer, told by what the nodes compute: every exporter spells SiLU, hard-swish or GELU
its own way.

Nodes that read nothing but the layer's result and scalars are run on sample points, one after the other. Where one
value is all that comes out of them, it is compared with the activations that kernels know; the longest match is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import numpy as np

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.graph import ELEMENTWISE, Graph, Node, evaluate

Consumers = Mapping[str, Sequence[Node]]

# The bends of every activation and what lies between them, the tails, and numbers at which exp is still finite.
_SAMPLES = np.concatenate([np.linspace(-9, 9, 289), [-80, -20, 20, 80]]).astype(np.float32)
# What spellings lose to rounding; GELU by tanh is 5e-4 away from GELU.
_TOLERANCE = 1e-5
_MOST_NODES = 8
_FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "relu": lambda x: np.maximum(x, 0),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hardsigmoid": lambda x: np.clip(x / 6 + 0.5, 0, 1),
    "hardswish": lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in x]),
}
_EXPECTED = {name: function(_SAMPLES.astype(np.float64)) for name, function in _FUNCTIONS.items()}


def activation_after(graph: Graph, consumers: Consumers, value: str,
                     taken: Set[Node]) -> tuple[str | None, list[Node]]:
    """The kernels' name for the activation of a layer's result, and the nodes that compute it, the last of which gives
    it; (None, []) where there is none.

    Args:
        graph: the network.
        consumers: which nodes read each value.
        value: the result.
        taken: nodes that other kernels compute.
    """
    points, nodes = {value: _SAMPLES}, list[Node]()
    found: tuple[str | None, list[Node]] = (None, [])
    while len(nodes) < _MOST_NODES and (node := _next(graph, consumers, points, {*nodes, *taken})):
        try:
            with np.errstate(all="ignore"):
                points[node.output] = evaluate(graph, node, points)[0]
        except OneXNError:
            break
        nodes.append(node)
        if not any(_is_read(graph, consumers, name, nodes) for name in points if name != node.output):
            name = _name(points[node.output])
            found = (name, list(nodes)) if name else found
    return found


def _next(graph: Graph, consumers: Consumers, known: Mapping[str, np.ndarray], without: set[Node]) -> Node | None:
    """A node that computes each element from known values at its place and scalars."""
    readers: Iterator[Node] = (reader for name in known for reader in consumers.get(name, ()))
    return next((node for node in readers if node not in without and node.op in ELEMENTWISE and all(
        name in known or (name in graph.constants and graph.constants[name].size == 1)
        for name in node.inputs if name)), None)


def _is_read(graph: Graph, consumers: Consumers, name: str, inside: Sequence[Node]) -> bool:
    """Whether the caller or a node besides these needs the value."""
    return name in graph.outputs or any(node not in inside for node in consumers[name])


def _name(points: np.ndarray) -> str | None:
    return next((name for name, expected in _EXPECTED.items()
                 if np.allclose(points.reshape(-1), expected, rtol=_TOLERANCE, atol=_TOLERANCE)), None)
