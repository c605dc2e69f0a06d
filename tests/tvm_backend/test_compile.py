"""torch = onnxruntime = TVM. export_onnx proves the first equality when it writes the file."""

from __future__ import annotations

import gc
import json
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

from onexn_plugins import export_onnx
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import groups_of, prunable_layers
from onexn_plugins.masking import attach
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.tvm_backend import (
    Compiled,
    compile_model,
    compile_module,
    inspect_module,
    inspect_onnx,
    load,
)
from onexn_plugins.tvm_backend.kernels.parts import sharing
from onexn_plugins.tvm_backend.output import huge_pages, tvm_library
from onexn_plugins.tvm_backend.running import inputs as given_inputs
from onexn_plugins.zoo import load_model
from tests.tvm_backend.networks import Bottlenecks, Mixed, Mlp, Mobile, Shuffled, prune
from tests.tvm_backend.onnx_files import make_model

TOLERANCE = 1e-4


def compile_and_compare(
    model: nn.Module, inputs: tuple[torch.Tensor, ...], path: Path, block_size: int = 4
) -> Compiled:
    export_onnx(model, inputs, path, block_size=block_size)
    compiled = compile_model(path)
    outputs = compiled.run(*(tensor.numpy() for tensor in inputs))
    with torch.no_grad():
        expected = model(*inputs)
    if isinstance(expected, torch.Tensor):
        outputs, expected = [outputs], [expected]
    assert len(outputs) == len(expected)
    for output, reference in zip(outputs, expected, strict=True):
        assert output.shape == tuple(reference.shape)
        assert np.abs(output - reference.numpy()).max() <= TOLERANCE * max(reference.abs().max().item(), 1e-6)
    return compiled


def test_mobilenet_v2_skips_its_zero_blocks(tmp_path: Path) -> None:
    model = prune(load_model("mobilenet_v2"), 4, 0.75)
    compiled = compile_and_compare(model, (torch.randn(1, 3, 64, 64),), tmp_path / "model.onnx")
    layers = {layer.name: layer for layer in compiled.layers}
    assert len(layers) == 53
    pointwise = layers["features.2.conv.2"]
    assert (pointwise.sparse, pointwise.block_size) == (True, 4)
    assert pointwise.kept == pytest.approx(0.25, abs=0.05)
    assert pointwise.macs == pytest.approx(pointwise.kept * pointwise.dense_macs, rel=0.01)
    assert not layers["features.2.conv.1.0"].sparse
    assert sum(layer.sparse for layer in compiled.layers) >= 34


def test_resnet18(tmp_path: Path) -> None:
    model = prune(load_model("resnet18"), 8, 0.5)
    compiled = compile_and_compare(model, (torch.randn(1, 3, 64, 64),), tmp_path / "model.onnx", block_size=8)
    assert all(layer.block_size == 8 for layer in compiled.layers if layer.sparse)
    assert sum(layer.sparse for layer in compiled.layers) == 21


@pytest.mark.parametrize("size", [(33, 47), (32, 32), (16, 21)])
@pytest.mark.parametrize("batch", [1, 2])
def test_every_convolution(tmp_path: Path, size: tuple[int, int], batch: int) -> None:
    compile_and_compare(prune(Mixed(), 4), (torch.randn(batch, 3, *size),), tmp_path / "model.onnx")


@pytest.mark.parametrize("block_size", [2, 8])
def test_mobile_blocks(tmp_path: Path, block_size: int) -> None:
    compiled = compile_and_compare(prune(Mobile(), block_size), (torch.randn(1, 8, 14, 14),), tmp_path / "model.onnx")
    assert any(layer.operator == "conv + depthwise" for layer in compiled.layers)


def test_residuals_are_overwritten_and_every_run_gives_the_same(tmp_path: Path) -> None:
    x = torch.randn(2, 8, 7, 7)
    compiled = compile_and_compare(prune(Bottlenecks()), (x,), tmp_path / "model.onnx")
    first = compiled.run(x.numpy())
    before = first.copy()
    compiled.run(2 * x.numpy())
    assert np.array_equal(first, before), "what was returned is the caller's"
    assert np.array_equal(compiled.run(x.numpy()), before)
    hidden = 4 * 2 * 49 * 24
    assert compiled._network.memory.nbytes - compiled._network.weight_bytes < 3 * hidden


def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    inputs = (torch.randn(2, 8, 9, 11), torch.rand(2, 8, 9, 11))
    compiled = compile_and_compare(prune(Shuffled()), inputs, tmp_path / "model.onnx")
    by_order = compiled.run(*(tensor.numpy() for tensor in inputs))
    by_name = compiled.run({tensor.name: value.numpy() for tensor, value in zip(compiled.inputs, inputs, strict=True)})
    assert all(np.array_equal(first, second) for first, second in zip(by_order, by_name, strict=True))


