"""torch = onnxruntime = TVM, of whole networks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onexn_plugins import export_onnx
from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, compile_module, inspect_onnx, load
from onexn_plugins.zoo import load_model
from tests.tvm_backend.comparing import compile_and_compare
from tests.tvm_backend.networks import Mixed, Mlp, Mobile, Shuffled, prune


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


def test_other_machines_code_is_not_run(tmp_path: Path) -> None:
    export_onnx(prune(Mlp()), (torch.randn(1, 12),), tmp_path / "model.onnx")
    compiled = compile_model(tmp_path / "model.onnx", target="cortex-a72")
    with pytest.raises(OneXNError, match="cortex-a72"):
        compiled.run(np.zeros((1, 12), np.float32))
