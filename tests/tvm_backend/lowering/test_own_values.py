"""What TVM's lowering got wrong is right by lowerings of our own: onnxruntime or ONNX's reference computes the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import NodeProto, TensorProto, helper
from onnx.reference import ReferenceEvaluator

from onexn_plugins.tvm_backend import compile_model
from tests.tvm_backend.onnx_files import make_model

node = helper.make_node
random = np.random.default_rng(0)
SHAPE = (1, 8, 7, 10)
X = random.standard_normal(SHAPE).astype(np.float32)
SPECIAL = X.copy()
for _value in (np.nan, np.inf, -np.inf, 0.0, 104.0, -104.0):
    SPECIAL[0, random.integers(0, 8, 9), random.integers(0, 7, 9), random.integers(0, 10, 9)] = _value


def compiled(path: Path, nodes: list[NodeProto], constants: dict[str, np.ndarray], x: np.ndarray,
             opset: int = 19) -> tuple[list[np.ndarray], bytes]:
    """Our outputs of a model that has every node's first output as its own, and the model."""
    names = [item.output[0] for item in nodes]
    model = make_model(nodes, {"x": x.shape}, names, constants, opset).SerializeToString()
    path.write_bytes(model)
    outputs = compile_model(path, verify=False).run(x)
    return outputs if isinstance(outputs, list) else [outputs], model


def check(path: Path, nodes: list[NodeProto], constants: dict[str, np.ndarray], x: np.ndarray = X,
          opset: int = 19) -> None:
    outputs, model = compiled(path, nodes, constants, x, opset)
    expected = onnxruntime.InferenceSession(model).run(None, {"x": x})
    for item, output, reference in zip(nodes, outputs, expected, strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-5, err_msg=str(item))


MODES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel")
SCALES = {"up": np.float32([1, 1, 1.5, 1.3]), "down": np.float32([1, 1, 0.6, 0.8]), "both": np.float32([1, 1, 0.5, 2])}


