"""Comparisons and differences of floats that one loop computes are those of IEEE 754: TVM's simplifier, which takes
floats for numbers without NaN and sums for exact ones, does not see them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, helper, numpy_helper

from onexn_plugins.tvm_backend import compile_model

node = helper.make_node
X = np.array([1, np.nan, np.inf, -np.inf, 0, -0.0, np.nan, 3e38, 1e-40, 2.5, 1, 7], np.float32)
Z = np.array([np.nan, 1, np.inf, 1, -0.0, 0, np.nan, 3e38, 1, 2.5, 1.5 * 2**23, -3], np.float32)
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def check(path: Path, nodes: Sequence[NodeProto], constants: dict[str, np.ndarray] | None = None,
          dtype: type = np.float32) -> None:
    """What y is of x and z is what onnxruntime makes of them, to the last bit."""
    given = {"x": X.astype(dtype), "z": Z.astype(dtype)}
    declared = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in given.items()]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    model = onnx.shape_inference.infer_shapes(helper.make_model(
        helper.make_graph(list(nodes), "test", declared, [onnx.ValueInfoProto(name="y")], weights),
        opset_imports=[helper.make_opsetid("", 17)], ir_version=10))
    path.write_bytes(model.SerializeToString())
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, given)
    result = compile_model(path, verify=False).run(given)
    assert result.dtype == expected.dtype
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compare", COMPARISONS)
def test_the_contrary_of_a_comparison(tmp_path: Path, compare: str, dtype: type) -> None:
    """Nothing is said of NaN, and so the contrary is true."""
    check(tmp_path / "model.onnx", [node(compare, ["x", "z"], ["c"]), node("Not", ["c"], ["y"])], dtype=dtype)
    check(tmp_path / "model.onnx", [node(compare, ["x", "z"], ["c"]), node("Not", ["c"], ["n"]),
                                    node("Where", ["n", "x", "z"], ["y"])], dtype=dtype)


@pytest.mark.parametrize("both", ["And", "Or", "Xor", "Equal"])
@pytest.mark.parametrize(("one", "other"), [("Greater", "LessOrEqual"), ("Less", "Greater"), ("Equal", "Less")])
def test_two_comparisons(tmp_path: Path, one: str, other: str, both: str) -> None:
    nodes = [node(one, ["x", "z"], ["a"]), node(other, ["x", "z"], ["b"])]
    check(tmp_path / "model.onnx", [*nodes, node(both, ["a", "b"], ["y"])])
    check(tmp_path / "model.onnx", [*nodes, node(both, ["a", "b"], ["c"]), node("Not", ["c"], ["y"])])


def test_a_choice_inside_a_choice(tmp_path: Path) -> None:
    """In its second branch x < z is false, which does not make z <= x true."""
    check(tmp_path / "model.onnx", [
        node("LessOrEqual", ["z", "x"], ["inner"]), node("Where", ["inner", "one", "two"], ["t"]),
        node("Less", ["x", "z"], ["outer"]), node("Where", ["outer", "zero", "t"], ["y"])],
          {"zero": np.float32(0), "one": np.float32(1), "two": np.float32(2)})


@pytest.mark.parametrize("op", ["IsInf", "IsNaN"])
def test_what_is_not_infinite(tmp_path: Path, op: str) -> None:
    check(tmp_path / "model.onnx", [node(op, ["x"], ["c"]), node("Not", ["c"], ["y"])])


def test_nothing_equals_nan(tmp_path: Path) -> None:
    check(tmp_path / "model.onnx", [node("Abs", ["x"], ["a"]), node("Equal", ["a", "a"], ["y"])])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("nodes", [
    [node("Add", ["x", "z"], ["s"]), node("Sub", ["s", "z"], ["y"])],
    [node("Add", ["x", "z"], ["s"]), node("Sub", ["s", "x"], ["y"])],
    [node("Add", ["x", "z"], ["s"]), node("Sub", ["x", "s"], ["y"])],
    [node("Abs", ["x"], ["a"]), node("Sub", ["a", "a"], ["y"])],
    [node("Relu", ["x"], ["a"]), node("Sub", ["a", "x"], ["y"])],
    [node("Sub", ["x", "one"], ["a"]), node("Sub", ["a", "x"], ["y"])],
    [node("Div", ["x", "one"], ["a"]), node("Sub", ["x", "a"], ["y"])],
], ids=lambda nodes: f"{nodes[0].op_type} {nodes[1].input[0]}-{nodes[1].input[1]}")
def test_sums_are_rounded_before_a_part_of_them_goes(tmp_path: Path, nodes: list[NodeProto], dtype: type) -> None:
    """1 + 1.5 × 2²³, less the latter, is 1 again where halves are rounded; and infinity less infinity is NaN."""
    check(tmp_path / "model.onnx", nodes, {"one": np.array(1, dtype)} if "one" in nodes[0].input else None, dtype)


@pytest.mark.parametrize("zero", [0.0, -0.0])
def test_zero_by_zero_is_nan(tmp_path: Path, zero: float) -> None:
    check(tmp_path / "model.onnx", [node("Div", ["zero", "x"], ["d"]), node("Add", ["d", "z"], ["y"])],
          {"zero": np.float32(zero)})
    check(tmp_path / "model.onnx", [node("Div", ["zero", "x"], ["d"]), node("Reciprocal", ["d"], ["y"])],
          {"zero": np.float32(zero)})
