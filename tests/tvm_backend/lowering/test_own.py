"""Operators lowered by this package itself give what onnxruntime gives, and what numpy gives where it has no kernel."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import NodeProto, helper, numpy_helper

from onexn_plugins.tvm_backend import compile_model

node = helper.make_node
random = np.random.default_rng(0)
X = random.standard_normal((2, 3, 4, 5)).astype(np.float32)


def compare(path: Path, item: NodeProto, inputs: Mapping[str, np.ndarray],
            constants: Mapping[str, np.ndarray] | None = None, opset: int = 18) -> None:
    """Compile the one operator and compare every output with onnxruntime's, in value, shape and type."""
    declared = [helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in inputs.items()]
    outputs = [onnx.ValueInfoProto(name=name) for name in item.output if name]
    weights = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph([item], "test", declared, outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    model = onnx.shape_inference.infer_shapes(model)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, dict(inputs))
    (path / "model.onnx").write_bytes(model.SerializeToString())
    results = compile_model(path / "model.onnx").run(inputs)
    for output, reference in zip(results if len(expected) > 1 else [results], expected, strict=True):
        assert (output.shape, output.dtype) == (reference.shape, reference.dtype)
        np.testing.assert_allclose(output, reference, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("attributes", [{}, {"reverse": 1}, {"exclusive": 1}, {"reverse": 1, "exclusive": 1}], ids=str)
def test_cumulative_sums(tmp_path: Path, axis: int, attributes: dict[str, int]) -> None:
    compare(tmp_path, node("CumSum", ["x", "axis"], ["y"], **attributes), {"x": X}, {"axis": np.array(axis)})
    compare(tmp_path, node("CumSum", ["x", "axis"], ["y"], **attributes), {"x": np.arange(24).reshape(2, 3, 4)},
            {"axis": np.array(axis)})
