"""Operators lowered by this package itself give what onnxruntime gives, and what numpy gives where it has no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, helper, numpy_helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import Compiled, compile_model

node = helper.make_node
random = np.random.default_rng(0)
X = random.standard_normal((2, 3, 4, 5)).astype(np.float32)


def compile_one(path: Path, item: NodeProto, inputs: Mapping[str, np.ndarray],
                constants: Mapping[str, np.ndarray] | None = None, opset: int = 18) -> tuple[onnx.ModelProto, Compiled]:
    """A model of the one operator, and what it is compiled to."""
    declared = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in inputs.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in item.output if name]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph([item], "test", declared, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    return model, compile_model(path / "model.onnx")


def compare(path: Path, item: NodeProto, inputs: Mapping[str, np.ndarray],
            constants: Mapping[str, np.ndarray] | None = None, opset: int = 18) -> None:
    """Compile the one operator and compare every output with onnxruntime's, in value, shape and type."""
    model, compiled = compile_one(path, item, inputs, constants, opset)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, dict(inputs))
    results = compiled.run(inputs)
    for output, reference in zip(results if len(expected) > 1 else [results], expected, strict=True):
        assert (output.shape, output.dtype) == (reference.shape, reference.dtype)
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("attributes", [{}, {"reverse": 1}, {"exclusive": 1}, {"reverse": 1, "exclusive": 1}], ids=str)
def test_cumulative_sums(tmp_path: Path, axis: int, attributes: dict[str, int]) -> None:
    compare(tmp_path, node("CumSum", ["x", "axis"], ["y"], **attributes), {"x": X}, {"axis": np.array(axis)})
    compare(tmp_path, node("CumSum", ["x", "axis"], ["y"], **attributes), {"x": np.arange(24).reshape(2, 3, 4)},
            {"axis": np.array(axis)})


INDICES = np.array([[2, -1, 0], [1, 1, -3]])
REPEATED = np.round(random.standard_normal((3, 40)) * 2).astype(np.float32)


@pytest.mark.parametrize("attributes", [{"axis": 1}, {"axis": 0, "largest": 0}, {"axis": -1, "largest": 0}], ids=str)
@pytest.mark.parametrize("count", [1, 3])
def test_the_best_elements(tmp_path: Path, count: int, attributes: dict[str, int]) -> None:
    """Of equal ones the first; places as well."""
    item = node("TopK", ["x", "k"], ["values", "places"], **attributes)
    compare(tmp_path, item, {"x": REPEATED}, {"k": np.array([count])})


def test_a_whole_row_sorted(tmp_path: Path) -> None:
    item = node("TopK", ["x", "k"], ["values", "places"])
    compare(tmp_path, item, {"x": REPEATED}, {"k": np.array([40])})
    compare(tmp_path, item, {"x": REPEATED.astype(np.int64)}, {"k": np.array([7])})


def test_nan_is_the_largest(tmp_path: Path) -> None:
    x = np.array([1, np.nan, 3, -np.inf, np.inf, np.nan], np.float32)
    _, compiled = compile_one(tmp_path, node("TopK", ["x", "k"], ["v", "i"]), {"x": x}, {"k": np.array([4])})
    values, places = compiled.run(x)
    np.testing.assert_array_equal(values, [np.nan, np.nan, np.inf, 3])
    np.testing.assert_array_equal(places, [1, 5, 4, 2])
    _, compiled = compile_one(tmp_path, node("TopK", ["x", "k"], ["v", "i"]), {"x": x[[1, 5, 1, 5, 0]]},
                              {"k": np.array([3])})
    np.testing.assert_array_equal(compiled.run(x[[1, 5, 1, 5, 0]])[1], [0, 1, 2])


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gathering_at_run_time(tmp_path: Path, axis: int) -> None:
    compare(tmp_path, node("Gather", ["x", "i"], ["y"], axis=axis), {"x": X[:, :, :3], "i": INDICES % 2})


