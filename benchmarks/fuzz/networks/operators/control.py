"""Branches and loops."""

from __future__ import annotations

from random import Random

import numpy as np
from onnx import GraphProto, TensorProto, helper, numpy_helper

from benchmarks.fuzz.networks.operators.made import BOOLEANS, Made, Maker, Shape, array, one_of


def branch(random: Random, shape: Shape) -> Made:
    """If, of which both branches read the source from around them."""
    condition = one_of(random, np.array(True), np.array(False), BOOLEANS)
    return Made("If", {"then_branch": _step(random, "@then"), "else_branch": _step(random, "@else")}, [condition],
                reads_source=False)


def loop(random: Random, shape: Shape) -> Made:
    """Loop of a few rounds that carries the source, and may collect what each round makes."""
    body = _step(random, "@body", "@state")
    body.input.extend([helper.make_tensor_value_info("@round", TensorProto.INT64, []),
                       helper.make_tensor_value_info("@going", TensorProto.BOOL, []),
                       helper.make_tensor_value_info("@state", TensorProto.FLOAT, None)])
    body.node.append(helper.make_node("Identity", ["@going"], ["@still"]))
    carried = body.output[0].name
    body.node.append(helper.make_node("Neg", [carried], ["@each"]))
    del body.output[:]
    collects = random.random() < 0.5
    body.output.extend([helper.make_tensor_value_info("@still", TensorProto.BOOL, []),
                        helper.make_tensor_value_info(carried, TensorProto.FLOAT, None)])
    if collects:
        body.output.append(helper.make_tensor_value_info("@each", TensorProto.FLOAT, None))
    else:
        body.node.pop()
    return Made("Loop", {"body": body}, [np.array(random.randint(1, 3)), np.array(True), "@"], 1 + collects,
                reads_source=False)


def _step(random: Random, name: str, source: str = "@") -> GraphProto:
    """A graph of one or two nodes that keep the shape."""
    nodes, value = [], source
    for place in range(random.randint(1, 2)):
        made = f"{name}{place}"
        op = random.choice(["Relu", "Tanh", "Add", "Mul"])
        inputs = [value] if op in ("Relu", "Tanh") else [value, random.choice([f"{name}c", source])]
        nodes.append(helper.make_node(op, inputs, [made]))
        value = made
    constants = [numpy_helper.from_array(array(random), f"{name}c")]
    outputs = [helper.make_tensor_value_info(value, TensorProto.FLOAT, None)]
    return helper.make_graph(nodes, name.strip("@"), [], outputs, constants if any(
        f"{name}c" in node.input for node in nodes) else [])


MAKERS: list[Maker] = [branch, loop]
