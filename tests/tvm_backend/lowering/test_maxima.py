"""Maxima and their places: NaN is the largest and the smallest wherever it stands, infinity is a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import NodeProto, helper
from onnx.reference import ReferenceEvaluator

from onexn_plugins.tvm_backend import compile_model

node = helper.make_node
random = np.random.default_rng(0)
ROWS = np.array([[1, np.nan, 3, np.nan, 2], [np.nan] * 5, [-np.inf] * 5, [np.inf, np.inf, 1, np.nan, -np.inf],
                 [0, -0.0, 0, -0.0, 0], [2, 1, 2, 1, 2], [np.inf] * 5], np.float32)


def compiled_one(path: Path, item: NodeProto, x: np.ndarray, opset: int = 17) -> tuple[np.ndarray, bytes]:
    info = helper.make_tensor_value_info("x", helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
    outputs = [onnx.ValueInfoProto(name=name) for name in item.output]
    model = onnx.shape_inference.infer_shapes(helper.make_model(
        helper.make_graph([item], "test", [info], outputs), opset_imports=[helper.make_opsetid("", opset)],
        ir_version=10)).SerializeToString()
    path.write_bytes(model)
    return compile_model(path, verify=False).run(x), model


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
def test_places_of_extremes(tmp_path: Path, op: str, axis: int, last: int) -> None:
    item = node(op, ["x"], ["y"], axis=axis, select_last_index=last, keepdims=last)
    for x in (ROWS, ROWS.astype(np.float64)):
        output, model = compiled_one(tmp_path / "model.onnx", item, x)
        np.testing.assert_array_equal(output, ReferenceEvaluator(model).run(None, {"x": x})[0])
    for dtype in (np.int64, np.int32, np.int8, np.uint8):
        x = random.integers(0, 3, (4, 5)).astype(dtype)
        output, model = compiled_one(tmp_path / "model.onnx", item, x)
        np.testing.assert_array_equal(output, ReferenceEvaluator(model).run(None, {"x": x})[0])


@pytest.mark.parametrize(("axis", "opset"), [(0, 11), (1, 11), (2, 12), (0, 13), (1, 13), (-1, 17)])
def test_hardmax(tmp_path: Path, axis: int, opset: int) -> None:
    """Before opset 13 of everything from the axis on."""
    item, x = node("Hardmax", ["x"], ["y"], axis=axis), np.round(random.standard_normal((2, 3, 4)))
    output, model = compiled_one(tmp_path / "model.onnx", item, x.astype(np.float32), opset)
    expected = onnxruntime.InferenceSession(model).run(None, {"x": x.astype(np.float32)})[0]
    np.testing.assert_array_equal(output, expected)
    output, _ = compiled_one(tmp_path / "model.onnx", item, x, opset)  # of doubles
    np.testing.assert_array_equal(output, expected)
    output, _ = compiled_one(tmp_path / "model.onnx", node("Hardmax", ["x"], ["y"]), ROWS, 17)
    np.testing.assert_array_equal(output.argmax(1), ROWS.argmax(1))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_largest_of_a_channel(tmp_path: Path, axes: int, dtype: type) -> None:
    x = random.standard_normal((2, 3, *range(3, 3 + axes))).astype(dtype)
    x[0, 0].flat[1], x[0, 1], x[1, 0].flat[0] = np.nan, -np.inf, np.inf
    output, _ = compiled_one(tmp_path / "model.onnx", node("GlobalMaxPool", ["x"], ["y"]), x)
    np.testing.assert_array_equal(output, x.max(axis=tuple(range(2, 2 + axes)), keepdims=True))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("attributes", [{}, {"strides": 2, "pads": 1}, {"dilations": 2, "pads": 1},
                                        {"strides": 3, "ceil_mode": 1, "pads": 1}], ids=str)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_largest_of_windows(tmp_path: Path, axes: int, attributes: dict[str, int], dtype: type) -> None:
    """Of signals, images and volumes, by kernels of ours and without one, as torch has it."""
    x = random.standard_normal((2, 3, *range(7, 7 + axes))).astype(dtype)
    x[0, 0].flat[20 % x[0, 0].size], x[0, 1], x[1, 0].flat[0] = np.nan, -np.inf, np.inf
    named = {name: value if name == "ceil_mode" else [value] * axes * (2 if name == "pads" else 1)
             for name, value in attributes.items()}
    item = node("MaxPool", ["x"], ["y"], kernel_shape=[3] * axes, **named)
    output, _ = compiled_one(tmp_path / "model.onnx", item, x, opset=22)
    pool = (torch.nn.functional.max_pool1d, torch.nn.functional.max_pool2d, torch.nn.functional.max_pool3d)[axes - 1]
    expected = pool(torch.from_numpy(x), 3, attributes.get("strides", 1), attributes.get("pads", 0),
                    attributes.get("dilations", 1), bool(attributes.get("ceil_mode", 0)))
    np.testing.assert_array_equal(output, expected.numpy())


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_the_largest_whole_number_of_windows(tmp_path: Path, dtype: type) -> None:
    x = random.integers(np.iinfo(dtype).min, 0 if dtype == np.int8 else 9, (1, 2, 5, 6)).astype(dtype)
    item = node("MaxPool", ["x"], ["y"], kernel_shape=[2, 3], pads=[1, 1, 1, 1], strides=[2, 1])
    output, model = compiled_one(tmp_path / "model.onnx", item, x)
    np.testing.assert_array_equal(output, onnxruntime.InferenceSession(model).run(None, {"x": x})[0])