def test_an_embedding(tmp_path: Path) -> None:
    table = random.standard_normal((3, 8)).astype(np.float32)
    item = node("Gather", ["table", "i"], ["y"])
    compare(tmp_path, item, {"i": INDICES}, {"table": table})
    compare(tmp_path, item, {"i": INDICES.astype(np.int32)}, {"table": table})


def test_indices_outside_read_nothing(tmp_path: Path) -> None:
    """ONNX leaves it open; memory around the tensor is never read or written."""
    table = np.ones((3, 2), np.float32)
    outside = np.array([0, 3, -4, 2**40, -(2**40), -(2**32) - 2])
    _, compiled = compile_one(tmp_path, node("Gather", ["table", "i"], ["y"]), {"i": outside}, {"table": table})
    np.testing.assert_array_equal(np.isnan(compiled.run(outside)), [[i != 0] * 2 for i in range(6)])
    item = node("ScatterElements", ["x", "i", "u"], ["y"])
    inputs = {"x": np.zeros(3, np.float32), "i": outside, "u": np.ones(6, np.float32)}
    np.testing.assert_array_equal(compile_one(tmp_path, item, inputs)[1].run(inputs), [1, 0, 0])


@pytest.mark.parametrize("constant", [True, False])
def test_gathering_single_elements(tmp_path: Path, constant: bool) -> None:
    x, indices = random.standard_normal((4, 3)).astype(np.float32), {"i": INDICES}
    for item in (node("GatherElements", ["x", "i"], ["y"], axis=1), node("GatherND", ["x", "j"], ["y"])):
        named = indices if item.op_type == "GatherElements" else {"j": np.array([[[1, 2]], [[-1, 0]], [[0, 0]]])}
        compare(tmp_path, item, {"x": x} | ({} if constant else named), named if constant else {})
    item = node("GatherND", ["x", "j"], ["y"], batch_dims=1)
    compare(tmp_path, item, {"x": X}, {"j": np.array([[[2]], [[-3]]])})


@pytest.mark.parametrize("reduction", ["none", "add", "mul", "max", "min"])
def test_scattering(tmp_path: Path, reduction: str) -> None:
    x = random.standard_normal((4, 3)).astype(np.float32)
    apart = np.array([[2, -1, 0], [1, 2, -3]]) if reduction == "none" else INDICES
    updates = random.standard_normal((2, 3)).astype(np.float32)
    item = node("ScatterElements", ["x", "i", "u"], ["y"], axis=1, reduction=reduction)
    compare(tmp_path, item, {"x": x, "u": updates}, {"i": apart})
    rows = np.array([[1], [-1]] if reduction == "none" else [[1], [1]])
    compare(tmp_path, node("ScatterND", ["x", "i", "u"], ["y"], reduction=reduction), {"x": x, "i": rows, "u": updates})


@pytest.mark.parametrize("attributes", [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 1], "pads": [1, 0, 0, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "dilations": [2, 1], "storage_order": 1},
    {"kernel_shape": [3, 2], "auto_pad": "SAME_UPPER"},
], ids=["halves", "padded", "by column", "same"])
def test_pooling_tells_the_places(tmp_path: Path, attributes: dict) -> None:
    image = random.standard_normal((2, 3, 6, 7)).astype(np.float32)
    compare(tmp_path, node("MaxPool", ["x"], ["y", "places"], **attributes), {"x": image})


def test_unpooling_puts_back_what_pooling_found(tmp_path: Path) -> None:
    pooled = random.standard_normal((1, 2, 2, 2)).astype(np.float32)
    places = np.array([5, 7, 13, 15, 16, 18, 24, 31]).reshape(1, 2, 2, 2)
    item = node("MaxUnpool", ["x", "i"], ["y"], kernel_shape=[2, 2], strides=[2, 2])
    compare(tmp_path, item, {"x": pooled, "i": places})


