"""ONNX models made by hand, to be damaged or to hold one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

OPSET = 18


def make_model(
    nodes: Sequence[NodeProto], inputs: Mapping[str, Sequence[int | str]], outputs: Sequence[str],
    constants: Mapping[str, np.ndarray] | None = None, opset: int = OPSET,
) -> ModelProto:
    """A model of float32 inputs; output shapes are left to be inferred."""
    graph = helper.make_graph(
        list(nodes), "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def conv_model(**attributes: object) -> ModelProto:
    """x [1, 3, 8, 8] -> Conv -> Relu -> y, named conv and relu, weight [4, 3, 3, 3]."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [helper.make_node("Conv", ["x", "weight", "bias"], ["h"], "conv", **attributes),
             helper.make_node("Relu", ["h"], ["y"], "relu")]
    return make_model(nodes, {"x": (1, 3, 8, 8)}, ["y"], {"weight": weight, "bias": np.ones(4, np.float32)})