@pytest.mark.parametrize("mode", MODES)
def test_resize_by_fractional_scales(tmp_path: Path, mode: str) -> None:
    nodes = []
    for scale in SCALES:
        common = {"coordinate_transformation_mode": mode}
        inputs = ["x", "", scale]
        nodes += [node("Resize", inputs, [f"{scale}_linear"], mode="linear", **common),
                  node("Resize", inputs, [f"{scale}_cubic"], mode="cubic", cubic_coeff_a=-0.5, **common),
                  node("Resize", inputs, [f"{scale}_outside"], mode="cubic", exclude_outside=1, **common)]
        nodes += [node("Resize", inputs, [f"{scale}_{nearest}"], mode="nearest", nearest_mode=nearest, **common)
                  for nearest in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")]
    check(tmp_path / "model.onnx", nodes, SCALES)


def test_resize_of_some_axes_to_sizes_with_antialias_and_crop(tmp_path: Path) -> None:
    constants = {"sizes": np.array([5, 12]), "shape": np.array([1, 8, 4, 4]), "roi": np.float32([0.1, -0.2, 0.8, 1.2]),
                 "half": np.float32([0.5, 0.5])}
    nodes = [
        node("Resize", ["x", "", "", "sizes"], ["axes"], mode="linear", axes=[2, 3]),
        node("Resize", ["x", "", "", "sizes"], ["swapped"], mode="cubic", axes=[3, 2]),
        node("Resize", ["x", "", "", "sizes"], ["larger"], axes=[2, 3], keep_aspect_ratio_policy="not_smaller"),
        node("Resize", ["x", "", "", "shape"], ["smooth"], mode="linear", antialias=1),
        node("Resize", ["x", "", "half"], ["smoother"], mode="cubic", antialias=1, axes=[2, 3]),
        node("Resize", ["x", "roi", "", "sizes"], ["cropped"], mode="linear", axes=[2, 3], extrapolation_value=9.0,
             coordinate_transformation_mode="tf_crop_and_resize"),
    ]
    outputs, model = compiled(tmp_path / "model.onnx", nodes, constants, X)
    theirs = onnxruntime.InferenceSession(model).run(None, {"x": X})
    exact = ReferenceEvaluator(model).run(None, {"x": X})
    for item, output, *references in zip(nodes, outputs, theirs, exact, strict=True):
        assert any(output.shape == reference.shape and np.allclose(output, reference, atol=1e-4)
                   for reference in references), item


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_a_kept_aspect_ratio_is_one_scale_of_all_axes(tmp_path: Path, policy: str) -> None:
    nodes = [node("Resize", ["x", "", "", "sizes"], [mode], mode=mode, axes=[2, 3], keep_aspect_ratio_policy=policy)
             for mode in ("nearest", "linear")]
    check(tmp_path / "model.onnx", nodes, {"sizes": np.array([7, 7])},
          random.standard_normal((1, 1, 10, 5)).astype(np.float32))


def test_values_that_are_moved(tmp_path: Path) -> None:
    constants = {"repeats": np.array([2, 1, 3, 2]), "crop": np.array([0, 0, -1, 2, 0, 0, 3, -2])}
    nodes = [
        node("Tile", ["x", "repeats"], ["tiled"]),
        *(node("Pad", ["x", "crop"], [mode], mode=mode) for mode in ("wrap", "edge", "reflect")),
        node("DepthToSpace", ["x"], ["dcr"], blocksize=2),
        node("DepthToSpace", ["x"], ["crd"], blocksize=2, mode="CRD"),
    ]
    check(tmp_path / "model.onnx", nodes, constants)
    check(tmp_path / "model.onnx", [node("SpaceToDepth", ["x"], ["y"], blocksize=2)], {}, X[:, :, :6])


def test_what_is_laid_side_by_side_along_the_last_axis(tmp_path: Path) -> None:
    """Of any types, also an input twice, one of no elements, one of one, and a constant."""
    constants = {"three": random.standard_normal((1, 8, 7, 3)).astype(np.float32), "from": np.array([0]),
                 "to": np.array([1]), "last": np.array([-1]), "none": np.zeros((1, 8, 7, 0), np.float32)}
    nodes = [node("Slice", ["x", "from", "to", "last"], ["one"]),
             node("Concat", ["x", "one", "none", "three", "x"], ["y"], axis=-1),
             node("Concat", ["one", "one"], ["pair"], axis=3)]
    check(tmp_path / "model.onnx", nodes, constants)
    for kind in (TensorProto.BOOL, TensorProto.INT64, TensorProto.FLOAT16, TensorProto.DOUBLE):
        nodes = [node("Cast", ["x"], ["wide"], to=kind), node("Cast", ["three"], ["narrow"], to=kind),
                 node("Concat", ["narrow", "wide"], ["both"], axis=3),
                 node("Cast", ["both"], ["y"], to=TensorProto.FLOAT)]
        model = make_model(nodes, {"x": SHAPE}, ["y"], constants, 19)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": X})
        np.testing.assert_array_equal(compile_model(tmp_path / "model.onnx", verify=False).run(X), expected)


def test_nan_and_infinities(tmp_path: Path) -> None:
    constants = {"low": np.float32(-0.5), "six": np.float32(6), "channel": np.array([1]), "other": X}
    plain = [node(op, ["x"], [op]) for op in ("Relu", "Elu", "Selu", "Sign", "HardSigmoid", "HardSwish", "IsInf", "Exp",
                                              "ThresholdedRelu", "Erf", "Sigmoid", "Tanh")]
    nodes = [
        *plain, node("Clip", ["x", "low", "six"], ["clipped"]), node("Clip", ["x", "six", "low"], ["crossed"]),
        node("IsInf", ["x"], ["negative"], detect_positive=0), node("IsInf", ["x"], ["neither"], detect_positive=0,
                                                                    detect_negative=0),
        node("Max", ["x", "other", "low"], ["largest"]), node("Min", ["other", "x"], ["smallest"]),
        node("ReduceMax", ["x", "channel"], ["reduced"]), node("ReduceMin", ["x"], ["all"], keepdims=0),
    ]
    model = make_model(nodes, {"x": SHAPE}, [], constants)
    model.graph.output.extend(helper.make_empty_tensor_value_info(item.output[0]) for item in nodes)
    outputs, content = compiled_of(tmp_path / "model.onnx", model.SerializeToString(), SPECIAL)
    theirs = onnxruntime.InferenceSession(content).run(None, {"x": SPECIAL})
    # Whether a row with NaN has a largest value depends, in onnxruntime, on where the NaN stands.
    exact = ReferenceEvaluator(content).run(None, {"x": SPECIAL})
    for item, output, *references in zip(nodes, outputs, theirs, exact, strict=True):
        reference = references["Reduce" in item.op_type]
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-5, err_msg=str(item))


