"""If, Loop and Scan: taken, chosen or unrolled.

    If        of a known condition: that branch. Else both are computed, and the condition chooses
    Loop      unrolled, where each round's condition is known before it starts
    Scan      unrolled
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from onnx import GraphProto

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.expansion.functions import inside
from onexn_plugins.tvm_backend.reading.graph import Graph, Node
from onexn_plugins.tvm_backend.reading.onnx_model import weights_of

MAX_ROUNDS = 1000
_UNROLL = "Export the model with this loop unrolled, or with the layer it was made from"


def branch(graph: Graph, node: Node) -> Iterable[Node]:
    condition, attributes = graph.constant(node, 0), node.attributes
    if condition is not None:
        return _inlined(graph, node, attributes["then_branch" if condition.all() else "else_branch"], (), node.outputs)
    return _both(graph, node)


def _both(graph: Graph, node: Node) -> Iterator[Node]:
    sides = []
    for side in ("then_branch", "else_branch"):
        sides.append([graph.new_name(name) for name in node.outputs])
        yield from _inlined(graph, node, node.attributes[side], (), sides[-1])
    condition = graph.new_name(node.output)
    yield Node.make("Reshape", [node.inputs[0], graph.add_constant(np.zeros(0, np.int64), "shape")], [condition])
    for output, then, otherwise in zip(node.outputs, *sides, strict=True):
        for what in (graph.shape, graph.dtype):
            if what(then) != what(otherwise):
                raise OneXNError(node.label, f"its branches make {what(then)} and {what(otherwise)}, and which one is "
                                 "known at run time only", "Export the model for one of the branches")
        yield Node.make("Where", [condition, then, otherwise], [output], node.name)


def loop(graph: Graph, node: Node) -> Iterator[Node]:
    body, carried = node.attributes["body"], list(node.inputs[2:])
    states = len(carried)
    rounds = graph.constant(node, 0)
    going = node.input(1) or graph.add_constant(np.array(True), "condition")
    collected: list[list[str]] = [[] for _ in body.output[1 + states:]]
    count = 0
    if node.input(0) and rounds is None:
        raise OneXNError(node.label, "how often it runs depends on run-time values", _UNROLL)
    while rounds is None or count < int(rounds.reshape(())):
        if going not in graph.constants:
            raise OneXNError(node.label, "how often it runs depends on run-time values", _UNROLL)
        if not graph.constants[going].all():
            break
        if count == MAX_ROUNDS:
            raise OneXNError(node.label, f"runs more than {MAX_ROUNDS} times", _UNROLL)
        made = [graph.new_name(node.output) for _ in body.output]
        step = graph.add_constant(np.array(count, np.int64), "step")
        yield from _inlined(graph, node, body, (step, going, *carried), made)
        going, carried = made[0], made[1:1 + states]
        for values, value in zip(collected, made[1 + states:], strict=True):
            values.append(value)
        count += 1
    yield from _results(graph, node, carried, collected, [0] * len(collected))


def scan(graph: Graph, node: Node) -> Iterator[Node]:
    body, attributes = node.attributes["body"], node.attributes
    scanned = attributes["num_scan_inputs"]
    states = len(node.inputs) - scanned
    carried, sequences = list(node.inputs[:states]), node.inputs[states:]
    axes = attributes.get("scan_input_axes", [0] * scanned)
    backwards = attributes.get("scan_input_directions", [0] * scanned)
    collected: list[list[str]] = [[] for _ in body.output[states:]]
    length = graph.shape(sequences[0])[axes[0]]
    if length > MAX_ROUNDS:
        raise OneXNError(node.label, f"runs more than {MAX_ROUNDS} times", _UNROLL)
    for step in range(length):
        slices = []
        for name, axis, reverse in zip(sequences, axes, backwards, strict=True):
            at = graph.add_constant(np.array(length - 1 - step if reverse else step), "step")
            slices.append(graph.new_name(name))
            yield Node.make("Gather", [name, at], slices[-1:], node.name, axis=axis)
        made = [graph.new_name(node.output) for _ in body.output]
        yield from _inlined(graph, node, body, (*carried, *slices), made)
        carried = made[:states]
        for values, value in zip(collected, made[states:], strict=True):
            values.append(value)
    for values, reverse in zip(collected, attributes.get("scan_output_directions", [0] * len(collected)), strict=True):
        if reverse:
            values.reverse()
    yield from _results(graph, node, carried, collected, attributes.get("scan_output_axes", [0] * len(collected)))


def _results(graph: Graph, node: Node, carried: list[str], collected: list[list[str]],
             axes: list[int]) -> Iterator[Node]:
    """The last states, and what each round added to the sequences."""
    names = list(node.proto.output)
    for value, name in zip(carried, names, strict=False):
        if name:
            yield Node.make("Identity", [value], [name], node.name)
    for values, axis, name in zip(collected, axes, names[len(carried):], strict=False):
        if name and not values:
            raise OneXNError(node.label, "does not run once, and what it collects has no shape", _UNROLL)
        if name:
            where, rows = graph.add_constant(np.array([axis]), "axis"), []
            for value in values:
                rows.append(graph.new_name(name))
                if graph.opset < 13:
                    yield Node.make("Unsqueeze", [value], rows[-1:], node.name, axes=[axis])
                else:
                    yield Node.make("Unsqueeze", [value, where], rows[-1:], node.name)
            yield Node.make("Concat", rows, [name], node.name, axis=axis)


def _inlined(graph: Graph, node: Node, body: GraphProto, given: Iterable[str], made: Iterable[str]) -> Iterator[Node]:
    """The nodes of a subgraph, whose inputs are the values `given` and whose outputs get the names `made`."""
    names = dict(zip((item.name for item in body.input), given, strict=False))
    for name, value in weights_of(body).items():
        names[name] = graph.add_constant(value, name)
    for item in body.sparse_initializer:
        raise OneXNError(node.label, f"holds the sparse initialiser {item.values.name!r}", "Export dense weights")
    yield from inside(graph, node, map(Node, body.node), names)
    for item, name in zip(body.output, made, strict=False):
        if name:
            yield Node.make("Identity", [names.get(item.name, item.name)], [name], node.name)