def test_unpooling_to_the_odd_shape_that_was_pooled(tmp_path: Path) -> None:
    """The places are those in the pooled image, as torch and onnxruntime have it."""
    x = random.standard_normal((1, 2, 7, 5)).astype(np.float32)
    shape = numpy_helper.from_array(np.array(x.shape), "shape")
    common = {"kernel_shape": [2, 2], "strides": [2, 2]}
    graph = helper.make_graph(
        [node("MaxPool", ["x"], ["p", "i"], **common), node("MaxUnpool", ["p", "i", "shape"], ["y"], **common)], "test",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)], [onnx.ValueInfoProto(name="y")], [shape])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_array_equal(compile_model(tmp_path / "model.onnx").run(x), expected)


def test_sequences_are_reversed(tmp_path: Path) -> None:
    item = node("ReverseSequence", ["x", "lengths"], ["y"], batch_axis=0, time_axis=1)
    compare(tmp_path, item, {"x": X}, {"lengths": np.array([3, 2])})


def recurrent(op: str, gates: int, directions: int, *, size: int = 3, hidden: int = 4) -> dict[str, np.ndarray]:
    """Weights of the operator by the names of its inputs."""
    shapes = {"W": (directions, gates * hidden, size), "R": (directions, gates * hidden, hidden),
              "B": (directions, 2 * gates * hidden)}
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


