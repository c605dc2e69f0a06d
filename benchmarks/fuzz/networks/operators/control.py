"""Branches, loops and scans."""

from __future__ import annotations

from random import Random

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from benchmarks.fuzz.networks.operators.made import BOOLEANS, Made, Maker, Shape, any_axis, array, one_of


def branch(random: Random, shape: Shape) -> Made:
    """If, of which both branches read the source from around them, and may make two values."""
    condition = one_of(random, np.array(True), np.array(False), BOOLEANS)
    sides = {f"{side}_branch": _step(random, f"@{side}") for side in ("then", "else")}
    both = random.random() < 0.3
    for name, graph in sides.items():
        if both:
            graph.output.append(_float(f"@{name}_own"))
            graph.node.append(helper.make_node("Neg", ["@"], [f"@{name}_own"]))
    return Made("If", sides, [condition], 1 + both, reads_source=False)


def loop(random: Random, shape: Shape) -> Made:
    """Loop of a few rounds that carries the source, may read which round it is, end early, and collect what each round
    makes.
    """
    body = _step(random, "@body", "@state")
    body.input.extend([helper.make_tensor_value_info("@round", TensorProto.INT64, []),
                       helper.make_tensor_value_info("@going", TensorProto.BOOL, []), _float("@state")])
    carried, still = body.output[0].name, helper.make_node("Identity", ["@going"], ["@still"])
    if random.random() < 0.3:
        body.node.extend([helper.make_node("Cast", ["@round"], ["@number"], to=TensorProto.FLOAT),
                          helper.make_node("Add", [carried, "@number"], ["@counted"])])
        carried = "@counted"
    if random.random() < 0.3:
        body.initializer.append(numpy_helper.from_array(np.array(random.randint(0, 2)), "@last"))
        still = helper.make_node("Less", ["@round", "@last"], ["@still"])
    body.node.append(still)
    collects = random.random() < 0.5
    del body.output[:]
    body.output.extend([helper.make_tensor_value_info("@still", TensorProto.BOOL, []), _float(carried)])
    if collects:
        body.node.append(helper.make_node("Neg", [carried], ["@each"]))
        body.output.append(_float("@each"))
    rounds, going = np.array(random.randint(0 if not collects else 1, 3)), one_of(random, np.array(True), "")
    return Made("Loop", {"body": body}, [rounds, going, "@"], 1 + collects, reads_source=False)


def scan(random: Random, shape: Shape) -> Made | None:
    """Scan along an axis of the source, with or without a state."""
    axis = any_axis(random, shape)
    if axis is None or not shape[axis]:
        return None
    body = _step(random, "@body", "@slice", constants=False)
    made, states = body.output[0].name, int(random.random() < 0.5)
    if states:
        body.input.append(_float("@state"))
        body.node.append(helper.make_node("Add", ["@state", made], ["@sum"]))
        body.output.insert(0, _float("@sum"))
    body.input.append(_float("@slice"))
    attributes = {"body": body, "num_scan_inputs": 1, "scan_input_axes": [axis]}
    if random.random() < 0.5:
        attributes["scan_input_directions"] = [random.randint(0, 1)]
    if random.random() < 0.5:
        attributes["scan_output_directions"] = [random.randint(0, 1)]
    if random.random() < 0.5:
        attributes["scan_output_axes"] = [random.randrange(-len(shape), len(shape))]
    start = [np.delete(array(random, *shape), slice(1, None), axis).squeeze(axis)] if states else []
    return Made("Scan", attributes, [*start, "@"], 1 + states, reads_source=False)


def _float(name: str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, None)


def _step(random: Random, name: str, source: str = "@", constants: bool = True) -> GraphProto:
    """A graph of one or two nodes that keep the shape; of two activations of one value where `constants` is false."""
    nodes: list[NodeProto] = []
    value = source
    for place in range(random.randint(1, 2)):
        made = f"{name}{place}"
        op = random.choice(["Relu", "Tanh", "Add", "Mul"])
        other = random.choice([f"{name}c", source]) if constants else source
        nodes.append(helper.make_node(op, [value] if op in ("Relu", "Tanh") else [value, other], [made]))
        value = made
    weights = [numpy_helper.from_array(array(random), f"{name}c")]
    read = {item for node in nodes for item in node.input}
    return helper.make_graph(nodes, name.strip("@"), [], [_float(value)], weights if f"{name}c" in read else [])


MAKERS: list[Maker] = [branch, loop, scan]
