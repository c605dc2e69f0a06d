"""Operators that are said in simpler ones while reading give what onnxruntime gives for the whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import Compiled, compile_model
from onexn_plugins.tvm_backend.reading.expansion.reductions import REDUCTIONS

node, info = helper.make_node, helper.make_tensor_value_info
random = np.random.default_rng(0)
X = random.standard_normal((2, 4, 5, 6)).astype(np.float32)
PER_CHANNEL = {"s": random.standard_normal(4).astype(np.float32), "b": random.standard_normal(4).astype(np.float32)}


def compile_nodes(path: Path, nodes: Sequence[NodeProto], inputs: Mapping[str, np.ndarray],
                  constants: Mapping[str, np.ndarray], outputs: Sequence[str], opset: int) -> tuple[bytes, Compiled]:
    declared = [info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape) for name, value in inputs.items()]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    made = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph(list(nodes), "test", declared, made, weights)
    model = onnx.shape_inference.infer_shapes(helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10))
    (path / "model.onnx").write_bytes(model.SerializeToString())
    return model.SerializeToString(), compile_model(path / "model.onnx")


def compare(path: Path, nodes: Sequence[NodeProto], inputs: Mapping[str, np.ndarray],
            constants: Mapping[str, np.ndarray] | None = None, outputs: Sequence[str] = ("y",),
            opset: int = 21) -> None:
    content, compiled = compile_nodes(path, nodes, inputs, constants or {}, outputs, opset)
    expected = onnxruntime.InferenceSession(content).run(None, dict(inputs))
    results = compiled.run(inputs)
    for output, reference in zip(results if len(expected) > 1 else [results], expected, strict=True):
        assert (output.shape, output.dtype) == (reference.shape, reference.dtype)
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("item", "constants", "opset"), [
    (node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2), PER_CHANNEL, 21),
    (node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=4, epsilon=0.1), PER_CHANNEL, 21),
    (node("LpNormalization", ["x"], ["y"], axis=1, p=1), {}, 17),
    (node("LpNormalization", ["x"], ["y"]), {}, 21),
    (node("MeanVarianceNormalization", ["x"], ["y"]), {}, 13),
    (node("Celu", ["x"], ["y"], alpha=0.7), {}, 17),
    (node("Celu", ["x"], ["y"], alpha=-0.7), {}, 17),
    (node("Shrink", ["x"], ["y"]), {}, 11),
    (node("LpPool", ["x"], ["y"], kernel_shape=[3, 2], p=3, strides=[2, 3], pads=[1, 0, 1, 1], ceil_mode=1), {}, 18),
    (node("LpPool", ["x"], ["y"], kernel_shape=[2, 4], p=1, auto_pad="VALID", strides=[2, 2], ceil_mode=1), {}, 18),
    (node("LpPool", ["x"], ["y"], kernel_shape=[2, 2], p=2, auto_pad="SAME_LOWER"), {}, 11),
    (node("Slice", ["x", "i", "j", "a", "k"], ["y"]),
     {"i": np.array([-9, 9]), "j": np.array([-2**63 + 1, -9]), "a": np.array([-4, 1]), "k": np.array([-2, -1])}, 13),
    (node("Slice", ["x", "i", "j", "a", "k"], ["y"]),
     {"i": np.array([9, -3]), "j": np.array([-2**31, 2**31 - 1]), "a": np.array([3, 2]), "k": np.array([-2, 2])}, 13),
    (node("Mish", ["x"], ["y"]), {}, 18),
    (node("Swish", ["x"], ["y"]), {}, 24),
    (node("Shrink", ["x"], ["y"], bias=0.2, lambd=0.4), {}, 17),
    (node("RMSNormalization", ["x", "w"], ["y"]), {"w": np.ones(6, np.float32)}, 23),
    (node("Pow", ["x", "k"], ["y"]), {"k": np.array(2)}, 17),
    (node("Pow", ["x", "k"], ["y"]), {"k": np.array([3, 2, 1, 2, 3, 2], np.int32)}, 17),
    (node("Resize", ["x", "", "", "sizes"], ["y"], axes=[3, 2]), {"sizes": np.array([12, 10])}, 18),
    (node("Resize", ["x", "", "scales"], ["y"], axes=[2, 3]), {"scales": np.array([2, 3], np.float32)}, 18),
    (node("Resize", ["x", "", "", "sizes"], ["y"], axes=[2, 3], keep_aspect_ratio_policy="not_larger"),
     {"sizes": np.array([10, 18])}, 18),
    (node("ConvTranspose", ["x", "w"], ["y"], strides=[3, 2], output_shape=[16, 13]),
     {"w": np.ones((4, 2, 3, 3), np.float32)}, 17),
    (node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], auto_pad="SAME_LOWER"),
     {"w": np.ones((4, 2, 3, 3), np.float32)}, 17),
], ids=lambda value: value.op_type if isinstance(value, NodeProto) else "")
def test_single_operators(tmp_path: Path, item: NodeProto, constants: dict[str, np.ndarray], opset: int) -> None:
    compare(tmp_path, [item], {"x": X}, constants, opset=opset)


def test_large_whole_numbers_to_a_fraction_keep_their_digits(tmp_path: Path) -> None:
    base = np.array([16777217, 2**40 + 1, 9])
    compare(tmp_path, [node("Pow", ["i", "k"], ["y"])], {"i": base}, {"k": np.float32([1, 1, 0.5])})
    _, compiled = compile_nodes(tmp_path, [node("Pow", ["i", "k"], ["y"])], {"i": base, "k": np.ones(3, np.float32)},
                                {}, ["y"], 21)
    np.testing.assert_array_equal(compiled.run(base, np.ones(3, np.float32)), base)


def test_a_small_deviation_from_a_large_mean_is_normalised(tmp_path: Path) -> None:
    x = (1000 + random.standard_normal((1, 4, 8, 8)) * 0.1).astype(np.float32)
    item = node("GroupNormalization", ["x", "s", "b"], ["y"], num_groups=2)
    ones = {"s": np.ones(4, np.float32), "b": np.zeros(4, np.float32)}
    _, compiled = compile_nodes(tmp_path, [item], {"x": x}, ones, ["y"], 21)
    rows = x.astype(np.float64).reshape(2, -1)
    wanted = (rows - rows.mean(1, keepdims=True)) / np.sqrt(rows.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(compiled.run(x).reshape(2, -1), wanted, atol=5e-3)


def test_both_factors_transposed(tmp_path: Path) -> None:
    a, b = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 2), (4, 3)))
    item = node("Gemm", ["a", "b", "c"], ["y"], transA=1, transB=1, alpha=0.5)
    compare(tmp_path, [item], {"a": a}, {"b": b, "c": np.ones(4, np.float32)})
    compare(tmp_path, [item], {"a": a, "b": b}, {"c": np.ones(4, np.float32)})


def test_several_outputs(tmp_path: Path) -> None:
    compare(tmp_path, [node("LayerNormalization", ["x", "w"], ["y", "mean", "inverse"])], {"x": X},
            {"w": np.ones(6, np.float32)}, ["y", "mean", "inverse"])
    compare(tmp_path, [node("Dropout", ["x"], ["y", "mask"])], {"x": X}, {}, ["y", "mask"])
    compare(tmp_path, [node("Split", ["x", "sizes"], ["y", "none", "z"], axis=1)], {"x": X},
            {"sizes": np.array([1, 0, 3])}, ["y", "z"])


def test_outputs_that_nobody_reads(tmp_path: Path) -> None:
    nodes = [node("LayerNormalization", ["x", "w"], ["h", "mean", "inverse"]), node("Dropout", ["h"], ["d", "mask"]),
             node("MaxPool", ["d"], ["y", "places"], kernel_shape=[2, 2])]
    compare(tmp_path, nodes, {"x": X}, {"w": np.ones(6, np.float32)}, opset=17)


def test_quantised_weights(tmp_path: Path) -> None:
    nodes = [node("DequantizeLinear", ["q", "scale", "zero"], ["w"], axis=0), node("Conv", ["x", "w"], ["y"])]
    compare(tmp_path, nodes, {"x": X}, {
        "q": random.integers(-127, 127, (8, 4, 3, 3)).astype(np.int8), "zero": np.zeros(8, np.int8),
        "scale": np.abs(random.standard_normal(8)).astype(np.float32)}, opset=17)


def test_one_hot(tmp_path: Path) -> None:
    places = np.array([[0, 3], [-1, 2]])
    for axis in (-1, 0, 1):
        compare(tmp_path, [node("OneHot", ["i", "depth", "values"], ["y"], axis=axis)], {"i": places},
                {"depth": np.array(4), "values": np.array([-1, 2], np.float32)}, opset=17)


def branches(then: NodeProto, otherwise: NodeProto) -> NodeProto:
    return node("If", ["condition"], ["y"], then_branch=helper.make_graph([then], "then", [], [
        info("t", TensorProto.FLOAT, None)]), else_branch=helper.make_graph([otherwise], "else", [], [
            info("e", TensorProto.FLOAT, None)]))


@pytest.mark.parametrize("condition", [True, False])
def test_branches(tmp_path: Path, condition: bool) -> None:
    item = branches(node("Relu", ["x"], ["t"]), node("Neg", ["x"], ["e"]))
    compare(tmp_path, [item], {"x": X}, {"condition": np.array(condition)})
    compare(tmp_path, [item], {"x": X, "condition": np.array([condition])})


def test_branches_of_different_shapes_have_to_be_known(tmp_path: Path) -> None:
    item = branches(node("Relu", ["x"], ["t"]), node("ReduceMean", ["x"], ["e"]))
    compare(tmp_path, [item], {"x": X}, {"condition": np.array(True)})
    with pytest.raises(OneXNError, match=r"If 'y': its branches make .* is known at run time only"):
        compile_nodes(tmp_path, [item], {"x": X, "condition": np.array([True])}, {}, ["y"], 21)


def test_a_loop_is_unrolled(tmp_path: Path) -> None:
    """It carries a sum, and collects it after each round."""
    body = helper.make_graph(
        [node("Add", ["before", "x"], ["after"]), node("Identity", ["going"], ["on"]),
         node("Neg", ["after"], ["seen"])], "body",
        [info("step", TensorProto.INT64, ()), info("going", TensorProto.BOOL, ()),
         info("before", TensorProto.FLOAT, None)],
        [info("on", TensorProto.BOOL, ()), *(info(name, TensorProto.FLOAT, None) for name in ("after", "seen"))])
    item = node("Loop", ["count", "", "start"], ["y", "collected"], body=body)
    constants = {"count": np.array(3), "start": np.zeros((2, 3), np.float32)}
    x = random.standard_normal((2, 3)).astype(np.float32)
    compare(tmp_path, [item], {"x": x}, constants, ["y", "collected"])
    with pytest.raises(OneXNError, match="Loop 'y': how often it runs depends on run-time values"):
        compile_nodes(tmp_path, [item], {"x": x, "count": np.array([3])}, {"start": constants["start"]}, ["y"], 21)


@pytest.mark.parametrize("attributes", [{}, {"scan_input_directions": [1], "scan_output_axes": [1]}], ids=str)
def test_a_scan_is_unrolled(tmp_path: Path, attributes: dict) -> None:
    body = helper.make_graph(
        [node("Add", ["before", "row"], ["after"]), node("Identity", ["after"], ["seen"])], "body",
        [info(name, TensorProto.FLOAT, (3,)) for name in ("before", "row")],
        [info(name, TensorProto.FLOAT, (3,)) for name in ("after", "seen")])
    item = node("Scan", ["start", "x"], ["y", "collected"], body=body, num_scan_inputs=1, **attributes)
    compare(tmp_path, [item], {"x": random.standard_normal((4, 3)).astype(np.float32)},
            {"start": np.zeros(3, np.float32)}, ["y", "collected"])


def test_a_part_of_a_split_is_reshaped(tmp_path: Path) -> None:
    """The box branch of YOLO heads."""
    nodes = [node("Split", ["x", "sizes"], ["a", "b"], axis=1), node("Reshape", ["a", "shape"], ["c"]),
             node("Softmax", ["c"], ["y"], axis=1), node("Sigmoid", ["b"], ["z"])]
    compare(tmp_path, nodes, {"x": X}, {"sizes": np.array([3, 1]), "shape": np.array([2, 3, 30])}, ["y", "z"])


def test_tensors_without_elements_are_known(tmp_path: Path) -> None:
    nodes = [node("Slice", ["x", "zero", "zero"], ["nothing"]), node("Concat", ["nothing", "x"], ["y"], axis=0),
             node("ReduceSum", ["nothing", "zero"], ["z"])]
    compare(tmp_path, nodes, {"x": X}, {"zero": np.array([0])}, ["y", "z"])


def test_half_precision_is_computed_in_float32(tmp_path: Path):
    """By the kernels, without rounding in between; what leaves the network and what is cast is rounded."""
    x, weight = X.astype(np.float16), random.standard_normal((8, 4, 3, 3)).astype(np.float16)
    nodes = [node("Conv", ["x", "w"], ["h"], "conv"), node("Relu", ["h"], ["r"]), node("Sinh", ["r"], ["s"]),
             node("Div", ["s", "large"], ["y"]), node("Cast", ["h"], ["z"], to=TensorProto.FLOAT)]
    constants = {"w": weight, "large": np.float16(1000)}
    content, compiled = compile_nodes(tmp_path, nodes, {"x": x}, constants, ["y", "z"], 17)
    assert compiled.layers[0].family is not None
    y, z = compiled.run(x)
    assert (y.dtype, z.dtype) == (np.float16, np.float32)
    expected = onnxruntime.InferenceSession(content).run(None, {"x": x})
    np.testing.assert_allclose(z, expected[1], rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(z, z.astype(np.float16).astype(np.float32))
    np.testing.assert_allclose(y, np.sinh(np.maximum(z, 0)) / 1000, rtol=5e-2, atol=1e-3)


@pytest.mark.parametrize(("op", "settings"), [("Div", {}), ("Mod", {}), ("Mod", {"fmod": 1})])
def test_whole_numbers_are_divided_without_a_trap(tmp_path: Path, op: str, settings: dict[str, int]):
    x = np.array([[7], [-7], [-2**31]], np.int32)
    divisors = np.array([2, -2, 3, 0, -1], np.int32)
    _, compiled = compile_nodes(tmp_path, [node(op, ["x", "k"], ["y"], **settings)], {"x": x, "k": divisors}, {}, ["y"],
                                17)
    wide, by = x.astype(np.float64), np.where(divisors == 0, np.inf, divisors.astype(np.float64))
    quotient = np.trunc(wide / by) if op == "Div" or settings else np.floor(wide / by)
    remainder = np.where(divisors == 0, 0, wide - quotient * np.where(divisors == 0, 0, divisors))
    expected = (quotient if op == "Div" else remainder).astype(np.int64).astype(np.int32)
    np.testing.assert_array_equal(compiled.run({"x": x, "k": divisors}), expected)


def test_what_remains_of_floats(tmp_path: Path):
    """With the divisor's sign, as Python's, in numbers of every kind; onnxruntime does not compute it."""
    values = np.array([0.0, -0.0, 3.0, -3.0, 0.75, -5.5, np.inf, -np.inf, np.nan, 1e-30], np.float32)
    x, y = (side.reshape(-1) for side in np.meshgrid(values, values))
    _, compiled = compile_nodes(tmp_path, [node("Mod", ["x", "y"], ["z"], fmod=0), node("Reciprocal", ["z"], ["w"])],
                                {"x": x, "y": y}, {}, ["z", "w"], 24)
    with np.errstate(all="ignore"):
        expected = np.mod(x, y)
        for output, reference in zip(compiled.run({"x": x, "y": y}), (expected, 1 / expected), strict=True):
            np.testing.assert_allclose(output, reference, rtol=1e-6)


def test_scalars_and_old_comparisons(tmp_path: Path):
    total = node("ReduceSum", ["x"], ["t"], keepdims=0)
    for opset in (11, 13, 21):
        compare(tmp_path, [node("ReduceMax", ["x"], ["t"], keepdims=0), node("Transpose", ["t"], ["r"]),
                           node("Neg", ["r"], ["y"])], {"x": X}, opset=opset)
    compare(tmp_path, [total, node("Neg", ["t"], ["n"]), node("PRelu", ["n", "k"], ["y"])], {"x": X},
            {"k": np.array(0.3, np.float32)}, opset=17)
    compare(tmp_path, [node("Squeeze", ["x"], ["s"]), node("GreaterOrEqual", ["s", "k"], ["c"]),
                       node("Cast", ["c"], ["y"], to=TensorProto.FLOAT)], {"x": X[:1]},
            {"k": np.array(0.3, np.float32)}, opset=13)
    compare(tmp_path, [node("Cast", ["x"], ["i"], to=TensorProto.INT64), node("Pow", ["i", "k"], ["p"]),
                       node("Cast", ["p"], ["y"], to=TensorProto.FLOAT)], {"x": X * 3}, {"k": np.array(3)}, opset=17)


@pytest.mark.parametrize("alpha", [0.01, 1.0])
def test_celu_of_what_overflows_when_divided(tmp_path: Path, alpha: float):
    x = np.array([3e38, -3e38, np.inf, -np.inf, np.nan, 0, 1e-3], np.float32)
    compare(tmp_path, [node("Celu", ["x"], ["y"], alpha=alpha)], {"x": x}, opset=17)
    compare(tmp_path, [node("Celu", ["x"], ["y"], alpha=alpha)], {"x": np.array(3e38, np.float32)}, opset=17)


@pytest.mark.parametrize("op", REDUCTIONS)
def test_a_reduction_over_no_axes(tmp_path: Path, op: str):
    """Of every element alone, where the file says so; else over all."""
    x, nothing = np.abs(X) + np.float32(0.1), {"axes": np.zeros(0, np.int64)}
    for noop in (0, 1):
        compare(tmp_path, [node(op, ["x", "axes"], ["y"], noop_with_empty_axes=noop)], {"x": x}, nothing, opset=18)
        compare(tmp_path, [node(op, ["x"], ["y"], noop_with_empty_axes=noop, keepdims=0)], {"x": x}, opset=18)


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceL2"])
def test_means_and_roots_of_whole_numbers(tmp_path: Path, op: str):
    x = np.array([[3, -4, 7], [6, 8, 0]], np.int32)
    content, compiled = compile_nodes(tmp_path, [node(op, ["x", "axes"], ["y"])], {"x": x}, {"axes": np.array([1])},
                                      ["y"], 18)
    (expected,) = ReferenceEvaluator(content).run(None, {"x": x})
    result = compiled.run(x)
    assert result.dtype == np.int32
    np.testing.assert_array_equal(result, np.asarray(expected).astype(np.int32))


def test_whole_numbers_through_operators_of_floats(tmp_path: Path):
    x = random.integers(-9, 9, (1, 2, 4, 5)).astype(np.int32)
    slopes = np.array([2, -3], np.int32).reshape(2, 1, 1)
    compare(tmp_path, [node("PRelu", ["x", "k"], ["y"])], {"x": x}, {"k": slopes}, opset=16)
    compare(tmp_path, [node("Resize", ["x", "", "s"], ["y"], mode="linear")], {"x": x},
            {"s": np.array([1, 1, 1.5, 2], np.float32)}, opset=18)
    compare(tmp_path, [node("Sign", ["x"], ["y"])], {"x": np.abs(x).astype(np.uint8)}, opset=13)


def test_doubles_are_resized(tmp_path: Path):
    scales = {"s": np.array([1, 1, 1.5, 0.7], np.float32)}
    for mode in ("linear", "cubic"):
        item = node("Resize", ["x", "", "s"], ["y"], mode=mode)
        _, compiled = compile_nodes(tmp_path, [item], {"x": X.astype(np.float64)}, scales, ["y"], 18)
        content, _ = compile_nodes(tmp_path, [item], {"x": X}, scales, ["y"], 18)
        result = compiled.run(X.astype(np.float64))
        assert result.dtype == np.float64
        np.testing.assert_allclose(result, onnxruntime.InferenceSession(content).run(None, {"x": X})[0], rtol=1e-4,
                                   atol=1e-5)


def test_constants_of_which_the_reference_makes_another_shape(tmp_path: Path):
    """It puts axes in one after the other as they are listed: of [4, 3, 9] it makes [4, 3, 1, 9, 1]."""
    constants = {"c": random.standard_normal((4, 3, 9)).astype(np.float32), "axes": np.array([3, 2])}
    compare(tmp_path, [node("Unsqueeze", ["c", "axes"], ["u"]), node("ReduceMax", ["x"], ["m"], keepdims=0),
                       node("Add", ["u", "m"], ["y"])], {"x": X}, constants, opset=17)
    del constants["axes"]
    compare(tmp_path, [node("Unsqueeze", ["c"], ["u"], axes=[3, 2]), node("ReduceMax", ["x"], ["m"], keepdims=0),
                       node("Add", ["u", "m"], ["y"])], {"x": X}, constants, opset=11)


@pytest.mark.parametrize("order", [1, 2])
def test_norms_of_constants_are_of_what_is_positive(tmp_path: Path, order: int):
    """ONNX's reference, which computes most constants, forgets to make it so."""
    compare(tmp_path, [node("LpNormalization", ["c"], ["n"], axis=3, p=order), node("Add", ["x", "n"], ["y"])],
            {"x": X}, {"c": X}, opset=17)


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
@pytest.mark.parametrize("opset", [11, 13])
def test_softmax_of_constants_is_that_of_their_opset(tmp_path: Path, op: str, opset: int):
    """Before opset 13 it is over all axes from one on."""
    compare(tmp_path, [node(op, ["c"], ["s"], axis=1), node("ReduceMax", ["x"], ["m"], keepdims=0),
                       node("Mul", ["s", "m"], ["y"])], {"x": X}, {"c": X[0]}, opset=opset)


