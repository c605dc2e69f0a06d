"""torch = onnxruntime = TVM. export_onnx proves the first equality when it writes the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from onexn_plugins import export_onnx
from onexn_plugins.tvm_backend import Compiled, compile_model

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
