"""Canonical form and folding: fewer operators, the same function. onnxruntime runs both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import ModelProto, NodeProto, helper, numpy_helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.reading.building import build_graph
from onexn_plugins.tvm_backend.reading.canonical import canonicalise
from onexn_plugins.tvm_backend.reading.folding import fold_layers
from onexn_plugins.tvm_backend.reading.graph import Graph
from onexn_plugins.tvm_backend.reading.onnx_model import load_onnx_model
from onexn_plugins.tvm_backend.reading.parting import part_concatenations
from onexn_plugins.tvm_backend.reading.sinking import sink_reshapes
from tests.tvm_backend.onnx_files import make_model

random = np.random.default_rng(0)
IMAGE = (1, 3, 7, 9)
node = helper.make_node


def array(*shape: int) -> np.ndarray:
    return random.standard_normal(shape).astype(np.float32)


def integers(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def run(model: ModelProto, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, dict(inputs))


def as_model(graph: Graph) -> ModelProto:
    inputs = [helper.make_value_info(name, graph.specs[name].onnx_type) for name in graph.inputs]
    outputs = [helper.make_value_info(name, graph.specs[name].onnx_type) for name in graph.outputs]
    weights = [numpy_helper.from_array(value, name) for name, value in graph.constants.items()]
    # Nodes made of one node of the file share its name, which onnxruntime takes for an error.
    nodes = [NodeProto.FromString(item.proto.SerializeToString()) for item in graph.nodes]
    for number, proto in enumerate(nodes):
        proto.name = f"{proto.name}_{number}"
    return helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, weights),
                             opset_imports=[helper.make_opsetid("", graph.opset)], ir_version=10)


def simplify(model: ModelProto, path: Path) -> Graph:
    path.write_bytes(model.SerializeToString())
    graph = build_graph(load_onnx_model(path))
    canonicalise(graph)
    part_concatenations(graph)
    sink_reshapes(graph)
    fold_layers(graph)
    return graph


CONV = node("Conv", ["x", "w", "b"], ["h"], pads=[1, 1, 1, 1])
CONV_WEIGHTS = {"w": array(4, 3, 3, 3), "b": array(4)}
BESIDE = [node("Relu", ["x"], ["r"]), node("Neg", ["x"], ["n"]), node("Exp", ["x"], ["e"])]
BATCH_NORM = {"gamma": array(4), "beta": array(4), "mean": array(4), "variance": array(4) ** 2 + 0.5}

CASES = {
    "batch norm into conv": (
        [CONV, node("BatchNormalization", ["h", "gamma", "beta", "mean", "variance"], ["y"])],
        CONV_WEIGHTS | BATCH_NORM, ["Conv"]),
    "batch norm alone": (
        [node("Relu", ["x"], ["h"]), node("BatchNormalization", ["h", "g", "g", "g", "v"], ["y"], epsilon=1e-3)],
        {"g": array(3), "v": array(3) ** 2}, ["Relu", "Mul", "Add"]),
    "scale and shift into conv": (
        [CONV, node("Mul", ["s", "h"], ["m"]), node("Add", ["m", "t"], ["a"]), node("Sub", ["a", "u"], ["d"]),
         node("Div", ["d", "v"], ["y"])],
        CONV_WEIGHTS | {"s": array(4, 1, 1), "t": array(1, 4, 1, 1), "u": array(1), "v": np.float32(3)}, ["Conv"]),
    "a scale per column stays": (
        [CONV, node("Mul", ["h", "s"], ["y"])], CONV_WEIGHTS | {"s": array(9)}, ["Conv", "Mul"]),
    "a value read twice stays": (
        [CONV, node("Mul", ["h", "s"], ["m"]), node("Add", ["h", "m"], ["y"])], CONV_WEIGHTS | {"s": array(4, 1, 1)},
        ["Conv", "Mul", "Add"]),
    "rounding to whole numbers stays": (
        [CONV, node("Add", ["h", "t"], ["a"]), node("Sub", ["a", "t"], ["y"])],
        CONV_WEIGHTS | {"t": np.float32(1.5 * 2**23)}, ["Conv", "Add", "Add"]),
    "conv without bias": (
        [node("Conv", ["x", "w"], ["h"], strides=[2, 2]), node("Add", ["h", "t"], ["y"])],
        {"w": array(4, 3, 3, 3), "t": array(4, 1, 1)}, ["Conv"]),
    "padding into conv": (
        [node("Pad", ["x", "pads"], ["p"]), node("Conv", ["p", "w", "b"], ["y"], pads=[0, 1, 0, 1])],
        CONV_WEIGHTS | {"pads": integers(0, 0, 1, 0, 0, 0, 2, 1)}, ["Conv"]),
    "padding with ones stays": (
        [node("Pad", ["x", "pads", "one"], ["p"]), node("Conv", ["p", "w", "b"], ["y"])],
        CONV_WEIGHTS | {"pads": integers(0, 0, 1, 0, 0, 0, 2, 1), "one": np.float32(1)}, ["Pad", "Conv"]),
    "same upper": ([node("Conv", ["x", "w", "b"], ["y"], auto_pad="SAME_UPPER", strides=[2, 2])], CONV_WEIGHTS,
                   ["Conv"]),
    "same lower": ([node("Conv", ["x", "w", "b"], ["y"], auto_pad="SAME_LOWER", strides=[2, 3])], CONV_WEIGHTS,
                   ["Conv"]),
    "valid": ([node("MaxPool", ["x"], ["y"], auto_pad="VALID", kernel_shape=[3, 2])], {}, ["MaxPool"]),
    "same pool": ([node("AveragePool", ["x"], ["y"], auto_pad="SAME_LOWER", kernel_shape=[3, 2], strides=[2, 2])], {},
                  ["AveragePool"]),
    "identities": (
        [node("Identity", ["x"], ["a"]), node("Dropout", ["a"], ["b"]), node("Relu", ["b"], ["c"]),
         node("Identity", ["c"], ["y"])], {}, ["Relu"]),
    "shape operators": (
        [node("Unsqueeze", ["x", "axes"], ["u"]), node("Squeeze", ["u", "axes"], ["s"]), node("Flatten", ["s"], ["f"]),
         node("Relu", ["f"], ["y"])],
        {"axes": integers(0)}, ["Reshape", "Reshape", "Reshape", "Relu"]),
    "computed shape": (
        [node("Shape", ["x"], ["s"]), node("Gather", ["s", "zero"], ["n"]),
         node("Concat", ["n", "rest"], ["t"], axis=0), node("Reshape", ["x", "t"], ["r"]), node("Relu", ["r"], ["y"])],
        {"zero": integers(0), "rest": integers(-1, 3)}, ["Reshape", "Relu"]),
    "mean over pixels": ([node("ReduceMean", ["x", "axes"], ["y"], keepdims=0)], {"axes": integers(-1, 2)},
                         ["GlobalAveragePool", "Reshape"]),
    "mean over channels": ([node("ReduceMean", ["x", "axes"], ["y"])], {"axes": integers(1)}, ["ReduceMean"]),
    "linear on rows": (
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "b"], ["y"])], {"w": array(9, 5), "b": array(5)},
        ["Reshape", "Gemm", "Reshape"]),
    "what follows rows": (
        [node("MatMul", ["x", "w"], ["h"]), node("Mul", ["s", "h"], ["m"]), node("Clip", ["m", "low"], ["c"]),
         node("Add", ["c", "x"], ["y"])],
        {"w": array(9, 9), "s": array(1, 1, 1, 9), "low": np.float32(-0.5)},
        ["Reshape", "Gemm", "Clip", "Reshape", "Add", "Reshape"]),
    "rows that are read twice": (
        [node("MatMul", ["x", "w"], ["h"]), node("Sigmoid", ["h"], ["g"]), node("Mul", ["h", "g"], ["m"]),
         node("Transpose", ["h"], ["t"], perm=[0, 1, 3, 2]), node("MatMul", ["m", "t"], ["y"])], {"w": array(9, 5)},
        ["Reshape", "Gemm", "Reshape", "Sigmoid", "Mul", "Reshape", "Transpose", "MatMul"]),
    "a scale per row stays": (
        [node("MatMul", ["x", "w"], ["h"]), node("Mul", ["h", "s"], ["y"])], {"w": array(9, 5), "s": array(7, 1)},
        ["Reshape", "Gemm", "Reshape", "Mul"]),
    "a sum that grows stays": (
        [node("MatMul", ["x", "w"], ["h"]), node("Add", ["h", "x"], ["y"])], {"w": array(9, 1)},
        ["Reshape", "Gemm", "Reshape", "Add"]),
    "a quotient that is rounded stays": (
        [node("Relu", ["x"], ["h"]), node("Div", ["h", "v"], ["d"]), node("Floor", ["d"], ["y"])],
        {"v": np.float32(49)}, ["Relu", "Div", "Floor"]),
    "a quotient by a power of two": (
        [node("Relu", ["x"], ["h"]), node("Div", ["h", "v"], ["y"])], {"v": np.float32(-8)}, ["Relu", "Mul"]),
    "a quotient whose inverse is infinite stays": (
        [node("Relu", ["x"], ["h"]), node("Div", ["h", "v"], ["y"])], {"v": np.float32(2.0**-140)}, ["Relu", "Div"]),
    "a constant over a conv stays": (
        [CONV, node("Div", ["s", "h"], ["y"])], CONV_WEIGHTS | {"s": array(4, 1, 1)}, ["Conv", "Div"]),
    "a scale that overflows stays": (
        [CONV, node("Mul", ["h", "s"], ["m"]), node("Mul", ["m", "t"], ["y"])],
        CONV_WEIGHTS | {"w": CONV_WEIGHTS["w"] * np.float32(1e25), "s": np.float32(1e25), "t": np.float32(1e-38)},
        ["Conv", "Mul", "Mul"]),
    "a scale that vanishes stays": (
        [CONV, node("Mul", ["h", "s"], ["m"]), node("Mul", ["m", "t"], ["y"])],
        CONV_WEIGHTS | {"s": np.float32(1e-38), "t": np.float32(1e38)}, ["Conv", "Mul", "Mul"]),
    "a channel that is scaled by zero": (
        [CONV, node("Mul", ["h", "s"], ["y"])],
        CONV_WEIGHTS | {"s": np.arange(4, dtype=np.float32).reshape(4, 1, 1)}, ["Conv"]),
    "padding by a computed value stays": (
        [node("ReduceMax", ["x"], ["m"], keepdims=0), node("Pad", ["x", "pads", "m"], ["p"]),
         node("Conv", ["p", "w", "b"], ["y"])],
        CONV_WEIGHTS | {"pads": integers(0, 0, 1, 0, 0, 0, 2, 1)}, ["ReduceMax", "Pad", "Where", "Conv"]),
    "a bias for each row stays": (
        [node("Flatten", ["x"], ["f"], axis=2), node("Gemm", ["f", "w", "b"], ["y"])],
        {"w": array(63, 3), "b": array(3, 1)}, ["Reshape", "Gemm"]),
    "parts of two scales": (
        [*BESIDE, node("Concat", ["r", "n"], ["rn"], axis=1), node("Concat", ["e", "x"], ["ex"], axis=-3),
         node("Reshape", ["rn", "flat"], ["a"]), node("Reshape", ["ex", "flat"], ["b"]),
         node("Concat", ["a", "b"], ["all"], axis=2), node("Split", ["all"], ["p", "q"], axis=1, num_outputs=2),
         node("Sub", ["p", "q"], ["y"])],
        {"flat": integers(1, 6, 63)},
        ["Relu", "Neg", "Exp", "Reshape", "Reshape", "Reshape", "Reshape", "Concat", "Concat", "Sub"]),
    "parts of several inputs": (
        [*BESIDE, node("Concat", ["r", "n", "e", "x"], ["all"], axis=3),
         node("Split", ["all", "sizes"], ["p", "q"], axis=3), node("ReduceMax", ["p"], ["m"]),
         node("Sub", ["q", "m"], ["y"])],
        {"sizes": integers(27, 9)}, ["Relu", "Neg", "Exp", "Concat", "ReduceMax", "Sub"]),
    "parts of parts": (
        [*BESIDE, node("Concat", ["r", "n"], ["rn"], axis=3),
         node("Split", ["rn"], ["a", "b"], axis=3, num_outputs=2), node("Concat", ["b", "a"], ["ba"], axis=3),
         node("Split", ["ba"], ["p", "q"], axis=3, num_outputs=2), node("Sub", ["p", "q"], ["y"])],
        {}, ["Relu", "Neg", "Sub"]),
    "parts within an input stay": (
        [*BESIDE, node("Concat", ["r", "n", "e"], ["all"], axis=3), node("Split", ["all", "sizes"], ["p", "q"], axis=3),
         node("ReduceMax", ["p"], ["m"]), node("Sub", ["q", "m"], ["y"])],
        {"sizes": integers(10, 17)}, ["Relu", "Neg", "Exp", "Concat", "Split", "ReduceMax", "Sub"]),
    "parts across a reshape stay": (
        [*BESIDE, node("Concat", ["r", "n"], ["all"], axis=1), node("Reshape", ["all", "flat"], ["f"]),
         node("Split", ["f"], ["p", "q"], axis=1, num_outputs=2), node("Sub", ["p", "q"], ["y"])],
        {"flat": integers(1, 42, 9)}, ["Relu", "Neg", "Concat", "Reshape", "Split", "Sub"]),
    "parts of what is read whole stay": (
        [*BESIDE, node("Concat", ["r", "n"], ["all"], axis=1),
         node("Split", ["all"], ["p", "q"], axis=1, num_outputs=2),
         node("Sub", ["p", "q"], ["d"]), node("ReduceMax", ["all"], ["m"]), node("Add", ["d", "m"], ["y"])],
        {}, ["Relu", "Neg", "Concat", "Split", "Sub", "ReduceMax", "Add"]),
    "gemm": (
        [node("Flatten", ["x"], ["f"]), node("Gemm", ["f", "w", "b"], ["g"], alpha=0.5, beta=2.0),
         node("Mul", ["g", "s"], ["y"])],
        {"w": array(189, 5), "b": array(1, 5), "s": array(5)}, ["Reshape", "Gemm"]),
}


@pytest.mark.parametrize("case", CASES, ids=[name.replace(" ", "-") for name in CASES])
def test_same_function_in_canonical_form(tmp_path: Path, case: str) -> None:
    nodes, constants, expected = CASES[case]
    model = make_model(nodes, {"x": IMAGE}, ["y"], constants)
    graph = simplify(model, tmp_path / "model.onnx")
    assert [item.op for item in graph.nodes] == expected
    inputs = {"x": array(*IMAGE)}
    before, after = run(model, inputs)[0], run(as_model(graph), inputs)[0]
    assert before.shape == after.shape
    size = np.abs(before[np.isfinite(before)]).max(initial=0)
    np.testing.assert_allclose(after, before, rtol=0, atol=1e-5 * size)  # infinities and NaN are equal to themselves


def test_zero_blocks_stay_zero_where_batch_norm_is_folded(tmp_path: Path) -> None:
    nodes, constants, _ = CASES["batch norm into conv"]
    weight = constants["w"].copy()
    weight[:2, 1] = 0
    graph = simplify(make_model(nodes, {"x": IMAGE}, ["y"], constants | {"w": weight}), tmp_path / "model.onnx")
    folded = graph.constants[graph.nodes[0].inputs[1]]
    assert np.array_equal(folded == 0, weight == 0)


def test_dropout_that_trains_is_refused_unless_it_drops_nothing(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["r"]), node("Dropout", ["r", "ratio", "training"], ["y"])]
    constants = {"ratio": np.float32(0.5), "training": np.array(True)}
    with pytest.raises(OneXNError, match="at random"):
        simplify(make_model(nodes, {"x": IMAGE}, ["y"], constants), tmp_path / "model.onnx")
    model = make_model(nodes, {"x": IMAGE}, ["y"], constants | {"ratio": np.float32(0)})
    assert [item.op for item in simplify(model, tmp_path / "model.onnx").nodes] == ["Relu"]
