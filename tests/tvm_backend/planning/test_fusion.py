"""Which nodes one kernel computes, and what is left to TVM."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import NodeProto, helper

from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.planning.fusion import KernelCall, fuse
from onexn_plugins.tvm_backend.planning.layer import Layer
from onexn_plugins.tvm_backend.planning.plan import Planner
from onexn_plugins.tvm_backend.reading.building import build_graph
from onexn_plugins.tvm_backend.reading.canonical import canonicalise
from onexn_plugins.tvm_backend.reading.folding import fold_layers
from onexn_plugins.tvm_backend.reading.onnx_model import load_onnx_model
from onexn_plugins.tvm_backend.reading.sinking import sink_reshapes
from tests.tvm_backend.kernels.differential import AVX2, AVX512, SSE
from tests.tvm_backend.onnx_files import OPSET, make_model

node = helper.make_node
WEIGHTS = {
    "w": np.ones((4, 4, 1, 1), np.float32), "d": np.ones((4, 1, 3, 3), np.float32), "m": np.eye(6, dtype=np.float32),
    "zero": np.float32(0), "one": np.float32(1), "three": np.float32([3]), "five": np.float32(5), "six": np.float32(6),
    "half": np.float32([[[[0.5]]]]), "sixth": np.float32(1 / 6), "root": np.float32(2**0.5),
    "bright": np.float32(255), "magic": np.float32(12582912), "endless": np.float32(np.inf),
}
CONV = node("Conv", ["x", "w"], ["c"])
ERF = (node("Div", ["c", "root"], ["u"]), node("Erf", ["u"], ["e"]), node("Add", ["e", "one"], ["s"]))


def order(path: Path, nodes: list[NodeProto], outputs: tuple[str, ...] = ("y",), opset: int = OPSET, *,
          side: int = 6, unit: VectorUnit = SSE) -> tuple[list[str], list[Layer]]:
    """Every step by its operators, joined by + where one kernel computes them, and the layers."""
    path.write_bytes(make_model(nodes, {"x": (1, 4, side, side)}, outputs, WEIGHTS, opset).SerializeToString())
    graph = build_graph(load_onnx_model(path))
    canonicalise(graph)
    sink_reshapes(graph)
    fold_layers(graph)
    steps, layers = fuse(graph, Planner(unit, None, {}))
    names = ["+".join(part.op for part in step.nodes) if isinstance(step, KernelCall) else f"({step.op})"
             for step in steps]
    return names, layers


@pytest.mark.parametrize(("nodes", "expected"), [
    ([CONV, node("Relu", ["c"], ["y"])], ["Conv+Relu"]),
    ([node("ConvTranspose", ["x", "w"], ["c"], strides=[2, 2]), node("Mul", ["c", "half"], ["h"]),
      node("Relu", ["h"], ["y"])], ["ConvTranspose+Relu"]),
    ([node("ConvTranspose", ["x", "w"], ["c"]), node("Add", ["c", "x"], ["s"]), node("Relu", ["s"], ["y"])],
     ["Conv+Add+Relu"]),
    ([CONV, node("Clip", ["c", "zero", "six"], ["y"])], ["Conv+Clip"]),
    ([CONV, node("Clip", ["c", "zero"], ["y"])], ["Conv+Clip"]),
    ([CONV, node("Clip", ["c", "zero", "five"], ["y"])], ["Conv", "(Clip)"]),
    ([CONV, node("Clip", ["c", "zero", "bright"], ["y"])], ["Conv", "(Clip)"]),
    ([CONV, node("Clip", ["c", "zero", "endless"], ["y"])], ["Conv+Clip"]),
    ([CONV, node("Clip", ["c", "", "six"], ["y"])], ["Conv", "(Clip)"]),
    ([CONV, node("Relu", ["c"], ["r"]), node("Min", ["r", "bright"], ["y"])], ["Conv+Relu", "(Min)"]),
    ([CONV, node("Sigmoid", ["c"], ["s"]), node("Min", ["s", "bright"], ["y"])], ["Conv+Sigmoid", "(Min)"]),
    ([CONV, node("Min", ["c", "zero"], ["n"]), node("Sub", ["c", "n"], ["y"])], ["Conv", "(Min)", "(Sub)"]),
    ([CONV, node("Mul", ["c", "half"], ["h"]), node("Tanh", ["h"], ["t"]), node("Mul", ["t", "half"], ["u"]),
      node("Add", ["u", "half"], ["y"])], ["Conv", "(Tanh)", "(Mul)", "(Add)"]),
    ([CONV, node("HardSwish", ["c"], ["y"])], ["Conv+HardSwish"]),
    ([CONV, node("HardSigmoid", ["c"], ["y"], alpha=1 / 6)], ["Conv+HardSigmoid"]),
    ([CONV, node("HardSigmoid", ["c"], ["y"])], ["Conv", "(HardSigmoid)"]),
    ([CONV, node("Tanh", ["c"], ["y"])], ["Conv", "(Tanh)"]),
    ([CONV, node("Sigmoid", ["c"], ["g"]), node("Mul", ["g", "c"], ["y"])], ["Conv+Sigmoid+Mul"]),
    ([CONV, node("HardSigmoid", ["c"], ["g"], alpha=1 / 6), node("Mul", ["c", "g"], ["y"])], ["Conv+HardSigmoid+Mul"]),
    ([CONV, node("Sigmoid", ["c"], ["g"]), node("Mul", ["g", "x"], ["y"])], ["Conv+Sigmoid", "(Mul)"]),
    ([CONV, node("Max", ["c", "zero"], ["u"]), node("Min", ["six", "u"], ["y"])], ["Conv+Max+Min"]),
    ([CONV, node("Add", ["c", "three"], ["s"]), node("Clip", ["s", "zero", "six"], ["g"]),
      node("Mul", ["c", "g"], ["p"]), node("Div", ["p", "six"], ["y"])], ["Conv+Add+Clip+Mul+Div"]),
    ([CONV, node("Add", ["c", "three"], ["s"]), node("Clip", ["s", "zero", "six"], ["g"]),
      node("Mul", ["g", "sixth"], ["u"]), node("Mul", ["c", "u"], ["y"])], ["Conv+Add+Clip+Mul+Mul"]),
    ([CONV, node("Neg", ["c"], ["n"]), node("Exp", ["n"], ["e"]), node("Add", ["e", "one"], ["s"]),
      node("Div", ["c", "s"], ["y"])], ["Conv+Neg+Exp+Add+Div"]),
    ([CONV, *ERF, node("Mul", ["c", "s"], ["p"]), node("Mul", ["p", "half"], ["y"])], ["Conv+Div+Erf+Add+Mul+Mul"]),
    ([CONV, node("Mul", ["c", "half"], ["h"]), *ERF, node("Mul", ["h", "s"], ["y"])], ["Conv+Mul+Div+Erf+Add+Mul"]),
    ([CONV, *ERF, node("Mul", ["c", "s"], ["y"])], ["Conv", "(Div)", "(Erf)", "(Add)", "(Mul)"]),
    ([CONV, node("Mul", ["c", "half"], ["h"]), node("Relu", ["h"], ["y"])], ["Conv+Relu"]),
    ([CONV, node("Relu", ["c"], ["r"]), node("Relu", ["r"], ["q"]), node("Tanh", ["q"], ["y"])],
     ["Conv+Relu+Relu", "(Tanh)"]),
    ([CONV, node("Relu", ["c"], ["r"]), node("Add", ["r", "magic"], ["n"]), node("Sub", ["n", "magic"], ["y"])],
     ["Conv+Relu", "(Add)", "(Add)"]),
    ([CONV, node("Min", ["c", "magic"], ["n"]), node("Clip", ["n", "zero", "six"], ["y"])], ["Conv+Min+Clip"]),
    ([CONV, node("Relu", ["c"], ["r"]), node("Mul", ["r", "c"], ["y"])], ["Conv", "(Relu)", "(Mul)"]),
    ([CONV, node("Add", ["c", "x"], ["a"]), node("Relu", ["a"], ["y"])], ["Conv+Add+Relu"]),
    ([CONV, node("Relu", ["c"], ["r"]), node("Add", ["r", "x"], ["y"])], ["Conv+Relu", "(Add)"]),
    ([CONV, node("Add", ["c", "c"], ["y"])], ["Conv", "(Add)"]),
    ([CONV, node("Conv", ["x", "w"], ["e"]), node("Add", ["c", "e"], ["y"])], ["Conv", "Conv+Add"]),
    ([CONV, node("Relu", ["c"], ["r"]), node("Conv", ["r", "d"], ["e"], group=4, pads=[1, 1, 1, 1]),
      node("Relu", ["e"], ["y"])], ["Conv+Relu+Conv+Relu"]),
    ([node("Conv", ["x", "d"], ["c"], group=4), node("Conv", ["c", "w"], ["y"])], ["Conv", "Conv"]),
    ([node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2, 2])], ["MaxPool"]),
    ([node("GlobalAveragePool", ["x"], ["y"])], ["GlobalAveragePool"]),
])
def test_one_kernel(tmp_path: Path, nodes: list[NodeProto], expected: list[str]) -> None:
    assert order(tmp_path / "model.onnx", nodes)[0] == expected


RESIDUAL = [CONV, node("Relu", ["c"], ["r"]), node("Conv", ["r", "d"], ["e"], group=4, pads=[1, 1, 1, 1]),
            node("Relu", ["e"], ["s"]), node("Conv", ["s", "w"], ["p"]), node("Add", ["p", "x"], ["y"])]


@pytest.mark.parametrize(("side", "unit", "expected"), [
    (192, AVX512, ["Conv+Relu+Conv+Relu+Conv+Add"]),
    (64, AVX512, ["Conv+Relu+Conv+Relu", "Conv+Add"]),
    (192, AVX2, ["Conv+Relu+Conv+Relu", "Conv+Add"]),
])
def test_a_large_inverted_residual_is_one_kernel(tmp_path: Path, side: int, unit: VectorUnit,
                                                 expected: list[str]) -> None:
    names, layers = order(tmp_path / "model.onnx", RESIDUAL, side=side, unit=unit)
    assert names == expected
    together = ["conv + depthwise + conv", "depthwise", "conv"]
    apart = ["conv + depthwise", *together[1:]]
    assert [layer.operator for layer in layers] == (together if len(names) == 1 else apart)
    assert ("computed with the convolution before it" in layers[-1].reason) == (len(names) == 1)


@pytest.mark.parametrize("outputs", [("y", "s"), ("y", "e")])
def test_a_depthwise_output_that_others_read_is_not_fused_away(tmp_path: Path, outputs: tuple[str, ...]) -> None:
    names, _ = order(tmp_path / "model.onnx", RESIDUAL, outputs, side=192, unit=AVX512)
    assert names[-1] == "Conv+Add"


SECOND = node("Conv", ["c", "w"], ["h"])
MORE = [node("Relu", ["h"], ["r"]), node("Conv", ["r", "w"], ["e"])]


@pytest.mark.parametrize(("nodes", "outputs", "expected"), [
    ([CONV, SECOND, *MORE, node("Add", ["e", "c"], ["y"])], ("y",), True),
    ([CONV, SECOND, *MORE, node("Add", ["e", "c"], ["y"])], ("y", "c"), False),
    ([CONV, SECOND, *MORE, node("Add", ["e", "x"], ["y"])], ("y",), False),  # the caller's
    ([CONV, SECOND, node("Add", ["h", "c"], ["y"])], ("y",), False),  # the convolution's own input
    ([CONV, SECOND, *MORE, node("Add", ["e", "c"], ["y"]), node("Conv", ["c", "w"], ["z"])], ("y", "z"), False),
    ([CONV, node("Conv", ["c", "w"], ["z"]), SECOND, *MORE, node("Add", ["e", "c"], ["y"])], ("y", "z"), True),
    ([CONV, node("Conv", ["c", "w"], ["z"]), SECOND, *MORE, node("Add", ["e", "c"], ["y"]),
      node("Add", ["z", "y"], ["s"])], ("s",), False),  # z waits for y, and reads c then
    ([CONV, node("Tanh", ["c"], ["t"]), SECOND, *MORE, node("Add", ["e", "c"], ["y"])], ("y", "t"), False),
    ([node("Tanh", ["x"], ["c"]), SECOND, *MORE, node("Add", ["e", "c"], ["y"])], ("y",), False),
])
def test_a_residual_that_nothing_reads_later_is_overwritten(tmp_path: Path, nodes: list[NodeProto],
                                                            outputs: tuple[str, ...], expected: bool) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(make_model(nodes, {"x": (1, 4, 6, 6)}, outputs, WEIGHTS).SerializeToString())
    graph = build_graph(load_onnx_model(path))
    fold_layers(graph)
    steps, _ = fuse(graph, Planner(SSE, None, {}))
    calls = [step for step in steps if isinstance(step, KernelCall)]
    assert {call.kernel.in_place for call in calls if len(call.inputs) == 2} == {expected}


def test_a_value_the_caller_gets_is_not_fused_away(tmp_path: Path) -> None:
    names, _ = order(tmp_path / "model.onnx", [CONV, node("Relu", ["c"], ["y"])], ("y", "c"))
    assert names == ["Conv", "(Relu)"]


@pytest.mark.parametrize(("approximate", "expected"), [
    ("none", ["Conv+Gelu"]), ("tanh", ["Conv", "(Gelu)"]),
])
def test_gelu_of_newer_opsets(tmp_path: Path, approximate: str, expected: list[str]) -> None:
    gelu = node("Gelu", ["c"], ["y"], approximate=approximate)
    assert order(tmp_path / "model.onnx", [CONV, gelu], opset=20)[0] == expected


def test_a_linear_layer_of_many_axes_takes_in_what_follows(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "m"], ["c"]), *ERF, node("Mul", ["c", "s"], ["p"]), node("Mul", ["p", "half"], ["g"]),
             node("MatMul", ["g", "m"], ["h"]), node("Add", ["x", "h"], ["y"])]
    names, _ = order(tmp_path / "model.onnx", nodes)
    assert [name for name in names if name != "(Reshape)"] == ["Gemm+Div+Erf+Add+Mul+Mul", "Gemm+Add"]


def test_a_kernel_waits_for_its_residual(tmp_path: Path) -> None:
    nodes = [CONV, node("Tanh", ["x"], ["t"]), node("Add", ["c", "t"], ["y"])]
    assert order(tmp_path / "model.onnx", nodes)[0] == ["(Tanh)", "Conv+Add"]


def test_weights_computed_at_run_time_are_left_to_tvm(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    inputs = {"x": (1, 4, 6, 6), "k": (4, 4, 1, 1)}
    path.write_bytes(make_model([node("Conv", ["x", "k"], ["y"], "c")], inputs, ["y"]).SerializeToString())
    steps, layers = fuse(build_graph(load_onnx_model(path)), Planner(SSE, None, {}))
    assert not isinstance(steps[0], KernelCall)
    assert layers[0].name == "c"
    assert "no kernel" in layers[0].reason
    assert "no float32 constant" in layers[0].reason
