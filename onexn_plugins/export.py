"""ONNX with the 1×N pattern recorded in its metadata, checked after writing.

The pattern is a property of the weights, so the file is proved from its own bytes: it is read back, every
block-sparse layer of the model is found in it by its zero kernels, and onnxruntime's output is compared to torch's.
"""

from __future__ import annotations

import copy
import json
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onexn_plugins.errors import MissingDependencyError, OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.inputs import call_model, check_inputs, tensors_in
from onexn_plugins.layers import groups_of, weighted_layers
from onexn_plugins.masking import fold, mask_of
from onexn_plugins.pattern import (
    BlockPattern,
    check_block_size,
    detect_block_size,
    is_block_sparse,
    nonzero_blocks,
    nonzero_kernels,
)
from onexn_plugins.scores import check_finite

PATTERN_KEY = "onexn.pattern"
OPSET = 18
# Largest allowed difference between torch and onnxruntime, relative to the output's largest value.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class _SparseLayer:
    """A block-sparse layer of the model, to be found again in the file."""

    name: str
    pattern: BlockPattern
    kept: int
    nonzero: Tensor


def export_onnx(
    model: nn.Module, example_inputs: Any, path: str | os.PathLike[str], *, block_size: int = 4
) -> str:
    """Write the model as ONNX (opset 18, float weights inside the file, static shapes) and check what was written.

    Metadata `onexn.pattern` maps the name of every block-sparse weight in the file to
    {"layer", "block_size", "groups", "blocks", "kept"}.

    Args:
        model: masked, wrapped or folded, in any mode; it is not changed.
        example_inputs: a tensor, a tuple or a dict of what forward takes; the file gets their shapes.
        path: where to write; an existing file is replaced only by a file that passed every check.
        block_size: N of layers that carry no mask; a layer that is aligned to another N is recorded with that.

    Returns:
        The path, as a string.

    Raises:
        OneXNError: the model cannot be run or exported, the file cannot be written, or it fails a check.
        MissingDependencyError: onnx, onnxscript or onnxruntime is not installed.
    """
    check_block_size(block_size)
    check_inputs(example_inputs)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    path = check_writable(path)
    block_sizes = {name: mask.pattern.block_size for name, layer in weighted_layers(model).items()
                   if (mask := mask_of(layer)) is not None}
    plain = fold(_copy(model)).eval()
    layers = _sparse_layers(plain, block_sizes, block_size)
    expected = [tensor.detach() for tensor in tensors_in(call_model(plain, example_inputs))]
    with written_aside(path) as unfinished:
        _write(plain, example_inputs, unfinished)
        _record(unfinished, layers)
        _check_output(unfinished, example_inputs, expected)
    return str(path)


def read_pattern(onnx_model: Any) -> dict[str, dict[str, Any]]:
    """The recorded pattern of a loaded ONNX model; empty where none was recorded."""
    for entry in onnx_model.metadata_props:
        if entry.key == PATTERN_KEY:
            return json.loads(entry.value)
    return {}


def _require(package: str) -> None:
    try:
        import_module(package)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(package, "tvm") from error


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model)
    except Exception as error:
        raise OneXNError("model", f"cannot be copied: {error}",
                         "Export needs a copy to fold; detach tensors that carry gradients first") from error


def _sparse_layers(model: nn.Module, block_sizes: dict[str, int], default: int) -> list[_SparseLayer]:
    found = []
    for name, layer in weighted_layers(model).items():
        weight, groups = layer.weight.detach(), groups_of(layer)
        check_finite(weight, name)
        block_size = block_sizes.get(name, min(default, weight.shape[0]))
        pattern = BlockPattern.of(weight, block_size, groups, name)
        if not is_block_sparse(weight, pattern):
            detected = detect_block_size(weight, groups)
            if detected is None or detected == 1:
                continue
            pattern = BlockPattern.of(weight, detected, groups, name)
        kept = int(nonzero_blocks(weight, pattern).sum())
        found.append(_SparseLayer(name, pattern, kept, nonzero_kernels(weight).cpu()))
    return found


