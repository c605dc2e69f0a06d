"""Whatever is wrong with a file is one OneXNError that names the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, inspect_onnx
from onexn_plugins.tvm_backend.reading.onnx_model import load_onnx_model
from tests.tvm_backend.onnx_files import conv_model, make_model


def refused(path: Path, complaint: str) -> None:
    with pytest.raises(OneXNError, match=complaint) as caught:
        compile_model(path)
    assert caught.value.fix


@pytest.mark.parametrize(("content", "complaint"), [
    (b"", "is empty"),
    (b"not a model at all", "is not an ONNX"),
    (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not an ONNX"),
    (b"\0" * 64, "is not an ONNX"),
])
def test_files_that_are_no_model(tmp_path: Path, content: bytes, complaint: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    refused(tmp_path / "model.onnx", f"model.onnx: {complaint}")


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    refused(tmp_path / "absent.onnx", "absent.onnx: cannot be read: No such file")
    refused(tmp_path, "cannot be read: Is a directory")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files(tmp_path: Path, share: float) -> None:
    content = conv_model().SerializeToString()
    (tmp_path / "model.onnx").write_bytes(content[: int(share * len(content))])
    with pytest.raises(OneXNError):
        compile_model(tmp_path / "model.onnx")


def _missing_weight(model: ModelProto) -> None:
    del model.graph.initializer[0]


def _cycle(model: ModelProto) -> None:
    model.graph.node[0].input[0] = "y"


def _nan_weight(model: ModelProto) -> None:
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1, 2, np.nan, 4], np.float32), "bias"))


def _infinite_weight(model: ModelProto) -> None:
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.array([1, 2, np.inf, 4], np.float32), "bias"))


def _negative_dimension(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = -4


def _huge_dimension(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 2**40


def _wrong_dimension(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 5


def _dynamic_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def _unnamed_dynamic_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].Clear()


def _unknown_rank(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def _negative_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1


def _huge_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 2**32


def _empty_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 0


def _other_channels(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5


def _unknown_operator(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Frobnicate"


def _custom_domain(model: ModelProto) -> None:
    model.graph.node[1].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _old_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 6


def _future_opset(model: ModelProto) -> None:
    model.opset_import[0].version = 1000


def _no_opset(model: ModelProto) -> None:
    del model.opset_import[:]


def _no_nodes(model: ModelProto) -> None:
    del model.graph.node[:]


def _made_twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "h"


def _absent_output(model: ModelProto) -> None:
    model.graph.output[0].name = "z"


def _string_weight(model: ModelProto) -> None:
    model.graph.initializer[1].CopyFrom(helper.make_tensor("bias", TensorProto.STRING, [4], [b"a"] * 4))


def _unknown_pattern(model: ModelProto) -> None:
    helper.set_model_props(model, {"onexn.pattern": "{not json"})


def test_masks_and_bounds_may_be_infinite(tmp_path: Path) -> None:
    """Only the constants of layers are weights."""
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    nodes = [helper.make_node("Add", ["x", "mask"], ["masked"]),
             helper.make_node("Softmax", ["masked"], ["s"], axis=-1), helper.make_node("Min", ["s", "bounds"], ["y"])]
    constants = {"mask": mask, "bounds": np.array([np.inf, 0.3, np.inf, 0.5], np.float32)}
    path = tmp_path / "model.onnx"
    path.write_bytes(make_model(nodes, {"x": (2, 4, 4)}, ["y"], constants).SerializeToString())
    x = np.random.default_rng(0).standard_normal((2, 4, 4)).astype(np.float32)
    risen = np.exp(x + mask)
    expected = np.minimum(risen / risen.sum(-1, keepdims=True), constants["bounds"])
    np.testing.assert_allclose(compile_model(path).run(x), expected, rtol=1e-5, atol=1e-6)


DAMAGE = [
    (_missing_weight, "Conv 'conv': its input 'weight' is neither a weight, an input nor"),
    (_cycle, "nodes 'conv', 'relu': they wait for each other's outputs"),
    (_nan_weight, "bias: the weight holds NaN"),
    (_infinite_weight, "bias: the weight holds NaN or infinite"),
    (_negative_dimension, "weight: its shape .* has a negative dimension"),
    (_huge_dimension, "weight: its shape .* holds more than"),
    (_wrong_dimension, "weight: its data does not fill its shape"),
    (_dynamic_input, r"input 'x': its dimension 0 \(batch\) is dynamic. Fix it with --input-shape x=1,3,8,8"),
    (_unnamed_dynamic_input, r"input 'x': its dimension 2 \(unnamed\) is dynamic"),
    (_unknown_rank, "input 'x': its shape is unknown, even its number of dimensions. Fix it with --input-shape x=1,3"),
    (_negative_input, "input 'x': its shape .* has a negative dimension"),
    (_huge_input, "input 'x': its shape .* holds more than"),
    (_empty_input, "Conv 'conv': its shape .* has a negative dimension"),
    (_other_channels, "Conv 'conv': .*channel"),
    (_unknown_operator, "Frobnicate"),
    (_custom_domain, "Relu 'relu': is not a standard ONNX operator"),
    (_old_opset, "uses ONNX opset 6; 7 to"),
    (_future_opset, "uses ONNX opset 1000"),
    (_no_opset, "names no ONNX opset"),
    (_no_nodes, "is not an ONNX model, or one without any operator"),
    (_made_twice, "the value 'h' is made twice"),
    (_absent_output, "nothing makes its output 'z'"),
    (_string_weight, "Conv 'conv': cannot take these inputs: .*string"),
    (_unknown_pattern, "recorded pattern is not readable"),
]


@pytest.mark.parametrize(("damage", "complaint"), DAMAGE, ids=[damage.__name__.strip("_") for damage, _ in DAMAGE])
def test_damaged_models(tmp_path: Path, damage: Callable[[ModelProto], None], complaint: str) -> None:
    model = conv_model()
    damage(model)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "model.onnx", complaint)


def test_missing_and_short_external_data(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(conv_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    load_onnx_model(path)
    whole = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(whole[:100])
    refused(path, "weight: its external data file .*weights.bin' is cut short")
    (tmp_path / "weights.bin").unlink()
    refused(path, "weight: its external data file .*weights.bin' is missing. Put weights.bin beside model.onnx")


def test_external_data_stays_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(432))
    folder = tmp_path / "models"
    folder.mkdir()
    model = conv_model()
    onnx.external_data_helper.set_external_data(model.graph.initializer[0], "../secret.bin", 0, 432)
    model.graph.initializer[0].ClearField("raw_data")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    refused(folder / "model.onnx", "external data")


def test_nodes_may_come_in_any_order(tmp_path: Path) -> None:
    model = conv_model()
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert [node.op_type for node in load_onnx_model(tmp_path / "model.onnx").graph.node] == ["Conv", "Relu"]


def test_outputs_may_lack_shape_and_type(tmp_path: Path) -> None:
    """onnxruntime takes them as well; what they are is inferred."""
    model = conv_model()
    output = model.graph.output[0]
    for message, field in ((output.type.tensor_type, "shape"), (output, "type")):
        message.ClearField(field)
        (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
        assert compile_model(tmp_path / "model.onnx").outputs[0].shape == (1, 4, 6, 6)


@pytest.mark.parametrize(("node", "constants", "complaint"), [
    (helper.make_node("NonZero", ["x"], ["y"], "count"), {}, "NonZero 'count': the shape of its output 'y' depends"),
    (helper.make_node("Expand", ["x", "shape"], ["y"], "grow"), {"shape": np.array([2**20, 2**20, 1, 1])},
     "Expand 'grow': its shape .* holds more than"),
    (helper.make_node("ConstantOfShape", ["shape"], ["y"], "fill"), {"shape": np.array([2**20, 2**20])},
     "ConstantOfShape 'fill': its shape .* holds more than"),
    (helper.make_node("Det", ["x"], ["y"], "det"), {}, "Det 'det': is an operator that neither this package nor TVM"),
])
def test_operators_that_cannot_be_compiled(tmp_path: Path, node: object, constants: dict, complaint: str) -> None:
    model = make_model([node], {"x": (1, 1, 2, 2)}, ["y"], constants)
    if node.op_type == "NonZero":
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.INT64, (4, "count")))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    refused(tmp_path / "model.onnx", complaint)


SEED = conv_model().SerializeToString()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(flips=st.lists(st.tuples(st.integers(0, len(SEED) - 1), st.integers(0, 255)), min_size=1, max_size=8),
       cut=st.integers(0, len(SEED)))
def test_mutated_files_load_or_are_refused(tmp_path: Path, flips: list[tuple[int, int]], cut: int) -> None:
    content = bytearray(SEED)
    for position, value in flips:
        content[position] = value
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(content[: cut or None]))
    try:
        layers = inspect_onnx(path)
    except OneXNError:
        return
    assert all(0 <= layer["kept"] <= 1 for layer in layers)