@pytest.mark.parametrize("shape", [(1, 12), (5, 12), (2, 3, 12)])
def test_linear_layers(tmp_path: Path, shape: tuple[int, ...]) -> None:
    compiled = compile_and_compare(prune(Mlp()), (torch.randn(shape),), tmp_path / "model.onnx")
    assert [layer.operator for layer in compiled.layers] == ["linear", "linear"]


def test_saved_network_is_the_same(tmp_path: Path) -> None:
    compiled = compile_and_compare(prune(Mobile()), (torch.randn(1, 8, 14, 14),), tmp_path / "model.onnx")
    compiled.save(tmp_path / "saved")
    loaded = load(tmp_path / "saved")
    x = np.random.default_rng(0).standard_normal((1, 8, 14, 14)).astype(np.float32)
    assert np.array_equal(loaded.run(x), compiled.run(x))
    assert (loaded.layers, loaded.inputs, loaded.outputs) == (compiled.layers, compiled.inputs, compiled.outputs)
    with pytest.raises(OneXNError, match="loaded from a saved one"):
        loaded.save(tmp_path / "again")


def test_threads_change_no_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LAUNCH", 0)  # share kernels as small as these
    alone = compile_and_compare(prune(Mobile()), (torch.randn(1, 8, 14, 14),), tmp_path / "model.onnx")
    together = compile_model(tmp_path / "model.onnx", threads=3)
    together.save(tmp_path / "saved")
    x = np.random.default_rng(0).standard_normal((1, 8, 14, 14)).astype(np.float32)
    outputs = [together.run(x), load(tmp_path / "saved").run(x)]
    other = threading.Thread(target=lambda: outputs.append(together.run(x)))  # it needs workers of its own
    other.start()
    other.join()
    assert len(outputs) == 3
    assert all(np.array_equal(output, alone.run(x)) for output in outputs)


def test_several_networks_at_once_do_not_meet(tmp_path: Path) -> None:
    """Each has its own memory, whoever runs them."""
    model, image = prune(Mobile()), torch.randn(1, 8, 14, 14)
    first, second = compile_module(model, image), compile_module(prune(Mobile(), 8), image)
    loaded = load(first.save(tmp_path / "saved"))
    images = [np.random.default_rng(seed).standard_normal((1, 8, 14, 14)).astype(np.float32) for seed in range(8)]
    expected, other = ([network.run(value) for value in images] for network in (first, second))
    wrong: list[int] = []

    def run(network: Compiled, outputs: list[np.ndarray]) -> None:
        for _ in range(20):
            wrong.extend(place for place, value in enumerate(images)
                         if not np.array_equal(network.run(value), outputs[place]))

    pairs = [(first, expected), (first, expected), (second, other), (loaded, expected)]
    workers = [threading.Thread(target=run, args=pair) for pair in pairs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert wrong == []


def test_its_memory_goes_with_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref] = []

    def allocate(nbytes: int) -> np.ndarray:
        memory = huge_pages.allocate(nbytes)
        alive.append(weakref.ref(memory.base))
        return memory

    monkeypatch.setattr(tvm_library, "allocate", allocate)
    monkeypatch.setattr(given_inputs, "allocate", allocate)
    image = np.random.default_rng(0).standard_normal((1, 8, 14, 14)).astype(np.float32)
    image.flags.writeable = False  # numpy does not lend it
    compiled = compile_module(prune(Mobile()), torch.from_numpy(image.copy()))
    loaded = load(compiled.save(tmp_path / "saved"))
    outputs = [network.run(image) for network in (compiled, loaded)]
    assert len(alive) == 4
    del compiled, loaded
    gc.collect()
    assert [memory for memory in alive if memory() is not None] == []
    assert np.array_equal(*outputs)  # outputs have memory of their own


def test_dense_network_has_no_sparse_layer(tmp_path: Path) -> None:
    compiled = compile_and_compare(Mixed().eval(), (torch.randn(1, 3, 32, 32),), tmp_path / "model.onnx")
    assert not any(layer.sparse for layer in compiled.layers)
    assert {layer.reason for layer in compiled.layers} == {"no zero kernel"}


def test_inspect_says_what_compile_does(tmp_path: Path) -> None:
    compiled = compile_and_compare(prune(Mobile()), (torch.randn(1, 8, 14, 14),), tmp_path / "model.onnx")
    inspected = inspect_onnx(tmp_path / "model.onnx")
    assert inspected == [layer.to_dict() for layer in compiled.layers]
    json.dumps(inspected)


