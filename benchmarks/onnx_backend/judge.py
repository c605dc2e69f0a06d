"""What the backend makes of one of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from benchmarks.onnx_backend.cases import Case
from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.checking.reference import onnxruntime_session

# How messages begin that no check foresaw.
INTERNAL = ("cannot be compiled: ", "does not run: ")


def judge(case: Case, folder: Path) -> str:
    """What became of the test.

    Returns:
        "right", "right with constants", "refused: why", "internal: what", "wrong: where"; or "disputed: where", if
        onnxruntime computes what we do and not what the test expects.
    """
    outcome = "refused"
    for place, (model, data) in enumerate(case.forms()):
        outcome = _judged(model, data, case, folder / "model.onnx")
        if outcome == "right":
            return "right with constants" if place else outcome
        if outcome.startswith(("wrong", "disputed")):
            return outcome
    return outcome


def _judged(model: ModelProto, data: list[tuple[list[Any], list[Any]]], case: Case, path: Path) -> str:
    path.write_bytes(model.SerializeToString())
    try:
        compiled = compile_model(path)
        for inputs, expected in data:
            outputs = compiled.run(*map(np.asarray, inputs))
            made = outputs if isinstance(outputs, list) else [outputs]
            fault = _fault(made, expected, case)
            if fault:
                disputed = not _fault(made, _onnxruntime(model, inputs), case)
                return f"{'disputed' if disputed else 'wrong'}: {fault}"
    except OneXNError as error:
        kind = "internal" if any(word in str(error) for word in INTERNAL) else "refused"
        return f"{kind}: {error}".replace(str(path), path.name)[:300]
    except Exception as error:
        return f"internal: {type(error).__name__}: {error}"[:300]
    return "right"


def _onnxruntime(model: ModelProto, inputs: list[Any]) -> list[Any]:
    """Its outputs; none where it does not take the model."""
    names = [item.name for item in model.graph.input]
    try:
        return onnxruntime_session(model.SerializeToString()).run(None, dict(zip(names, inputs, strict=True)))
    except Exception:
        return []


def _fault(outputs: list[np.ndarray], expected: list[Any], case: Case) -> str | None:
    if len(outputs) != len(expected):
        return f"{len(outputs)} outputs for {len(expected)}"
    for output, reference in zip(outputs, map(np.asarray, expected), strict=True):
        if output.shape != reference.shape or output.dtype != reference.dtype:
            return f"{output.dtype}{list(output.shape)} for {reference.dtype}{list(reference.shape)}"
        if not np.allclose(output, reference, rtol=case.rtol, atol=max(case.atol, 1e-6), equal_nan=True):
            return f"{output.reshape(-1)[:4]} for {reference.reshape(-1)[:4]}"
    return None
