"""Models of opsets before 11 are converted; onnxruntime runs the original."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, helper, numpy_helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model

node = helper.make_node
random = np.random.default_rng(0)
CONSTANTS = {
    "weight": random.standard_normal((6, 3, 3, 3)).astype(np.float32), "bias": np.ones(6, np.float32),
    "scale": np.full(6, 0.5, np.float32), "mean": random.standard_normal(6).astype(np.float32),
    "factors": np.array([1, 1, 2, 2], np.float32), "matrix": random.standard_normal((7, 5)).astype(np.float32),
    "row": np.ones(5, np.float32), "shape": np.array([1, -1, 9]),
}


def network(opset: int) -> list[NodeProto]:
    """A convolutional network as exporters of that time wrote it."""
    enlarge = "Upsample" if opset < 10 else "Resize"
    factors = {"scales": [1.0, 1.0, 2.0, 2.0]} if opset < 9 else {}
    return [
        node("Conv", ["x", "weight", "bias"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "scale", "bias", "mean", "scale"], ["n"]),
        node("LeakyRelu", ["n"], ["r"], alpha=0.1),
        node("MaxPool", ["r"], ["m"], kernel_shape=[2, 2], strides=[2, 2]),
        node(enlarge, ["m"] if factors else ["m", "factors"], ["u"], mode="nearest", **factors),
        node("Concat", ["u", "r"], ["j"], axis=1),
        node("Pad", ["j"], ["o"], pads=[0, 0, 1, 0, 0, 0, 1, 0], value=0.5),
        node("Pad", ["o"], ["p"], pads=[0, 0, 0, 1, 0, 0, 0, 1], value=0.5, mode="edge"),  # a value that is not used
        node("GlobalAveragePool", ["p"], ["g"]),
        node("Flatten", ["g"], ["y"]),
        node("Squeeze", ["g"], ["z"], axes=[2, 3]),
        node("Clip", ["p"], ["q"], min=0.0, max=6.0),
        node("Softmax", ["q"], ["s"], axis=1),
        node("ReduceSum", ["q"], ["t"], axes=[1], keepdims=0),
        node("Dropout", ["t"], ["d"]),
    ]


@pytest.mark.parametrize("opset", [7, 8, 9, 10])
def test_older_opsets(tmp_path: Path, opset: int) -> None:
    nodes = network(opset)
    outputs = ["y", "z", "s", "d"]
    graph = helper.make_graph(
        nodes, "old", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in CONSTANTS.items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    model = onnx.shape_inference.infer_shapes(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    x = random.standard_normal((1, 3, 8, 8)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for name, output, reference in zip(outputs, compile_model(tmp_path / "model.onnx").run(x), expected, strict=True):
        assert output.shape == reference.shape, name
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("opset", [8, 9, 10])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_images_are_resized_as_before_opset_11(tmp_path: Path, opset: int, mode: str) -> None:
    """Pixels counted from their corners. All of it in one network, whose comparison is off: it must not be needed."""
    nodes, constants = [], {}
    shapes = [(2.0, 2.0), (1.5, 2.5), *([(0.5, 0.6)] if opset == 10 else [])]
    for number, factors in enumerate(shapes):
        scales = np.array([1, 1, *factors], np.float32)
        name, constants[f"scales{number}"] = f"y{number}", scales
        nodes.append(node("Upsample", ["x"], [name], mode=mode, scales=scales.tolist()) if opset == 8 else
                     node("Upsample" if opset == 9 else "Resize", ["x", f"scales{number}"], [name], mode=mode))
    outputs = [f"y{number}" for number in range(len(shapes))]
    graph = helper.make_graph(
        nodes, "old", [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (1, 2, 6, 5))],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items() if opset > 8])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    x = random.standard_normal((1, 2, 6, 5)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for name, output, reference in zip(outputs, compile_model(tmp_path / "model.onnx", verify=False).run(x), expected,
                                       strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("kind", [np.float64, np.int64])
def test_values_that_pad_are_of_the_type_of_what_is_padded(tmp_path: Path, kind: type) -> None:
    nodes = [node("Add", ["x", "x"], ["t"]), node("Pad", ["t"], ["y"], pads=[0, 1, 2, 0], value=3.0)]
    element = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    graph = helper.make_graph(nodes, "old", [helper.make_tensor_value_info("x", element, (2, 3))],
                              [helper.make_tensor_value_info("y", element, (4, 4))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 10)], ir_version=4)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    x = np.arange(6).reshape(2, 3).astype(kind)
    made = compile_model(tmp_path / "model.onnx").run(x)
    assert made.dtype == kind
    np.testing.assert_array_equal(made, np.pad(2 * x, ((0, 2), (1, 0)), constant_values=3))


def test_what_cannot_be_converted_says_so(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [node("Upsample", ["x", "factors"], ["y"], mode="linear")], "old",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
         for name, shape in (("x", (1, 3, 8, 8)), ("factors", (4,)))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (1, 3, 16, 16))])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 9)], ir_version=4)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(OneXNError, match="depends on run-time values") as caught:
        compile_model(tmp_path / "model.onnx")
    assert caught.value.fix