def test_block_size_can_be_forced(tmp_path: Path) -> None:
    export_onnx(prune(Mobile(), 8), (torch.randn(1, 8, 14, 14),), tmp_path / "model.onnx")
    compiled = compile_model(tmp_path / "model.onnx", block_size=4)
    assert {layer.block_size for layer in compiled.layers if layer.sparse} == {4}


def test_benchmark_orders_its_quantiles(tmp_path: Path) -> None:
    compiled = compile_and_compare(prune(Mlp()), (torch.randn(1, 12),), tmp_path / "model.onnx")
    latency = compiled.benchmark(repeat=5, warmup=1)
    assert 0 < latency.p10 <= latency.median <= latency.p90
    assert latency.repeat == 5


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


@pytest.mark.parametrize(("options", "complaint"), [
    ({"target": "cortex-a99"}, "'cortex-a99'.*not a known processor"),
    ({"threads": 0}, "threads: must be a positive integer"),
    ({"threads": 2, "target": "cortex-a7"}, "threads: programs for 'cortex-a7' run on one thread"),
    ({"threads": True}, "threads"),
    ({"threads": 2**40}, "threads: must be a positive integer up to 1024"),
    ({"block_size": 0}, "block_size must be an integer from 1 to 32"),
    ({"block_size": 64}, "block_size must be an integer from 1 to 32"),
])
def test_wrong_options_are_refused(tmp_path: Path, options: dict, complaint: str) -> None:
    with pytest.raises(OneXNError, match=complaint):
        compile_model(tmp_path / "model.onnx", **options)


def test_a_torch_module_is_no_path_and_a_path_no_module() -> None:
    with pytest.raises(OneXNError, match=r"must be a path, got Linear.*compile_module"):
        compile_model(nn.Linear(2, 2))
    with pytest.raises(OneXNError, match="must be a torch module, got str"):
        compile_module("model.onnx", torch.randn(1, 2))


def masked() -> Mobile:
    """With its masks still on, and in training mode."""
    model = Mobile()
    for name, layer in prunable_layers(model).items():
        pattern = BlockPattern.of(layer.weight, 2, groups_of(layer))
        attach(layer, torch.rand(pattern.shape) < 0.5, 2, name)
    return model.train()


@pytest.mark.parametrize("make", [lambda: prune(Mobile()), masked])
def test_a_module_compiles_as_its_file_does(tmp_path: Path, make: Callable[[], nn.Module]) -> None:
    model, image = make(), torch.randn(1, 8, 14, 14)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training = model.training
    export_onnx(model, image, tmp_path / "model.onnx")
    from_file, direct = compile_model(tmp_path / "model.onnx"), compile_module(model, image)
    assert np.array_equal(direct.run(image.numpy()), from_file.run(image.numpy()))
    assert (direct.layers, direct.inputs, direct.outputs) == (from_file.layers, from_file.inputs, from_file.outputs)
    assert inspect_module(model, image) == [layer.to_dict() for layer in direct.layers]
    assert any(layer.sparse for layer in direct.layers)
    assert model.training == training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 3)

    def forward(self, image: torch.Tensor, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.conv(image)
        return features, features * scale


def test_a_module_with_named_inputs() -> None:
    inputs = {"image": torch.randn(2, 4, 9, 11), "scale": torch.rand(8, 1, 1)}
    model = prune(Scaled())
    outputs = compile_module(model, inputs, block_size=2).run({name: value.numpy() for name, value in inputs.items()})
    for output, expected in zip(outputs, model(**inputs), strict=True):
        np.testing.assert_allclose(output, expected.detach().numpy(), atol=1e-5)


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(("model", "inputs", "options", "complaint"), [
    (nn.Linear(2, 2), "image", {}, "must be a tensor, a tuple or a dict"),
    (nn.Linear(2, 2), torch.randn(1, 3), {}, "forward fails"),
    (Branching(), torch.randn(1, 3), {}, "torch cannot export it"),
    (nn.Linear(2, 2), torch.randn(1, 2), {"target": "z80"}, "not a known processor"),
    (nn.Linear(2, 2), torch.randn(1, 2), {"threads": 0}, "threads: must be a positive integer"),
    (nn.Linear(2, 2), torch.randn(1, 2), {"block_size": 0}, "block_size must be an integer from 1 to 32"),
])
def test_modules_that_cannot_be_compiled(model: nn.Module, inputs: object, options: dict, complaint: str) -> None:
    with pytest.raises(OneXNError, match=complaint):
        compile_module(model, inputs, **options)


def test_other_machines_code_is_not_run(tmp_path: Path) -> None:
    export_onnx(prune(Mlp()), (torch.randn(1, 12),), tmp_path / "model.onnx")
    compiled = compile_model(tmp_path / "model.onnx", target="cortex-a72")
    with pytest.raises(OneXNError, match="cortex-a72"):
        compiled.run(np.zeros((1, 12), np.float32))