SEQUENCE = random.standard_normal((5, 2, 3)).astype(np.float32)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_layers(tmp_path: Path, op: str, gates: int, direction: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    outputs = ["y", "h", "c"][:3 if op == "LSTM" else 2]
    first = random.standard_normal((directions, 2, 4)).astype(np.float32)
    weights = recurrent(op, gates, directions) | {"lengths": np.array([5, 3], np.int32), "first": first}
    item = node(op, ["x", "W", "R", "B", "lengths", "first"], outputs, hidden_size=4, direction=direction)
    compare(tmp_path, item, {"x": SEQUENCE}, weights)


def test_a_gated_layer_with_every_option(tmp_path: Path) -> None:
    weights = recurrent("LSTM", 4, 1) | {
        "first": random.standard_normal((2, 1, 2, 4)).astype(np.float32)[0], "c": np.full((1, 2, 4), 0.3, np.float32),
        "P": random.standard_normal((1, 12)).astype(np.float32)}
    item = node("LSTM", ["x", "W", "R", "B", "", "first", "c", "P"], ["", "h", "c_last"], hidden_size=4, clip=0.8,
                activations=["HardSigmoid", "Softsign", "Affine"], activation_alpha=[0.3, 0.9],
                activation_beta=[0.4, 0.1])
    compare(tmp_path, item, {"x": SEQUENCE}, weights)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_gates_are_clipped(tmp_path: Path, op: str, gates: int, direction: str) -> None:
    """The state of an LSTM's cell is not, however large it is."""
    directions = 2 if direction == "bidirectional" else 1
    weights = recurrent(op, gates, directions) | {"first": np.full((directions, 2, 4), 3, np.float32)}
    inputs = ["x", "W", "R", "B", "", "first", *(["first"] if op == "LSTM" else [])]
    item = node(op, inputs, ["y"], hidden_size=4, direction=direction, clip=0.5)
    compare(tmp_path, item, {"x": SEQUENCE}, weights)


@pytest.mark.parametrize("activations", [["Sigmoid", "Tanh", "Tanh"], ["HardSigmoid", "HardSigmoid", "HardSigmoid"]])
def test_clipped_gates_keep_nan(tmp_path: Path, activations: list[str]) -> None:
    item = node("LSTM", ["x", "W", "R", "B"], ["y"], hidden_size=4, clip=0.5, activations=activations)
    x = SEQUENCE.copy()
    x[2, 1, 0] = np.nan
    _, compiled = compile_one(tmp_path, item, {"x": x}, recurrent("LSTM", 4, 1))
    y = compiled.run(x)[:, 0]
    assert np.isnan(y[2:, 1]).all(), "from that step on"
    assert np.isfinite(y[:2]).all()
    assert np.isfinite(y[:, 0]).all()


@pytest.mark.parametrize("name", ["Relu", "Softplus", "Affine", "LeakyRelu", "Elu", "ThresholdedRelu"])
@pytest.mark.parametrize(("op", "gates", "count"), [("LSTM", 4, 3), ("GRU", 3, 2), ("RNN", 1, 1)])
def test_activations_without_a_bound(tmp_path: Path, op: str, gates: int, count: int, name: str) -> None:
    """Of large inputs they overflow, which is no difference of the code."""
    item = node(op, ["x", "W", "R", "B"], ["y"], hidden_size=4, direction="bidirectional",
                activations=[name] * 2 * count, activation_alpha=[0.3] * 2 * count)
    weights = {name: value * np.float32(0.3) for name, value in recurrent(op, gates, 2).items()}
    compare(tmp_path, item, {"x": SEQUENCE}, weights)


def test_a_reset_gate_before_and_behind_its_layer(tmp_path: Path) -> None:
    for before in (0, 1):
        item = node("GRU", ["x", "W", "R", "B"], ["y"], hidden_size=4, linear_before_reset=before)
        compare(tmp_path, item, {"x": SEQUENCE}, recurrent("GRU", 3, 1))


def test_weights_may_be_inputs(tmp_path: Path) -> None:
    item = node("LSTM", ["x", "W", "R"], ["y"], hidden_size=4)
    weights = recurrent("LSTM", 4, 1)
    compare(tmp_path, item, {"x": SEQUENCE, "W": weights["W"], "R": weights["R"]})


@pytest.mark.parametrize(("change", "complaint"), [
    ({"activations": ["Sigmoid", "Frobnicate", "Tanh"]}, "LSTM 'y': its activation 'Frobnicate' is unknown. Use one"),
    ({"direction": "sideways"}, "LSTM 'y': its direction 'sideways' is none of forward"),
    ({"hidden_size": 5}, "LSTM 'y': hidden_size 5 is not that of its weights"),
])
def test_recurrent_layers_that_contradict_themselves(tmp_path: Path, change: dict, complaint: str) -> None:
    item = node("LSTM", ["x", "W", "R"], ["y"], **{"hidden_size": 4, **change})
    weights = recurrent("LSTM", 4, 1)
    with pytest.raises(OneXNError, match=complaint):
        compile_one(tmp_path, item, {"x": SEQUENCE}, weights)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("aligned", [0, 1])
def test_pixels_from_a_grid(tmp_path: Path, mode: str, padding: str, aligned: int) -> None:
    """Also of images of one row, column or pixel, far outside, and by a grid that is a constant."""
    for shape in ((2, 3, 5, 4), (1, 2, 6, 1), (1, 2, 1, 4), (1, 2, 1, 1)):
        grid = random.uniform(-2.7, 2.7, (shape[0], 3, 5, 2)).astype(np.float32)
        item = node("GridSample", ["x", "grid"], ["y"], mode=mode, padding_mode=padding, align_corners=aligned)
        x = random.standard_normal(shape).astype(np.float32)
        compare(tmp_path, item, {"x": x, "grid": grid})
    compare(tmp_path, item, {"x": x}, {"grid": grid})


@pytest.mark.parametrize(("mode", "padding"), [("linear", "zeros"), ("linear", "reflection"), ("nearest", "border")])
def test_pixels_of_a_volume_from_a_grid(tmp_path: Path, mode: str, padding: str) -> None:
    grid = random.uniform(-1.6, 1.6, (1, 2, 3, 4, 3)).astype(np.float32)
    item = node("GridSample", ["x", "grid"], ["y"], mode=mode, padding_mode=padding)
    compare(tmp_path, item, {"x": random.standard_normal((1, 2, 3, 4, 5)).astype(np.float32), "grid": grid}, opset=20)
