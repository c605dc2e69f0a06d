"""The same network as other exporters write it down: names, where constants stand, functions, what is listed."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from onexn_plugins.tvm_backend.reading.subgraphs import subgraphs_of

LOCAL = "local"


def respelled(model: ModelProto, random: Random) -> ModelProto:
    """Changed in some of these ways, in place; it computes the same."""
    for way in WAYS:
        if random.random() < 0.12:
            way(model, random)
    return model


def _names_of_nodes(model: ModelProto, random: Random) -> None:
    """Of modules, or beyond ASCII."""
    for number, node in enumerate(model.graph.node):
        node.name = random.choice([f"/layer{number}/{node.op_type}", f"größe {number}"])


def _names_of_values(model: ModelProto, random: Random) -> None:
    """With what C and paths do not take."""
    made = {name for node in model.graph.node for name in node.output if name}
    known = sorted({item.name for item in (*model.graph.input, *model.graph.initializer)} | made)
    _rename(model.graph, {name: random.choice([f"{name}.1", f"/model/{name}:0", f"{name}-ü", f"input_{name}", name])
                          for name in known})


def _rename(graph: GraphProto, names: dict[str, str]) -> None:
    for item in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        item.name = names.get(item.name, item.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
        for inner in subgraphs_of(node):
            _rename(inner, names)


def _constants_as_nodes(model: ModelProto, random: Random) -> None:
    """Some initialisers as Constant nodes, of floats alone before opset 9."""
    graph = model.graph
    listed = {item.name for item in (*graph.input, *graph.output)}
    kept, nodes = list[TensorProto](), list[NodeProto]()
    for tensor in graph.initializer:
        if tensor.name in listed or tensor.data_type != TensorProto.FLOAT or random.random() < 0.3:
            kept.append(tensor)
        else:
            nodes.append(helper.make_node("Constant", [], [tensor.name], value=tensor))
    nodes += graph.node
    graph.ClearField("initializer")
    graph.ClearField("node")
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


def _constants_as_inputs(model: ModelProto, random: Random) -> None:
    """Listed among the inputs, with what they are by default, as before version 4 of the format."""
    for tensor in model.graph.initializer:
        if random.random() < 0.5 and tensor.data_type == TensorProto.FLOAT:
            model.graph.input.append(helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))


def _what_nobody_reads(model: ModelProto, random: Random) -> None:
    """An input, a constant and a node."""
    model.graph.input.append(helper.make_tensor_value_info("ignored", TensorProto.FLOAT, [2, 3]))
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "idle"))
    model.graph.node.append(helper.make_node("Add", ["idle", "ignored"], ["unread"]))


def _inputs_as_outputs(model: ModelProto, random: Random) -> None:
    """An input behind an Identity, which leaves nothing to compute."""
    item = random.choice(list(model.graph.input))
    model.graph.node.append(helper.make_node("Identity", [item.name], ["same"]))
    copied = type(item)()
    copied.CopyFrom(item)
    copied.name = "same"
    model.graph.output.append(copied)


def _functions(model: ModelProto, random: Random) -> None:
    """Some operators as functions of the file, of the same name."""
    opsets = list(model.opset_import)
    defined: set[str] = set()
    for node in model.graph.node:
        if random.random() < 0.5 and _is_simple(node) and node.op_type not in defined:
            defined.add(node.op_type)
            _wrap(model, node, opsets)
    if defined:
        model.opset_import.append(helper.make_opsetid(LOCAL, 1))


def _is_simple(node: NodeProto) -> bool:
    return node.op_type != "Constant" and all((*node.input, *node.output)) and not list(subgraphs_of(node))


def _wrap(model: ModelProto, node: NodeProto, opsets: list) -> None:
    names = list(dict.fromkeys(node.input))
    body = NodeProto()
    body.CopyFrom(node)
    model.functions.append(helper.make_function(LOCAL, node.op_type, names, list(node.output), [body], opsets))
    call = helper.make_node(node.op_type, names, list(node.output), node.name, domain=LOCAL)
    node.CopyFrom(call)


# Names last: those before know what the generator named.
WAYS: tuple[Callable[[ModelProto, Random], None], ...] = (
    _constants_as_inputs, _constants_as_nodes, _what_nobody_reads, _inputs_as_outputs, _functions, _names_of_nodes,
    _names_of_values,
)
