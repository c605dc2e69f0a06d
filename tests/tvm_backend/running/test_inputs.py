"""What goes into a compiled network and comes out of it, wherever it lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import Compiled, compile_model, compile_module
from onexn_plugins.tvm_backend.running import inputs as given_inputs
from tests.tvm_backend.onnx_files import make_model


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """image + mask."""
    path = tmp_path_factory.mktemp("small") / "model.onnx"
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, 8, 5, 5)) for name in ("image", "mask", "y")]
    node = helper.make_node("Add", ["image", "mask"], ["y"])
    onnx.save(helper.make_model(helper.make_graph([node], "sum", tensors[:2], tensors[2:]),
                                opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return compile_model(path)


IMAGE = np.zeros((1, 8, 5, 5), np.float32)


@pytest.mark.parametrize(("inputs", "complaint"), [
    ((), "0 were given, the network takes 2: image, mask"),
    ((IMAGE,), "1 were given"),
    ((IMAGE, IMAGE.astype(np.float64)), "'mask': is float64, the network takes float32"),
    ((IMAGE, IMAGE[:, :4]), r"'mask': has shape \[1, 4, 5, 5\], the network takes \[1, 8, 5, 5\]"),
    ((IMAGE, IMAGE[0]), "has shape"),
    (({"image": IMAGE},), "'mask': is missing"),
    (({"image": IMAGE, "mask": IMAGE, "label": IMAGE},), "'label': is no input of the network"),
    ((IMAGE, "a string"), "'mask': is"),
    ((IMAGE, None), "'mask': is object"),
    ((IMAGE, torch.zeros(1, 8, 5, 5, requires_grad=True)), "'mask': is no array: Can't call numpy"),
    ((IMAGE, [[1.0], [1.0, 2.0]]), "'mask': is no array"),
])
def test_wrong_inputs_are_refused_by_name(small: Compiled, inputs: tuple, complaint: str) -> None:
    with pytest.raises(OneXNError, match=complaint):
        small.run(*inputs)


def test_inputs_may_be_strided_or_torch(small: Compiled) -> None:
    image = np.random.default_rng(0).standard_normal((1, 8, 5, 5)).astype(np.float32)
    strided = np.asfortranarray(image)
    assert np.array_equal(small.run(image, strided), 2 * image)
    assert np.array_equal(small.run(torch.from_numpy(image), image), 2 * image)


class Beside(nn.Module):
    """Kernels of ours read the input as pixels and as a residual, TVM's own functions one as well, and it goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, image: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return torch.relu(self.conv(image) + image), self.conv(other).sin(), other + 1, other


def test_inputs_may_lie_anywhere_and_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vector loads want aligned memory; copies are made of what numpy does not lend alone."""
    copied: list[np.ndarray] = []
    copy = given_inputs.Inputs._copied
    monkeypatch.setattr(given_inputs.Inputs, "_copied",
                        lambda inputs, place, array: (copied.append(array), copy(inputs, place, array))[1])
    torch.manual_seed(0)
    module, room = Beside().eval(), np.random.default_rng(0).standard_normal(IMAGE.size + 16).astype(np.float32)
    compiled = compile_module(module, (torch.from_numpy(IMAGE), torch.from_numpy(IMAGE)))
    for offset in range(17):
        image = room[offset : offset + IMAGE.size].reshape(IMAGE.shape)
        before = image.copy()
        image.flags.writeable = offset % 4 != 0
        copied.clear()
        outputs = compiled.run(image, image)
        assert len(copied) == (0 if image.flags.writeable else 2)
        for output, expected in zip(outputs, module(*[torch.from_numpy(before)] * 2), strict=True):
            np.testing.assert_allclose(output, expected.detach().numpy(), rtol=1e-5, atol=1e-5)
            output += 1  # the caller may write into outputs
        assert np.array_equal(image, before)


def test_inputs_that_are_aligned_to_no_element_are_taken_too(small: Compiled) -> None:
    room = np.zeros(IMAGE.nbytes + 1, np.uint8)
    image = room[1:].view(np.float32).reshape(IMAGE.shape)
    image[...] = np.random.default_rng(0).standard_normal(IMAGE.shape)
    assert np.array_equal(small.run(image, image), 2 * image)


@pytest.mark.parametrize("array", [np.float32(3), np.arange(5), np.array([True, False]), np.ones((2, 3), np.int32)])
def test_inputs_of_any_type_go_out_as_they_came_in(array: np.ndarray, tmp_path: Path) -> None:
    array = np.array(array)
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    x, y = (helper.make_tensor_value_info(name, kind, array.shape) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "same.onnx")
    output = compile_model(tmp_path / "same.onnx").run(array)
    assert output.dtype == array.dtype
    assert np.array_equal(output, array)


def test_outputs_that_are_inputs_have_memory_of_their_own(tmp_path: Path) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [1], [6])
    nodes = [helper.make_node("Identity", ["x"], [name]) for name in "ab"]
    nodes.append(helper.make_node("Reshape", ["x", "shape"], ["flat"]))
    x, a, b = (helper.make_tensor_value_info(name, TensorProto.FLOAT, (2, 3)) for name in "xab")
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, (6,))
    graph = helper.make_graph(nodes, "views", [x], [a, b, flat], [shape])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), tmp_path / "views.onnx")
    compiled, array = compile_model(tmp_path / "views.onnx"), np.arange(6, dtype=np.float32).reshape(2, 3)
    outputs = compiled.run(array)
    compiled.run(array + 1)
    for number, output in enumerate(outputs):
        assert np.array_equal(output.ravel(), np.arange(6)), "not its own, or overwritten by the later run"
        output += 10 * number + 1
    assert np.array_equal(array.ravel(), np.arange(6))


def test_inputs_of_different_shapes_meet(tmp_path: Path) -> None:
    """Each is copied to aligned memory by a function of its own."""
    shapes = {"x": [1, 4, 6, 6], "weight": [8, 4, 3, 3], "gate": [1, 8, 1, 1]}
    nodes = [helper.make_node("Conv", ["x", "weight"], ["h"]), helper.make_node("Mul", ["h", "gate"], ["y"]),
             helper.make_node("Identity", ["gate"], ["same"])]
    model = make_model(nodes, shapes, ["y", "same"])
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    feeds = {name: np.random.default_rng(0).standard_normal(shape, np.float32) for name, shape in shapes.items()}
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)
    for output, reference in zip(compile_model(tmp_path / "model.onnx").run(feeds), expected, strict=True):
        np.testing.assert_allclose(output, reference, atol=1e-5)


def test_outputs_outlive_later_runs(small: Compiled) -> None:
    outputs = [small.run(IMAGE + value, IMAGE) for value in range(5)]
    assert [float(output.max()) for output in outputs] == [0, 1, 2, 3, 4]


def test_benchmark_refuses_nonsense(small: Compiled) -> None:
    with pytest.raises(OneXNError, match="cannot time 0 runs"):
        small.benchmark(repeat=0)