def test_operators_with_numbers_of_their_own_in_float64(tmp_path: Path) -> None:
    nodes = [node(op, ["x"], [op]) for op in ("Sigmoid", "Elu", "Selu", "ThresholdedRelu", "Relu", "Celu")]
    nodes += [node("Clip", ["x", "low"], ["clipped"]), node("HardSigmoid", ["x"], ["h"], alpha=0.25)]
    model = make_model(nodes, {"x": SHAPE}, [], {"low": np.float64(-0.3)})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.output.extend(helper.make_empty_tensor_value_info(item.output[0]) for item in nodes)
    x = X.astype(np.float64)
    outputs, content = compiled_of(tmp_path / "model.onnx", model.SerializeToString(), x)
    for item, output, exact in zip(nodes, outputs, ReferenceEvaluator(content).run(None, {"x": x}), strict=True):
        assert output.dtype == np.float64, item.op_type
        np.testing.assert_allclose(output, exact, rtol=1e-9, atol=1e-12, err_msg=str(item))


def test_small_doubles_do_not_vanish(tmp_path: Path) -> None:
    x = np.array([-3e-39, 1e-20, -1e-9, 9.9e-4, -1.01e-3, 0.3, -20.0, np.inf, -np.inf, np.nan, 0.0])
    model = make_model([node("Tanh", ["x"], ["y"])], {"x": x.shape}, [], {})
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE
    model.graph.output.append(helper.make_empty_tensor_value_info("y"))
    output, _ = compiled_of(tmp_path / "model.onnx", model.SerializeToString(), x)
    np.testing.assert_allclose(output, np.tanh(x), rtol=1e-11)


def compiled_of(path: Path, model: bytes, x: np.ndarray) -> tuple[list[np.ndarray], bytes]:
    path.write_bytes(model)
    return compile_model(path, verify=False).run(x), model


def test_the_largest_of_nothing_but_minus_infinity(tmp_path: Path) -> None:
    x = np.full((1, 3, 4, 4), -np.inf, np.float32)
    check(tmp_path / "model.onnx", [node("ReduceMax", ["x", "axis"], ["y"])], {"axis": np.array([1])}, x)


def test_batch_normalisation_that_trains(tmp_path: Path) -> None:
    names = ("scale", "shift", "mean", "variance")
    constants = {name: np.abs(random.standard_normal(8)).astype(np.float32) + 0.1 for name in names}
    nodes = [node("BatchNormalization", ["x", *names], ["y", "mean_after", "variance_after"], training_mode=1,
                  momentum=0.7)]
    model = make_model(nodes, {"x": SHAPE}, ["y", "mean_after", "variance_after"], constants, 15).SerializeToString()
    outputs, _ = compiled_of(tmp_path / "model.onnx", model, X)
    for output, reference in zip(outputs, ReferenceEvaluator(model).run(None, {"x": X}), strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", [12, 16])
def test_regions(tmp_path: Path, opset: int) -> None:
    rois = np.float32([[0, 0, 8, 6], [2, 3, 12, 14], [-3, 1, 4, 5], [5, 5, 5, 5]])
    constants = {"rois": rois, "image": np.zeros(4, np.int64)}
    kinds = [{"mode": mode, "sampling_ratio": ratio} for mode in ("avg", "max") for ratio in (0, 2)]
    nodes = [node("RoiAlign", ["x", "rois", "image"], [f"y{place}"], output_height=3, output_width=2, spatial_scale=0.5,
                  **kind) for place, kind in enumerate(kinds)]
    check(tmp_path / "model.onnx", nodes, constants, opset=opset)


@pytest.mark.parametrize("opset", [11, 19, 22])
def test_pools_whose_last_windows_lie_in_the_padding(tmp_path: Path, opset: int) -> None:
    common = {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}
    nodes = [node("MaxPool", ["x"], ["largest"], **common), node("AveragePool", ["x"], ["mean"], **common),
             node("AveragePool", ["x"], ["counted"], count_include_pad=1, **common)]
    check(tmp_path / "model.onnx", nodes, {}, random.standard_normal((1, 4, 9, 11)).astype(np.float32), opset)


@pytest.mark.parametrize("zero", [np.float32(0), np.zeros((1, 1, 1), np.float32)])
def test_infinity_times_zero_is_nan(tmp_path: Path, zero: np.ndarray) -> None:
    check(tmp_path / "model.onnx", [node("Mul", ["x", "zero"], ["y"]), node("Mul", ["zero", "x"], ["z"])],
          {"zero": zero}, SPECIAL)
