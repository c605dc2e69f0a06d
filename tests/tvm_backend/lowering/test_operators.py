"""What has no kernel of ours goes through TVM's own lowering: right in every opset, scheduled so that it vectorises."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import tvm
from onnx import NodeProto, helper
from tvm import relax
from tvm.relax import transform

from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.lowering.loops import ScheduleLoops
from tests.tvm_backend.onnx_files import make_model

node = helper.make_node
random = np.random.default_rng(0)
CONSTANTS = {
    "channel": random.standard_normal((6, 1, 1)).astype(np.float32), "low": np.float32(-0.5),
    "high": np.float32(0.5), "two": np.float32(2), "shape": np.array([1, 3, 2, 35]),
    "starts": np.array([1]), "ends": np.array([5]), "axis": np.array([1]), "steps": np.array([2]),
    "order": np.array([3, 0, 5]), "pads": np.array([0, 1, 2, 0, 0, 0, 1, 1]), "sizes": np.array([1, 6, 10, 14]),
    "empty": np.zeros(0, np.float32), "means": np.array([-1]),
}


def operators(opset: int) -> list[NodeProto]:
    """Each reads x and makes an output of its own."""
    return [
        node("Mul", ["x", "channel"], ["scaled"]),
        node("Clip", ["x", "low", "high"], ["clipped"]),
        node("LeakyRelu", ["x"], ["leaky"], alpha=0.2),
        node("Elu", ["x"], ["elu"]),
        node("Tanh", ["x"], ["tanh"]),
        node("Erf", ["x"], ["erf"]),
        node("Exp", ["x"], ["exp"]),
        node("Pow", ["x", "two"], ["square"]),
        node("PRelu", ["x", "channel"], ["prelu"]),
        node("Transpose", ["x"], ["channels_last"], perm=[0, 2, 3, 1]),
        node("Concat", ["x", "scaled", "x"], ["joined"], axis=1),
        node("Split", ["x"], ["first", "second"], axis=1, **({"num_outputs": 2} if opset >= 18 else {})),
        node("Reshape", ["x", "shape"], ["reshaped"]),
        node("Slice", ["x", "starts", "ends", "axis", "steps"], ["sliced"]),
        node("Gather", ["x", "order"], ["picked"], axis=1),
        node("Pad", ["x", "pads"], ["padded"]),
        node("Softmax", ["x"], ["softmax"], axis=-1),
        node("ReduceMax", ["x"], ["largest"], axes=[1], keepdims=0) if opset < 18 else node(
            "ReduceMax", ["x", "axis"], ["largest"], keepdims=0),
        node("ReduceMean", ["x"], ["mean"], axes=[-1]) if opset < 18 else node("ReduceMean", ["x", "means"], ["mean"]),
        node("GlobalMaxPool", ["x"], ["global"]),
        node("MaxPool", ["x"], ["pooled"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        node("AveragePool", ["x"], ["averaged"], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1),
        node("LRN", ["x"], ["normalised"], size=3),
        node("Resize", ["x", "empty", "empty", "sizes"], ["enlarged"], mode="nearest",
             coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
    ]


@pytest.mark.parametrize("opset", [11, 13, 18, 21])
def test_every_opset(tmp_path: Path, opset: int) -> None:
    nodes = operators(opset)
    names = [name for item in nodes for name in item.output]
    model = make_model(nodes, {"x": (1, 6, 5, 7)}, names, CONSTANTS, opset)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    x = random.standard_normal((1, 6, 5, 7)).astype(np.float32)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    for name, output, reference in zip(names, compile_model(tmp_path / "model.onnx").run(x), expected, strict=True):
        assert output.shape == reference.shape, name
        assert np.abs(output - reference).max() <= 1e-5 * max(np.abs(reference).max(), 1), name


def scheduled(shapes: list[tuple[int, ...]], compute: object) -> list[str]:
    """The loops of the one function that `compute` becomes, by their length, one text per block."""
    builder = relax.BlockBuilder()
    parameters = [relax.Var(f"x{index}", relax.TensorType(shape, "float32")) for index, shape in enumerate(shapes)]
    with builder.function("main", parameters):
        with builder.dataflow():
            output = builder.emit_output(compute(*parameters))
        builder.emit_func_output(output)
    passes = [transform.LegalizeOps(), transform.AnnotateTIROpPattern(), transform.FuseOps(), transform.FuseTIR(),
              transform.DeadCodeElimination(), ScheduleLoops()]
    module = tvm.transform.Sequential(passes)(builder.finalize())
    (function,) = [item for item in module.functions.values() if isinstance(item, tvm.tirx.PrimFunc)]
    schedule = tvm.s_tir.Schedule(function)
    blocks = schedule.get_child_blocks(schedule.get_sblock("root"))
    return [" ".join(str(int(schedule.get(loop).extent)) for loop in schedule.get_loops(block)) for block in blocks]


IMAGE, CHANNEL = (1, 6, 5, 7), (6, 1, 1)


def test_elementwise_chains_become_one_loop_over_pixels() -> None:
    assert scheduled([IMAGE, CHANNEL], lambda x, s: relax.op.nn.relu(relax.op.add(relax.op.multiply(x, s), s))) == [
        "1 6 35"]


def test_concatenation_is_one_loop_over_pixels() -> None:
    assert scheduled([IMAGE, IMAGE], lambda x, y: relax.op.nn.relu(relax.op.concat([x, y], 1))) == ["1 12 35"]


def test_a_value_per_channel_keeps_its_loops() -> None:
    assert scheduled([(1, 5, 7, 6), (6,)], relax.op.add) == ["1 5 7 6"]


def test_transposed_pixels_keep_their_loops() -> None:
    assert scheduled([(1, 5, 7, 6)], lambda x: relax.op.permute_dims(x, [0, 3, 1, 2])) == ["1 6 5 7"]


def test_reductions_keep_their_loops() -> None:
    assert scheduled([IMAGE], lambda x: relax.op.sum(x, [3])) == ["1 6 5 7"]
