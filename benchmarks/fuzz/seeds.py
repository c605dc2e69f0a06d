"""Small ONNX models that between them hold the operators of exported CNNs: what the mutations start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Shapes = Mapping[str, Sequence[int]]


def seed_models() -> list[ModelProto]:
    """The models, each valid and compilable."""
    return [_plain(), _mobile(), _shuffled(), _transformed()]


def _model(nodes: list[NodeProto], inputs: Shapes, outputs: Shapes, constants: Mapping[str, np.ndarray],
           opset: int) -> ModelProto:
    def described(shapes: Shapes) -> list:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

    graph = helper.make_graph(nodes, "seed", described(inputs), described(outputs),
                              [numpy_helper.from_array(value, name) for name, value in constants.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _weight(*shape: int, kept: float = 1.0) -> np.ndarray:
    """Normal values; of the blocks of 4 output channels that share is not zero."""
    generator = np.random.default_rng(shape)
    blocks = generator.random((-(-shape[0] // 4), *shape[1:2])) < kept
    mask = np.repeat(blocks, 4, 0)[: shape[0]].reshape(*shape[:2], *(1 for _ in shape[2:]))
    return (generator.standard_normal(shape) * mask).astype(np.float32)


def _plain() -> ModelProto:
    """Convolutions with batch norm and a residual, both pools, a classifier."""
    constants = {"w1": _weight(8, 3, 3, 3), "b1": _weight(8, 1)[:, 0], "w2": _weight(8, 8, 3, 3, kept=0.5),
                 "gamma": np.ones(8, np.float32), "beta": np.zeros(8, np.float32), "mean": np.zeros(8, np.float32),
                 "variance": np.ones(8, np.float32), "w3": _weight(5, 8), "b3": np.ones(5, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["a"], "stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], "relu"),
        helper.make_node("MaxPool", ["b"], ["c"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c", "w2"], ["d"], "conv", auto_pad="SAME_UPPER"),
        helper.make_node("BatchNormalization", ["d", "gamma", "beta", "mean", "variance"], ["e"], "norm", epsilon=1e-5),
        helper.make_node("Add", ["e", "c"], ["f"], "residual"),
        helper.make_node("AveragePool", ["f"], ["g"], "average", kernel_shape=[2, 2], ceil_mode=1),
        helper.make_node("GlobalAveragePool", ["g"], ["h"], "mean"),
        helper.make_node("Flatten", ["h"], ["i"], "flatten"),
        helper.make_node("Gemm", ["i", "w3", "b3"], ["y"], "head", transB=1),
    ]
    return _model(nodes, {"x": (1, 3, 16, 16)}, {"y": (1, 5)}, constants, 13)


def _mobile() -> ModelProto:
    """Expansion, depthwise convolution, squeeze-and-excitation, projection."""
    constants = {"w1": _weight(16, 8, 1, 1, kept=0.5), "w2": _weight(16, 1, 3, 3), "b2": np.ones(16, np.float32),
                 "w3": _weight(4, 16, 1, 1), "w4": _weight(16, 4, 1, 1), "w5": _weight(8, 16, 1, 1, kept=0.25),
                 "low": np.array(0, np.float32), "high": np.array(6, np.float32), "axes": np.array([2, 3])}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "expand"),
        helper.make_node("Clip", ["a", "low", "high"], ["b"], "clip"),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], "depthwise", group=16, pads=[1, 1, 1, 1],
                         kernel_shape=[3, 3]),
        helper.make_node("HardSwish", ["c"], ["d"], "hardswish"),
        helper.make_node("ReduceMean", ["d", "axes"], ["e"], "squeeze", keepdims=1),
        helper.make_node("Conv", ["e", "w3"], ["f"], "reduce"),
        helper.make_node("Relu", ["f"], ["g"], "relu"),
        helper.make_node("Conv", ["g", "w4"], ["h"], "excite"),
        helper.make_node("HardSigmoid", ["h"], ["i"], "gate", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", ["d", "i"], ["j"], "scale"),
        helper.make_node("Conv", ["j", "w5"], ["k"], "project"),
        helper.make_node("Add", ["k", "x"], ["y"], "residual"),
    ]
    return _model(nodes, {"x": (1, 8, 7, 7)}, {"y": (1, 8, 7, 7)}, constants, 18)


def _shuffled() -> ModelProto:
    """Two inputs and outputs; split, concatenation, channel shuffle, grouped and dilated convolution."""
    constants = {"parts": np.array([4, 4]), "w1": _weight(4, 2, 3, 3), "w2": _weight(8, 4, 1, 1, kept=0.5),
                 "five": np.array([1, 2, 6, 6, 6]), "four": np.array([1, 12, 6, 6]),
                 "order": np.arange(12, dtype=np.int64)[::-1].copy(), "half": np.array(0.5, np.float32)}
    nodes = [
        helper.make_node("Mul", ["x", "mask"], ["a"], "product"),
        helper.make_node("Split", ["a", "parts"], ["b", "c"], "split", axis=1),
        helper.make_node("Conv", ["b", "w1"], ["d"], "grouped", group=2, pads=[2, 2, 2, 2], dilations=[2, 2]),
        helper.make_node("Conv", ["c", "w2"], ["e"], "pointwise"),
        helper.make_node("Concat", ["d", "e"], ["f"], "concat", axis=1),
        helper.make_node("Reshape", ["f", "five"], ["g"], "reshape"),
        helper.make_node("Transpose", ["g"], ["h"], "transpose", perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["h", "four"], ["i"], "back"),
        helper.make_node("Gather", ["i", "order"], ["j"], "gather", axis=1),
        helper.make_node("Sigmoid", ["j"], ["y"], "sigmoid"),
        helper.make_node("Sub", ["a", "half"], ["z"], "subtract"),
    ]
    shapes = {"x": (1, 8, 6, 6), "mask": (1, 8, 6, 6)}
    return _model(nodes, shapes, {"y": (1, 12, 6, 6), "z": (1, 8, 6, 6)}, constants, 18)


def _transformed() -> ModelProto:
    """Padding, slices, resizing, matrix products, layer norm, softmax; shapes computed inside the graph."""
    constants = {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "w1": _weight(8, 4, 3, 3, kept=0.5),
                 "starts": np.array([1]), "ends": np.array([7]), "axis": np.array([3]), "none": np.zeros(0, np.float32),
                 "scales": np.array([1, 1, 2, 2], np.float32), "minus": np.array([-1]), "first": np.array([0, 1]),
                 "w2": _weight(8, 8), "gamma": np.ones(8, np.float32), "beta": np.zeros(8, np.float32)}
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["a"], "pad", mode="constant"),
        helper.make_node("Conv", ["a", "w1"], ["b"], "conv"),
        helper.make_node("Slice", ["b", "starts", "ends", "axis"], ["c"], "slice"),
        helper.make_node("Resize", ["c", "none", "scales"], ["d"], "resize", mode="nearest"),
        helper.make_node("Shape", ["d"], ["e"], "shape"),
        helper.make_node("Gather", ["e", "first"], ["f"], "sizes", axis=0),
        helper.make_node("Concat", ["f", "minus"], ["g"], "joined", axis=0),
        helper.make_node("Reshape", ["d", "g"], ["h"], "rows"),
        helper.make_node("Transpose", ["h"], ["i"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["i", "w2"], ["j"], "product"),
        helper.make_node("LayerNormalization", ["j", "gamma", "beta"], ["k"], "norm", axis=-1),
        helper.make_node("Softmax", ["k"], ["y"], "softmax", axis=-1),
    ]
    return _model(nodes, {"x": (1, 4, 8, 8)}, {"y": (1, 192, 8)}, constants, 18)
