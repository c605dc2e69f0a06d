"""Outputs have the types and shapes that the file states, and belong to the caller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onexn_plugins.tvm_backend import compile_model

node, info = helper.make_node, helper.make_tensor_value_info
CONSTANTS = {
    "whole": np.array([[1, 2**40]], np.int64), "one_whole": np.array(7, np.int64), "one": np.array(0.5, np.float32),
    "yes": np.array([True, False]), "few": np.array([3, 4], np.int32), "double": np.array(1 / 3, np.float64),
    "signed": np.array([-0.0], np.float32),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Each constant, both inputs and what is made of them are outputs."""
    names = list(CONSTANTS)
    nodes = [node("Identity", [name], [f"{name}_out"]) for name in names]
    nodes += [node("Shape", ["x"], ["shape"]), node("Add", ["x", "scalar"], ["sum"]),
              node("Identity", ["scalar"], ["same"]),
              node("Dropout", ["sum"], ["dropped", "mask"]), node("Pad", ["x", "nothing"], ["unpadded"], mode="edge"),
              node("Greater", ["x", "scalar"], ["greater"]), node("Reshape", ["x", "flat"], ["flattened"])]
    outputs = [info(f"{name}_out", helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
               for name, value in CONSTANTS.items()]
    outputs += [info("shape", TensorProto.INT64, (2,)), info("same", TensorProto.FLOAT, ()),
                info("dropped", TensorProto.FLOAT, (2, 3)), info("unpadded", TensorProto.FLOAT, (2, 3)),
                info("greater", TensorProto.BOOL, (2, 3)), info("flattened", TensorProto.FLOAT, (6,))]
    constants = CONSTANTS | {"nothing": np.zeros(4, np.int64), "flat": np.array([-1])}
    inputs = [info("x", TensorProto.FLOAT, (2, 3)), info("scalar", TensorProto.FLOAT, ())]
    graph = helper.make_graph(nodes, "outputs", inputs, outputs, [
        numpy_helper.from_array(value, name) for name, value in constants.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def expected(x: np.ndarray, scalar: np.ndarray) -> list[np.ndarray]:
    return [*CONSTANTS.values(), np.array([2, 3], np.int64), scalar, x + scalar, x, x > scalar, x.reshape(-1)]


def test_types_and_shapes_are_those_of_the_file(model: Path) -> None:
    compiled = compile_model(model)
    x, scalar = np.arange(6, dtype=np.float32).reshape(2, 3), np.array(1.5, np.float32)
    for tensor, output, value in zip(compiled.outputs, compiled.run(x, scalar), expected(x, scalar), strict=True):
        assert (output.dtype, output.shape) == (value.dtype, value.shape), tensor.name
        assert (tensor.dtype, tensor.shape) == (str(value.dtype), value.shape), tensor.name
        assert np.array_equal(output, value), tensor.name
        if value.dtype == np.float32:
            assert np.array_equal(np.signbit(output), np.signbit(value)), tensor.name


def test_outputs_are_the_callers(model: Path) -> None:
    """The next run does not write over them, and writing to them changes no later run."""
    compiled = compile_model(model)
    x, scalar = np.ones((2, 3), np.float32), np.array(0.5, np.float32)
    first = compiled.run(x, scalar)
    kept = [output.copy() for output in first]
    compiled.run(x + 3, scalar + 1)
    assert all(map(np.array_equal, first, kept))
    for output in first:
        if output.flags.writeable:
            output[...] = 0
    for output, value in zip(compiled.run(x, scalar), expected(x, scalar), strict=True):
        assert np.array_equal(output, value)
    assert np.array_equal(x, np.ones((2, 3)))
