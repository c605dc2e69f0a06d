"""A torch module compiles as its ONNX file does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from onexn_plugins import export_onnx
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import groups_of, prunable_layers
from onexn_plugins.masking import attach
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.tvm_backend import compile_model, compile_module, inspect_module
from tests.tvm_backend.networks import Mobile, prune


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
