"""A layer is decided once and emitted once, and looking at a network emits nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from onexn_plugins import export_onnx
from onexn_plugins.tvm_backend import compile_model, inspect_onnx
from onexn_plugins.tvm_backend.kernels import request as requests
from onexn_plugins.tvm_backend.kernels.code import function
from onexn_plugins.tvm_backend.planning.plan import Planner
from tests.tvm_backend.networks import Mobile, prune


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return Path(export_onnx(prune(Mobile()), torch.randn(1, 8, 14, 14), tmp_path / "model.onnx"))


def test_a_layer_is_decided_and_encoded_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decided, encoded = Counter[str](), Counter[int]()
    decide, encode = Planner.decide, requests.encode

    def count_decision(self, problem, weights, name):
        decided[name] += 1
        return decide(self, problem, weights, name)

    def count_encoding(values, *arguments, **options):
        encoded[id(values)] += 1
        return encode(values, *arguments, **options)

    monkeypatch.setattr(Planner, "decide", count_decision)
    monkeypatch.setattr(requests, "encode", count_encoding)
    compiled = compile_model(model)
    blocks = [layer for layer in compiled.layers if layer.operator != "depthwise"]
    assert len(decided) == len(blocks)
    assert set(decided.values()) == set(encoded.values()) == {1}


def test_looking_at_a_network_emits_no_kernel(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a kernel was emitted")

    monkeypatch.setattr(function, "IRBuilder", refuse)
    layers = inspect_onnx(model)
    assert all(layer["family"] for layer in layers)
    assert any(layer["refused"] for layer in layers)


def test_a_report_says_what_was_asked_before(model: Path) -> None:
    first = inspect_onnx(model, target="x86-64-v3")[0]
    asked = [what for what, _ in first["refused"]]
    assert all(isinstance(why, str) and why for _, why in first["refused"])
    assert len(set(asked)) == len(asked)