def test_layer_normalisation_of_doubles(tmp_path: Path):
    compare(tmp_path, [node("LayerNormalization", ["x", "s", "b"], ["y"], axis=-1)], {"x": X.astype(np.float64)},
            {name: random.standard_normal(6) for name in "sb"}, opset=17)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_means_of_a_normalisation_are_float32(tmp_path: Path, kind: type):
    """As its definition says, whatever is normalised."""
    x = X.astype(kind)
    nodes = [node("LayerNormalization", ["x", "s"], ["y", "mean", "inverse"], axis=-1)]
    _, compiled = compile_nodes(tmp_path, nodes, {"x": x}, {"s": np.ones(6, kind)}, ["y", "mean", "inverse"], 17)
    normalised, mean, inverse = compiled.run(x)
    assert [value.dtype for value in (normalised, mean, inverse)] == [kind, np.float32, np.float32]
    wide = x.astype(np.float64)
    np.testing.assert_allclose(mean, wide.mean(-1, keepdims=True), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(inverse, 1 / np.sqrt(wide.var(-1, keepdims=True) + 1e-5), rtol=1e-3)
    np.testing.assert_allclose(normalised, (wide - mean) * inverse, rtol=1e-2, atol=1e-2)


def test_constants_that_the_reference_cannot_compute(tmp_path: Path):
    layer = node("ConvTranspose", ["c", "w"], ["t"], auto_pad="SAME_UPPER", strides=[2, 1], dilations=[2, 1], group=2)
    constants = {"c": X, "w": random.standard_normal((4, 2, 3, 3)).astype(np.float32), "k": np.float32(1)}
    compare(tmp_path, [layer, node("Mul", ["x", "k"], ["m"]), node("ReduceMean", ["m"], ["r"]),
                       node("Add", ["t", "r"], ["y"])], {"x": X}, constants, opset=17)
    total = node("ReduceSum", ["x"], ["r"], keepdims=0)
    compare(tmp_path, [node("GlobalMaxPool", ["c"], ["m"]), total, node("Add", ["m", "r"], ["y"])], {"x": X},
            {"c": X.reshape(2, 4, 30)}, opset=17)