def _write(model: nn.Module, example_inputs: Any, path: Path) -> None:
    arguments = {"args": (), "kwargs": example_inputs} if isinstance(example_inputs, dict) else {
        "args": tuple(example_inputs) if isinstance(example_inputs, (list, tuple)) else (example_inputs,)
    }
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(model, **arguments, f=str(path), dynamo=True, external_data=False,
                              opset_version=OPSET, verbose=False)
    except OSError:
        raise
    except Exception as error:
        raise OneXNError("model", f"torch cannot export it: {_cause(error)}",
                         "Remove data-dependent control flow, or export the part that has none") from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _cause(error: BaseException) -> str:
    """The first line of the innermost error: the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def _record(path: Path, layers: list[_SparseLayer]) -> None:
    """Find every sparse layer in the file and write the pattern into its metadata."""
    onnx = import_module("onnx")
    onnx_model = onnx.load(str(path))
    weights = {initializer.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(initializer)))
               for initializer in onnx_model.graph.initializer if len(initializer.dims) >= 2}
    entries: dict[str, dict[str, Any]] = {}
    for layer in layers:
        name = _find(layer, {key: value for key, value in weights.items() if key not in entries})
        entries[name] = {"layer": layer.name, "block_size": layer.pattern.block_size, "groups": layer.pattern.groups,
                         "blocks": layer.pattern.num_blocks, "kept": layer.kept}
    for node in onnx_model.graph.node:
        del node.metadata_props[:]  # stack traces and paths of the exporting machine
    onnx.helper.set_model_props(onnx_model, {PATTERN_KEY: json.dumps(entries)})
    onnx.checker.check_model(onnx_model)
    onnx.save(onnx_model, str(path))


def _find(layer: _SparseLayer, weights: dict[str, Tensor]) -> str:
    """The weight of the file whose zero kernels are the layer's; the layer's own name first."""
    rows, columns = layer.nonzero.shape
    for name in sorted(weights, key=lambda name: not name.startswith(f"{layer.name}.")):
        weight = weights[name]
        for oriented in (weight, weight.T) if weight.dim() == 2 else (weight,):
            if tuple(oriented.shape[:2]) == (rows, columns) and torch.equal(nonzero_kernels(oriented), layer.nonzero):
                return name
    raise OneXNError(layer.name, "its zero blocks are not in the exported file",
                     "Export in eval mode with masks folded; report the model if it persists")


def _check_output(path: Path, example_inputs: Any, expected: list[Tensor]) -> None:
    """Run the file in onnxruntime and compare with torch."""
    names, run = _runner(path)
    arrays = [tensor.detach().cpu().numpy() for tensor in tensors_in(example_inputs)]
    if isinstance(example_inputs, dict) and set(names) <= set(example_inputs):
        arrays = [example_inputs[name].detach().cpu().numpy() for name in names]
    if len(names) != len(arrays):
        raise OneXNError("example_inputs", f"the file takes {len(names)} inputs, {len(arrays)} were given",
                         "Leave out inputs that the model does not use")
    outputs = run(dict(zip(names, arrays, strict=True)))
    for index, (output, tensor) in enumerate(zip(outputs, expected, strict=True)):
        reference = tensor.cpu().double().numpy()
        scale = float(np.abs(reference).max(initial=0.0)) or 1.0
        difference = float(np.abs(output.astype(np.float64) - reference).max(initial=0.0)) / scale
        if not difference <= TOLERANCE:
            raise OneXNError(f"output {index}", f"the file differs from torch by {difference:.1e} of its scale",
                             "The exporter changed the model; try another torch version or report the model")


def _runner(path: Path) -> tuple[list[str], Callable[[dict[str, np.ndarray]], list[np.ndarray]]]:
    """Input names and a function that runs the file; onnx's own evaluator where onnxruntime has no float64 kernel."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented:
        reference = import_module("onnx.reference").ReferenceEvaluator(str(path))
        return list(reference.input_names), lambda feed: reference.run(None, feed)
    return [item.name for item in session.get_inputs()], lambda feed: session.run(None, feed)
