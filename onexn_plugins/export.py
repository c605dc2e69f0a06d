"""ONNX with the 1×N pattern recorded in its metadata, checked before it is handed out.

The pattern is a property of the weights, so the model is proved from its own bytes: every block-sparse layer is found
in them by its zero kernels, and onnxruntime's output on them is compared to torch's.
"""

from __future__ import annotations

import copy
import json
import logging
import math
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onexn_plugins.errors import MissingDependencyError, OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.inputs import call_model, check_inputs, tensors_in
from onexn_plugins.layers import groups_of, is_transposed, out_channels, out_first, pattern_of, weighted_layers
from onexn_plugins.masking import fold, mask_of
from onexn_plugins.pattern import (
    BlockPattern,
    check_block_size,
    detect_block_size,
    is_block_sparse,
    nonzero_blocks,
    nonzero_kernels,
    turned,
)
from onexn_plugins.plain_modules import check_plain
from onexn_plugins.scores import check_finite

PATTERN_KEY = "onexn.pattern"
OPSET = 18
# Largest allowed difference between torch and onnxruntime, relative to the output's largest value.
TOLERANCE = 1e-4
# ONNX operators that multiply by a weight, and those through which a zero of it stays one.
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
KEEP_ZEROS = ("Cast", "Identity", "Mul", "Neg", "Reshape", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class _SparseLayer:
    """A block-sparse layer of the model, to be found again in the file.

    Attributes:
        runs: forward calls it; one that does not run, as auxiliary classifiers in eval mode, need not be in the file.
        transposed: its weight is [in, out / groups, *kernel], here and in the file.
    """

    name: str
    pattern: BlockPattern
    kept: int
    nonzero: Tensor
    runs: bool
    transposed: bool


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
    path = check_writable(path)
    content = onnx_bytes(model, example_inputs, block_size=block_size)
    with written_aside(path) as unfinished:
        unfinished.write_bytes(content)
    return str(path)


def onnx_bytes(model: nn.Module, example_inputs: Any, *, block_size: int = 4) -> bytes:
    """What export_onnx writes, without writing it.

    Raises:
        OneXNError, MissingDependencyError: as export_onnx.
    """
    check_block_size(block_size)
    check_inputs(example_inputs)
    for package in ("onnx", "onnxscript", "onnxruntime"):
        _require(package)
    if not isinstance(model, nn.Module):
        raise OneXNError("model", f"must be a torch module, got {type(model).__name__}", "Pass the model itself")
    check_plain(model)
    if any(value.dtype == torch.bfloat16 for value in model.parameters()):
        raise OneXNError("model", "is bfloat16, in which neither onnxruntime nor compiled kernels compute",
                         "Export model.float() with float32 inputs: pruned zeros stay zeros")
    block_sizes = {name: mask.pattern.block_size for name, layer in weighted_layers(model).items()
                   if (mask := mask_of(layer)) is not None}
    plain = fold(_copy(model)).eval()
    output, running = _run(plain, example_inputs)
    expected = [tensor.detach() for tensor in tensors_in(output)]
    layers = _sparse_layers(plain, block_sizes, block_size, running)
    content = _recorded(_exported(plain, example_inputs), layers,
                        lambda name: _reaches_output(plain, example_inputs, name))
    _check_output(content, example_inputs, expected)
    return content


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


def _run(model: nn.Module, example_inputs: Any) -> tuple[Any, set[str]]:
    """The model's output, and the layers with weights that ran."""
    running: set[str] = set()
    hooks = [layer.register_forward_hook(lambda *_, name=name: running.add(name))
             for name, layer in weighted_layers(model).items()]
    try:
        return call_model(model, example_inputs), running
    finally:
        for hook in hooks:
            hook.remove()


def _reaches_output(model: nn.Module, example_inputs: Any, name: str) -> bool:
    """Whether NaN in the place of what a layer makes changes an output; the exporter leaves out what does not."""
    hook = model.get_submodule(name).register_forward_hook(lambda _, __, made: torch.full_like(made, math.nan))
    try:
        return any(bool(output.isnan().any()) for output in tensors_in(call_model(model, example_inputs)))
    finally:
        hook.remove()


def _sparse_layers(
    model: nn.Module, block_sizes: dict[str, int], default: int, running: set[str]
) -> list[_SparseLayer]:
    found = []
    for name, layer in weighted_layers(model).items():
        weight = out_first(layer, layer.weight.detach())
        check_finite(weight, name)
        pattern = pattern_of(layer, block_sizes.get(name, min(default, out_channels(layer))), name)
        if not is_block_sparse(weight, pattern):
            detected = detect_block_size(weight, groups_of(layer))
            if detected is None or detected == 1:
                continue
            pattern = pattern_of(layer, detected, name)
        kept = int(nonzero_blocks(weight, pattern).sum())
        found.append(_SparseLayer(name, pattern, kept, nonzero_kernels(weight).cpu(), name in running,
                                  is_transposed(layer)))
    return found


def _exported(model: nn.Module, example_inputs: Any) -> Any:
    """torch's translation, as a ModelProto."""
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
            program = torch.onnx.export(model, **arguments, dynamo=True, opset_version=OPSET, verbose=False)
            return program.model_proto  # type: ignore[union-attr]  # with dynamo=True there is one
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


def _recorded(onnx_model: Any, layers: list[_SparseLayer], reaches_output: Callable[[str], bool]) -> bytes:
    """The model as bytes, with the pattern of every sparse layer, found in its weights, in the metadata.

    `reaches_output` is asked for the name of a layer that ran and is not in the file.
    """
    onnx = import_module("onnx")
    weights = {initializer.name: torch.from_numpy(np.array(onnx.numpy_helper.to_array(initializer)))
               for initializer in onnx_model.graph.initializer if len(initializer.dims) >= 2}
    entries: dict[str, dict[str, Any]] = {}
    for layer in layers:
        name = _find(layer, {key: value for key, value in weights.items() if key not in entries})
        if name is None:
            if layer.runs and reaches_output(layer.name):
                raise _lost(layer)
            continue
        if not _reaches_a_layer(onnx_model.graph, name):
            raise _lost(layer)
        entries[name] = {"layer": layer.name, "block_size": layer.pattern.block_size, "groups": layer.pattern.groups,
                         "blocks": layer.pattern.num_blocks, "kept": layer.kept}
    for node in onnx_model.graph.node:
        del node.metadata_props[:]  # stack traces and paths of the exporting machine
    onnx.helper.set_model_props(onnx_model, {PATTERN_KEY: json.dumps(entries)})
    try:
        onnx.checker.check_model(onnx_model)
        return onnx_model.SerializeToString()
    except Exception as error:
        raise OneXNError("model", f"makes no valid ONNX: {_cause(error)}",
                         "Keep its weights below 2 GB; else report the model") from error


def _find(layer: _SparseLayer, weights: dict[str, Tensor]) -> str | None:
    """The weight of the file whose zero kernels are the layer's, the layer's own name first; None if there is none.

    The exporter multiplies a following batch norm's scale into the weight: a channel whose scale is zero has more zero
    kernels in the file than in the layer. Such a weight is known by its name.
    """
    own = [name for name in weights if name.startswith(f"{layer.name}.")]
    for name in (*own, *(name for name in weights if name not in own)):
        for nonzero in _nonzero(weights[name], layer):
            if torch.equal(nonzero, layer.nonzero):
                return name
    for name in own:
        for nonzero in _nonzero(weights[name], layer):
            if not (nonzero & ~layer.nonzero).any():
                return name
    return None


def _lost(layer: _SparseLayer) -> OneXNError:
    return OneXNError(layer.name, "its zero blocks are not in the exported model, as where forward computes the weight "
                      "from the one that was pruned (weight standardisation)", "Leave it out of pruning "
                      "(ignored_layers), or store the weight it computes in a plain layer; else report the model")


def _reaches_a_layer(graph: Any, weight: str) -> bool:
    """Whether a layer multiplies by this weight, or by what keeps each of its zeros."""
    names = {weight}
    for node in graph.node:  # in the order they run
        if names.isdisjoint(node.input):
            continue
        if node.op_type in LAYERS:
            return True
        if node.op_type in KEEP_ZEROS:
            names.update(node.output)
    return False


def _nonzero(weight: Tensor, layer: _SparseLayer) -> Iterator[Tensor]:
    """The non-zero kernels of a weight as large as the layer's, whichever way round it is."""
    turns = [weight, weight.T] if weight.dim() == 2 else [weight]
    if layer.transposed:
        whole = weight.shape[0] % layer.pattern.groups == 0
        turns = [turned(weight, layer.pattern.groups)] if weight.dim() > 2 and whole else []
    for oriented in turns:
        if oriented.shape[:2] == layer.nonzero.shape:
            yield nonzero_kernels(oriented)


def _check_output(content: bytes, example_inputs: Any, expected: list[Tensor]) -> None:
    """Run the model in onnxruntime and compare with torch."""
    names, run = _runner(content)
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
        # Of a half-precision model the last bits are the runtime's own.
        if not difference <= max(TOLERANCE, 4 * torch.finfo(tensor.dtype).eps if tensor.is_floating_point() else 0.0):
            raise OneXNError(f"output {index}", f"the file differs from torch by {difference:.1e} of its scale",
                             "The exporter changed the model; try another torch version or report the model")


def _runner(content: bytes) -> tuple[list[str], Callable[[dict[str, np.ndarray]], list[np.ndarray]]]:
    """Input names and a function that runs the model; onnx's own evaluator where onnxruntime has no float64 kernel."""
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except runtime.capi.onnxruntime_pybind11_state.NotImplemented:
        reference = import_module("onnx.reference").ReferenceEvaluator(content)
        return list(reference.input_names), lambda feed: reference.run(None, feed)
    return [item.name for item in session.get_inputs()], lambda feed: session.run(None, feed)
