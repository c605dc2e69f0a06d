"""Networks with transposed convolutions: what onnxruntime and torch make of them, and what reports say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.export import PATTERN_KEY
from onexn_plugins.tvm_backend import Compiled, compile_model, inspect_onnx
from onexn_plugins.tvm_backend.reading.building import build_graph
from onexn_plugins.tvm_backend.reading.canonical import canonicalise
from onexn_plugins.tvm_backend.reading.onnx_model import load_onnx_model
from tests.tvm_backend.comparing import compile_and_compare
from tests.tvm_backend.networks import UpSampling, prune_transposed
from tests.tvm_backend.onnx_files import make_model

node = helper.make_node
CASES, SEEDS = 6, range(2)


def random_case(number: int, random: np.random.Generator) -> tuple[list[onnx.NodeProto], dict, dict]:
    """A ConvTranspose of x<number> to y<number> with any attributes that onnxruntime takes, followed by this and that.

    It wants an output_padding below the stride, and with "SAME" makes less than the standard says where taps do not
    reach over the stride.
    """
    axes, groups = int(random.integers(1, 3)), int(random.choice([1, 1, 2]))
    inputs, outputs = groups * int(random.integers(1, 5)), groups * int(random.integers(1, 9))
    kernel, image = (random.integers(1, most, axes).tolist() for most in (5, 8))
    strides, dilations = (random.integers(1, most, axes).tolist() for most in (4, 3))
    attributes = {"strides": strides, "dilations": dilations, "group": groups}
    more = [int(random.integers(0, stride)) for stride in strides]
    whole = [(size - 1) * stride + (taps - 1) * dilation + 1
             for size, stride, taps, dilation in zip(image, strides, kernel, dilations, strict=True)]
    kind = random.integers(0, 4)
    reaching = all((taps - 1) * dilation + 1 >= stride for taps, dilation, stride in zip(
        kernel, dilations, strides, strict=True))
    if kind == 0 and reaching:
        attributes["auto_pad"] = str(random.choice(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    elif kind == 1:
        attributes["output_shape"] = [int(random.integers(max(1, size - 3), size + 1)) for size in whole]
    else:
        pads = [[int(random.integers(0, 1 + min(3, (size - 1) // 2))) for size in whole] for _ in (0, 1)]
        attributes |= {"pads": pads[0] + pads[1], "output_padding": more}
    weight = random.standard_normal((inputs, outputs // groups, *kernel)) * (random.random((inputs, 1, *kernel)) < 0.5)
    constants = {f"w{number}": weight.astype(np.float32),
                 f"s{number}": random.random((outputs, *[1] * axes), np.float32)}
    names = [f"x{number}", f"w{number}"]
    if random.random() < 0.5:
        constants[f"b{number}"] = random.standard_normal(outputs).astype(np.float32)
        names.append(f"b{number}")
    steps = [node("ConvTranspose", names, [f"c{number}"], **attributes),
             node("Mul", [f"c{number}", f"s{number}"], [f"m{number}"]), node("Relu", [f"m{number}"], [f"y{number}"])]
    return steps, constants, {f"x{number}": (int(random.integers(1, 3)), inputs, *image)}


@pytest.mark.parametrize("seed", SEEDS)
def test_any_attributes_are_as_in_onnxruntime(tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    nodes, constants, inputs = [], {}, {}
    for number in range(CASES):
        steps, more, given = random_case(number, random)
        nodes += steps
        constants |= more
        inputs |= given
    compiled, expected, feeds = both(tmp_path, nodes, inputs, [f"y{number}" for number in range(CASES)], constants)
    assert len(compiled.layers) == CASES
    for layer in compiled.layers:
        assert layer.operator in ("transposed", "conv", "depthwise"), layer.reason
    for output, reference in zip(compiled.run(feeds), expected, strict=True):
        np.testing.assert_allclose(output, reference, rtol=1e-4, atol=1e-4)


def both(path: Path, nodes, inputs, outputs, constants) -> tuple[Compiled, list[np.ndarray], dict[str, np.ndarray]]:
    """The compiled network, what onnxruntime gives, and for which inputs."""
    model = make_model(nodes, inputs, outputs, constants)
    (path / "model.onnx").write_bytes(model.SerializeToString())
    random = np.random.default_rng(0)
    feeds = {name: random.standard_normal(shape).astype(np.float32) for name, shape in inputs.items()}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    return compile_model(path / "model.onnx", verify=False), expected, feeds


def test_layers_are_listed_once_under_their_names_and_are_sparse(tmp_path: Path) -> None:
    model, x = prune_transposed(UpSampling(), 4, 0.75), torch.randn(2, 8, 6, 5)
    compiled = compile_and_compare(model, (x,), tmp_path / "model.onnx")
    layers = {layer.name: layer for layer in compiled.layers}
    assert list(layers) == ["up", "odd", "bilinear", "flat"]
    assert [layer.operator for layer in compiled.layers] == ["transposed"] * 3 + ["conv"]
    up = layers["up"]
    assert (up.sparse, up.block_size, up.family, up.shape) == (True, 4, "transposed", (8, 16, 4, 4))
    assert up.dense_macs == 2 * 6 * 5 * 8 * 16 * 16
    assert up.macs == round(up.kept * up.dense_macs)
    assert layers["flat"].sparse, "the taps of one of stride 1 are turned round, its blocks are the same"
    listed = inspect_onnx(tmp_path / "model.onnx")
    assert [entry["name"] for entry in listed] == list(layers)
    profile = compiled.profile(1)
    assert [kernel.name for kernel in profile.kernels if kernel.name in layers] == list(layers)


def test_the_block_size_is_that_of_the_file_or_the_one_asked_for(tmp_path: Path) -> None:
    weight = np.ones((6, 2, 8, 2, 2), np.float32)
    weight[::2, 1] = weight[1::2, 0] = 0  # blocks of eight, half of which are gone
    model = make_model([node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2])], {"x": (1, 6, 5, 5)}, ["y"],
                       {"w": weight.reshape(6, 16, 2, 2)})
    for recorded, asked, expected in ((None, None, 8), (4, None, 4), (4, 2, 2)):
        if recorded:
            helper.set_model_props(model, {PATTERN_KEY: json.dumps({"w": {"block_size": recorded}})})
        onnx.save(model, tmp_path / "model.onnx")
        (layer,) = inspect_onnx(tmp_path / "model.onnx", block_size=asked)
        assert (layer["block_size"], layer["kept"]) == (expected, 0.5)


def test_three_axes_are_left_to_tvm_and_the_report_says_why(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    constants = {"w": random.standard_normal((2, 3, 2, 2, 2)).astype(np.float32)}
    compiled, (expected,), feeds = both(tmp_path, [node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2, 2])],
                                        {"x": (1, 2, 3, 4, 3)}, ["y"], constants)
    np.testing.assert_allclose(compiled.run(feeds), expected, rtol=1e-4, atol=1e-5)
    (layer,) = compiled.layers
    assert layer.family is None
    assert "only one- and two-dimensional transposed convolutions" in layer.reason


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(("axes", "dtype", "is_given"), [(3, np.float32, False), (3, np.float32, True),
                                                         (2, np.float32, True), (1, np.float32, True),
                                                         (2, np.float64, False), (1, np.float64, True)])
def test_dilated_ones_without_a_kernel_keep_nan_where_it_is(tmp_path: Path, axes: int, dtype: type, is_given: bool,
                                                            groups: int) -> None:
    """With weights that are inputs, of doubles or of volumes: nothing stands between the taps."""
    random = np.random.default_rng(axes)
    x = random.standard_normal((2, 4, *range(3, 3 + axes))).astype(dtype)
    x[0, 1].flat[1], x[1, 2].flat[0] = np.nan, np.inf
    weight = random.standard_normal((4, 6 // groups, *[3, 2, 3][:axes])).astype(dtype)
    settings = {"stride": [2, 1, 3][:axes], "dilation": [2, 3, 1][:axes], "padding": [1, 2, 0][:axes],
                "output_padding": [1, 0, 2][:axes]}
    attributes = {"strides": settings["stride"], "dilations": settings["dilation"], "pads": settings["padding"] * 2,
                  "output_padding": settings["output_padding"], "group": groups}
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    names = ["x", "w"] if is_given else ["x"]
    graph = helper.make_graph(
        [node("ConvTranspose", ["x", "w"], ["y"], **attributes)], "test",
        [helper.make_tensor_value_info(name, kind, {"x": x, "w": weight}[name].shape) for name in names],
        [helper.make_empty_tensor_value_info("y")], [] if is_given else [numpy_helper.from_array(weight, "w")])
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), path)
    result = compile_model(path, verify=False, strict=True).run({"x": x, "w": weight} if is_given else {"x": x})
    layer = getattr(torch.nn.functional, f"conv_transpose{axes}d")
    expected = layer(torch.from_numpy(x), torch.from_numpy(weight), groups=groups, **settings).numpy()
    reached = layer(torch.from_numpy((~np.isfinite(x)).astype(dtype)), torch.from_numpy(np.ones_like(weight)),
                    groups=groups, **settings).numpy()
    np.testing.assert_array_equal(np.isfinite(result), reached == 0)
    finite = np.isfinite(result)
    np.testing.assert_allclose(result[finite], expected[finite], rtol=1e-4, atol=1e-4)


def test_one_of_stride_1_that_is_cut_within_its_taps_stays_transposed(tmp_path: Path) -> None:
    """As a convolution it would have negative padding."""
    constants = {"w": np.ones((2, 3, 3, 3), np.float32)}
    model = make_model([node("ConvTranspose", ["x", "w"], ["y"], pads=[3, 1, 0, 3])], {"x": (1, 2, 6, 6)}, ["y"],
                       constants)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    graph = build_graph(load_onnx_model(tmp_path / "model.onnx"))
    canonicalise(graph)
    assert [step.op for step in graph.nodes] == ["ConvTranspose"]
    compiled, (expected,), feeds = both(
        tmp_path, [node("ConvTranspose", ["x", "w"], ["y"], pads=[3, 1, 0, 3])], {"x": (1, 2, 6, 6)}, ["y"], constants)
    np.testing.assert_allclose(compiled.run(feeds), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("shape", "groups", "bias"),
                         [((4, 2, 3, 3), 3, 6), ((3, 2, 3, 3), 1, 2), ((4, 2, 3, 3), 2, 2)])
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path, shape, groups, bias) -> None:
    graph = helper.make_graph(
        [node("ConvTranspose", ["x", "w", "b"], ["y"], "up", group=groups)], "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 5, 5))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(shape, np.float32), "w"),
         numpy_helper.from_array(np.ones(bias, np.float32), "b")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10),
              tmp_path / "model.onnx")
    with pytest.raises(OneXNError, match=r"ConvTranspose 'up'"):
        compile_model(tmp_path / "model.onnx")
