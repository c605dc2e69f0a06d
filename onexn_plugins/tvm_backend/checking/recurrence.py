"""The steps of LSTM, GRU and RNN alone: as ONNX's operator whose input weight picks what is projected already.

Few steps are compared: the code of each is the same, and many would magnify what float32 rounds, or overflow where the
activations have no bound.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onexn_plugins.tvm_backend.lowering.operators.activations import BOUNDED
from onexn_plugins.tvm_backend.reading.expansion.recurrent import GATES
from onexn_plugins.tvm_backend.reading.graph import INTERNAL_DOMAIN, Graph, Node, TensorSpec

STEPS, STEPS_THAT_GROW = 4, 2
_SETTINGS = ("activations", "direction", "activation_alpha", "activation_beta")


def shortened(graph: Graph, node: Node) -> Graph:
    """The graph as the node sees it, with few steps."""
    projected, lengths = node.inputs[0], node.input(3)
    steps = min(STEPS_THAT_GROW if grows(node) else STEPS, graph.shape(projected)[0])

    def cut(name: str) -> TensorSpec:
        return TensorSpec((steps, *graph.shape(name)[1:]), graph.dtype(name))

    changed = {projected: cut(projected)} | {name: cut(name) for name in node.proto.output[:1] if name}
    constants = dict(graph.constants)
    if projected in constants:
        constants[projected] = constants[projected][:steps]
    if lengths in constants:
        constants[lengths] = np.minimum(constants[lengths], steps)
    return dataclasses.replace(graph, constants=constants, specs={**graph.specs, **changed})


def as_operator(graph: Graph, node: Node) -> ModelProto:
    """A model of ONNX's own operator that computes the same of the same inputs."""
    projected, by_step, own_bias, lengths, first_h, first_c, peepholes = (node.input(place) for place in range(7))
    kind, dtype = node.text("kind", ""), graph.dtype(projected)
    directions, hidden, width = graph.shape(by_step)
    picks = np.eye(directions * width, dtype=dtype).reshape(directions, width, directions * width)
    weights, nodes = {"picks": picks}, [helper.make_node("Transpose", [by_step], ["by_state"], perm=[0, 2, 1])]
    inputs = [projected, "picks", "by_state", "", lengths, first_h]
    if own_bias:
        weights["nothing"] = np.zeros((directions, (2 * GATES[kind] - 1) * hidden), dtype)
        nodes.append(helper.make_node("Concat", ["nothing", own_bias], ["bias"], axis=1))
        inputs[3] = "bias"
    if kind == "LSTM":
        inputs += [first_c, peepholes]
    nodes.append(_operator(node, kind, hidden, inputs))
    given = list(dict.fromkeys(graph.activations(node)))
    weights |= {name: graph.constants[name] for name in node.inputs if name in graph.constants}
    return helper.make_model(helper.make_graph(
        nodes, kind, [helper.make_value_info(name, graph.specs[name].onnx_type) for name in given],
        [helper.make_value_info(name, graph.specs[name].onnx_type) for name in node.outputs],
        [numpy_helper.from_array(value, name) for name, value in weights.items()]),
        opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=10)


def grows(node: Node) -> bool:
    """Whether large inputs overflow after a few steps, each in its own way."""
    names = {name.decode() for name in node.attributes.get("activations", ())}
    return node.proto.domain == INTERNAL_DOMAIN and not names <= BOUNDED


def _operator(node: Node, kind: str, hidden: int, inputs: list[str]) -> NodeProto:
    settings = {name: node.attributes[name] for name in _SETTINGS if name in node.attributes}
    if node.attributes["clip"]:
        settings["clip"] = node.attributes["clip"]
    if kind == "GRU":
        settings["linear_before_reset"] = node.attributes["linear_before_reset"]
    if kind == "LSTM":
        settings["input_forget"] = node.attributes["input_forget"]
    while not inputs[-1]:
        inputs.pop()
    return helper.make_node(kind, inputs, list(node.proto.output), hidden_size=hidden, **settings)
