"""What the package makes of one damaged file: refused, right, or a fault of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model, inspect_onnx
from onexn_plugins.tvm_backend.running.compiled import Compiled

TOLERANCE = 1e-3
# What is bigger than that is looked at and not computed.
MULTIPLY_ACCUMULATES, ELEMENTS = 10**8, 10**7


def judge(path: Path, *, run: bool) -> str:
    """"refused", "read" (not compiled), "right", "no reference" (onnxruntime refuses the file), or what is wrong."""
    try:
        layers = inspect_onnx(path)
        if not run or sum(layer["dense_macs"] for layer in layers) > MULTIPLY_ACCUMULATES:
            return "read"
        compiled = compile_model(path)
    except OneXNError:
        return "refused"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    if sum(int(np.prod(tensor.shape)) for tensor in (*compiled.inputs, *compiled.outputs)) > ELEMENTS:
        return "read"
    return _compared(path, compiled)


def _compared(path: Path, compiled: Compiled) -> str:
    inputs = _inputs(compiled)
    try:
        outputs = compiled.run(*inputs.values())
    except OneXNError:
        return "refused"
    except Exception as error:
        return f"run: {type(error).__name__}: {error}"[:300]
    expected = _reference(path, inputs)
    if expected is None:
        return "no reference"
    outputs = outputs if isinstance(outputs, list) else [outputs]
    for tensor, output, reference in zip(compiled.outputs, outputs, expected, strict=True):
        if output.shape != reference.shape or output.dtype != reference.dtype:
            return f"wrong: {tensor.name} is {output.dtype}{output.shape}, not {reference.dtype}{reference.shape}"
        if not _close(output.astype(np.float64), reference.astype(np.float64)):
            return f"wrong: {tensor.name} differs by {np.nanmax(np.abs(output - reference.astype(output.dtype))):.2g}"
    return "right"


def _inputs(compiled: Compiled) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {tensor.name: (2 * generator.random(tensor.shape)).astype(tensor.dtype) for tensor in compiled.inputs}


def _reference(path: Path, inputs: dict[str, np.ndarray]) -> list[np.ndarray] | None:
    """onnxruntime's outputs; None where it does not take the file."""
    import onnxruntime

    options: Any = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return session.run(None, inputs)
    except Exception:
        return None


def _close(output: np.ndarray, expected: np.ndarray) -> bool:
    """Equal up to rounding; where the reference overflows or is no number, anything may stand."""
    known = np.isfinite(expected) & (np.abs(expected) < 1e30)
    scale = max(float(np.abs(expected[known]).max(initial=0.0)), 1e-6)
    return bool(np.all(np.abs(output[known] - expected[known]) <= TOLERANCE * scale))
