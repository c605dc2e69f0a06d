"""LSTM, GRU and RNN: what every step takes from the input as one linear layer over all steps, which kernels of ours
compute; what is left, step after step, is a node of the internal domain:

    Recurrence(projected [steps, batch, directions × gates × hidden], R [directions, hidden, gates × hidden],
               bias of the hidden gate [directions, hidden] or "", lengths [batch] or "",
               first h and c [directions, batch, hidden] or "", peepholes [directions, 3 × hidden] or "")
        -> Y [steps, directions, batch, hidden], last h, last c [directions, batch, hidden]
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.expansion.parts import Writer
from onexn_plugins.tvm_backend.reading.graph import INTERNAL_DOMAIN, Graph, Node, TensorSpec
from onexn_plugins.tvm_backend.reading.ways_out import EXPORT_AGAIN

RECURRENCE = "Recurrence"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
ACTIVATIONS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
DIRECTIONS = ("forward", "reverse", "bidirectional")


def recurrence(graph: Graph, node: Node) -> Iterator[Node]:
    x, w, r, bias, lengths, first_h, first_c, peepholes = (node.input(position) for position in range(8))
    _check(graph, node)
    directions, rows, hidden = graph.shape(w)[0], graph.shape(w)[1], graph.shape(r)[2]
    batch_first = bool(node.attributes.get("layout", 0))
    write = Writer(graph, node)
    if batch_first:
        x = write("Transpose", x, perm=[1, 0, 2])
        first_h, first_c = (write("Transpose", name, perm=[1, 0, 2]) if name else "" for name in (first_h, first_c))
    weight = write("Transpose", write("Reshape", w, write.integers(directions * rows, -1)), perm=[1, 0])
    projected, separate = write("MatMul", x, weight), ""
    if bias:
        both, separate = _biases(write, graph, node, directions, rows, hidden)
        projected = write("Add", projected, write("Reshape", both, write.integers(directions * rows)))
    by_step = write("Transpose", r, perm=[0, 2, 1])
    yield from write.nodes
    shape = graph.shape(node.inputs[0])
    steps, batch = (shape[1], shape[0]) if batch_first else shape[:2]
    results = [graph.add_value(TensorSpec(result, graph.dtype(node.inputs[0])), node.output) for result in (
        (steps, directions, batch, hidden), *((directions, batch, hidden),) * 2)]
    yield Node.make(RECURRENCE, [projected, by_step, separate, lengths, first_h, first_c, peepholes], results,
                    node.name or node.output, domain=INTERNAL_DOMAIN, kind=node.op, **_settings(node, directions))
    for result, name, order in zip(results, node.proto.output, ([2, 0, 1, 3], [1, 0, 2], [1, 0, 2]), strict=False):
        if name and batch_first:
            yield Node.make("Transpose", [result], [name], node.name, perm=order)
        elif name:
            yield Node.make("Identity", [result], [name], node.name)


def _biases(write: Writer, graph: Graph, node: Node, directions: int, rows: int, hidden: int) -> tuple[str, str]:
    """The bias of the projection, and the hidden gate's own where a reset gate multiplies it."""
    of_input, of_state = (write("Slice", node.inputs[3], write.integers(start), write.integers(start + rows),
                                write.integers(1)) for start in (0, rows))
    if not (node.op == "GRU" and node.attributes.get("linear_before_reset", 0)):
        return write("Add", of_input, of_state), ""
    gates, own = (write("Slice", of_state, write.integers(start), write.integers(end), write.integers(1))
                  for start, end in ((0, rows - hidden), (rows - hidden, rows)))
    nothing = graph.add_constant(np.zeros((directions, hidden), graph.dtype(node.inputs[3])), "nothing")
    return write("Add", of_input, write("Concat", gates, nothing, axis=1)), own


def _check(graph: Graph, node: Node) -> None:
    """That shapes agree: ONNX's own rules look at few of them."""
    x, w, r = (graph.shape(node.inputs[position]) for position in range(3))
    direction = node.text("direction", "forward")
    if direction not in DIRECTIONS:
        raise OneXNError(node.label, f"its direction {direction!r} is none of {', '.join(DIRECTIONS)}", EXPORT_AGAIN)
    directions = 2 if direction == "bidirectional" else 1
    if len(x) != 3 or len(w) != 3 or len(r) != 3:
        raise OneXNError(node.label, "its input and weights have to have three dimensions each", EXPORT_AGAIN)
    hidden, gates = r[-1], GATES[node.op]
    batch = x[0 if node.attributes.get("layout", 0) else 1]
    expected = {1: (directions, gates * hidden, x[-1]), 2: (directions, gates * hidden, hidden),
                3: (directions, 2 * gates * hidden), 4: (batch,), 7: (directions, 3 * hidden)}
    for position, shape in expected.items():
        name = node.input(position)
        if name and graph.shape(name) != shape:
            raise OneXNError(node.label, f"its input {name!r} has shape {list(graph.shape(name))} instead of "
                             f"{list(shape)}", EXPORT_AGAIN)
    if node.attributes.get("hidden_size", hidden) != hidden:
        raise OneXNError(node.label, f"hidden_size {node.attributes['hidden_size']} is not that of its weights",
                         EXPORT_AGAIN)


def _settings(node: Node, directions: int) -> dict[str, object]:
    """The attributes that each step needs; activations for each direction."""
    names = [name.decode() for name in node.attributes.get("activations", [])]
    attributes: dict[str, object] = {
        "activations": names or [*ACTIVATIONS[node.op]] * directions,
        "direction": node.text("direction", "forward"), "clip": float(node.attributes.get("clip", 0.0)),
        "input_forget": node.attributes.get("input_forget", 0),
        "linear_before_reset": node.attributes.get("linear_before_reset", 0)}
    for name in ("activation_alpha", "activation_beta"):
        if node.attributes.get(name):
            attributes[name] = node.attributes[name]
    return attributes
