"""From an ONNX file to something that runs: our compiled module, and onnxruntime on one thread beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.demo.settings import DIFFERENCE_BAR
from onexn_plugins.errors import OneXNError

# Runs one input and gives the first output.
Runner = Callable[[np.ndarray], np.ndarray]


def compiled(onnx: Path, folder: Path, target: str) -> tuple[Any, Path]:
    """Compile for `target` on one thread and save: (the compiled module, where it was saved)."""
    from onexn_plugins.tvm_backend import compile_model

    module = compile_model(onnx, target=target, threads=1)
    saved = folder / f"{onnx.stem}.{target}"
    module.save(saved)
    return module, saved


def runner(module: Any) -> Runner:
    """The compiled module as a plain function."""
    return lambda array: _first(module.run(array))


def onnxruntime_runner(onnx: Path) -> Runner:
    """onnxruntime on one thread, with all its graph optimisations (its default)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda array: session.run(None, {name: array})[0]


def checked_difference(name: str, reference: np.ndarray, output: np.ndarray) -> float:
    """The largest difference as a share of the reference's largest value.

    Raises:
        OneXNError: it is beyond `DIFFERENCE_BAR`, or the shapes differ.
    """
    if output.shape != reference.shape:
        raise OneXNError(name, f"gives an output of shape {output.shape}, torch gives {reference.shape}",
                         "Compile the model that was exported")
    difference = float(np.abs(output - reference).max() / np.abs(reference).max())
    if not difference <= DIFFERENCE_BAR:
        raise OneXNError(name, f"differs from torch by {difference:.1e} of the output's scale",
                         f"It must stay within {DIFFERENCE_BAR}")
    return difference


def layers_sparse(module: Any) -> str:
    """How many of the compiled layers run a sparse kernel: "48 of 51"."""
    return f"{sum(layer.sparse for layer in module.layers)} of {len(module.layers)}"


def bytes_of(path: Path) -> int:
    """Size of a file, or of all the files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _first(output: Any) -> np.ndarray:
    return np.asarray(output[0] if isinstance(output, (list, tuple)) else output)
