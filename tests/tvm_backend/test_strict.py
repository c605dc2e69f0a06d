"""Infinities and NaN in inputs: with strict=True they go wherever ONNX's operators take them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, inspect_onnx, load

CHANNELS, SIDE = 32, 14


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A 3×3 layer without zeros, which is one for Winograd's algorithm, a pruned one, and max pooling."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.SiLU(), nn.MaxPool2d(3, 2, 1),
                          nn.Conv2d(CHANNELS, 16, 1))
    with torch.no_grad():
        model[3].weight[:8, ::2] = model[3].weight[8:, 1::4] = 0
    path = tmp_path_factory.mktemp("strict") / "network.onnx"
    torch.onnx.export(model.eval(), (torch.zeros(1, CHANNELS, SIDE, SIDE),), path, dynamo=False)
    return path


def with_special_values() -> np.ndarray:
    x = np.random.default_rng(1).standard_normal((1, CHANNELS, SIDE, SIDE), np.float32)
    x[0, 0, 2, 3], x[0, 1, 9, 9], x[0, 5, 12, 1] = np.inf, -np.inf, np.nan
    return x


def by_torch(path: Path, x: np.ndarray) -> np.ndarray:
    """onnxruntime's maximum loses NaN, so its pool is computed by torch."""
    import onnx

    def part(given: list[str], made: list[str], value: np.ndarray) -> np.ndarray:
        model = onnx.utils.Extractor(onnx.shape_inference.infer_shapes(onnx.load(path))).extract_model(given, made)
        return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {given[0]: value})[0]

    graph = onnx.load(path).graph
    pool = next(node for node in graph.node if node.op_type == "MaxPool")
    before = part([graph.input[0].name], list(pool.input), x)
    pooled = torch.nn.functional.max_pool2d(torch.from_numpy(before), 3, 2, 1).numpy()
    return part(list(pool.output), [graph.output[0].name], pooled)


def test_a_strict_network_takes_them_where_onnx_does(path: Path, tmp_path: Path):
    x = with_special_values()
    expected = by_torch(path, x)
    assert 0 < np.isfinite(expected).sum() < expected.size
    compiled = compile_model(path, strict=True)
    np.testing.assert_allclose(compiled.run(x), expected, rtol=1e-4, atol=1e-4)
    # Without it they go elsewhere: this test can fail.
    other = compile_model(path).run(x)
    assert (np.isfinite(other) != np.isfinite(expected)).any()
    saved = load(compiled.save(tmp_path / "saved"))
    assert saved.strict
    np.testing.assert_array_equal(saved.run(x), compiled.run(x))


def test_what_is_finite_is_the_same(path: Path):
    x = np.random.default_rng(2).standard_normal((1, CHANNELS, SIDE, SIDE), np.float32)
    np.testing.assert_allclose(compile_model(path, strict=True).run(x), compile_model(path).run(x), rtol=1e-4,
                               atol=1e-5)


def test_the_report_says_so(path: Path):
    layers = inspect_onnx(path, strict=True)
    assert not any(layer["sparse"] for layer in layers)
    assert "infinity" in layers[1]["reason"]
    assert any("infinities" in why for _, why in layers[0]["refused"])
    assert any(layer["sparse"] for layer in inspect_onnx(path))


def test_what_contradicts_it_is_refused(path: Path, tmp_path: Path):
    with pytest.raises(OneXNError, match="strict"):
        compile_model(path, strict="yes")  # type: ignore[arg-type]
