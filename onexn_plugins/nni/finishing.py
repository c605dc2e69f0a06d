"""`finish`: from a pruner after fine-tuning to everything a trial reports."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onexn_plugins.errors import MissingDependencyError, OneXNError
from onexn_plugins.export import export_onnx
from onexn_plugins.files import check_writable
from onexn_plugins.inputs import call_model, check_inputs, tensors_in
from onexn_plugins.layers import weighted_layers
from onexn_plugins.masking import fold
from onexn_plugins.measurement import measure
from onexn_plugins.timing import interleave

Engines = dict[str, Callable[[], object]]  # what runs a network once, by the engine's name
ROUNDS = 20
TOLERANCE = 1e-3  # of the output's scale, between torch and the compiled network
DEFAULT = "default"
TIMES = ("latency_ms", "onnxruntime_ms", "speedup")
DENSE_TIMES = ("dense_latency_ms", "dense_onnxruntime_ms", "faster", "onnxruntime_faster")


def finish(pruner: Any, example_inputs: Any, *, target: str = "host", path: str | os.PathLike[str] | None = None,
           dense: nn.Module | Engines | None = None) -> dict[str, Any]:
    """Fold, measure, export, compile, compare and time the pruner's network: one flat dict to report.

        nni.report_final_result(finish(pruner, images[:1]) | {"default": accuracy})

    Args:
        pruner: NNI's, ours, a scheduler, or a FilterPruner, after `compress` and fine-tuning; or the network itself.
            Its network is folded: wrappers and masks go, zeros stay. It is left in eval mode.
        example_inputs: a tensor, a tuple or a dict; latency is for inputs of their shape.
        target: the processor to compile for; times are measured for "host" alone.
        path: where to keep the ONNX file; without it none is kept.
        dense: the network before pruning, to take turns with: how many times faster the pruned one is holds on a busy
            machine too, where milliseconds do not. `engines(network, example_inputs)` in its place saves compiling it
            again for every pruner.

    Returns:
        What was chosen (pruner, its options, sparse_ratio), and
        zero_weights, zero_blocks: fractions of the pruned layers' weights that are zero, one by one and in whole
            1×N blocks; filters that were cut out are no zeros any more;
        macs, dense_macs: multiply-accumulates of one run by weights that are not zero, and before pruning;
        parameters, dense_parameters: weights and biases there are, and before filters were cut;
        onnx_bytes, compiled_bytes: of the exported file and of the compiled network;
        max_error: largest difference of the compiled network from torch, over the output's scale;
        latency_ms, onnxruntime_ms, speedup: medians of interleaved runs on one thread, and their ratio;
        with dense: dense_latency_ms, dense_onnxruntime_ms, and how many times faster than those this network is, by
            our backend and by onnxruntime, each beside itself: faster, onnxruntime_faster;
        cut_by: who cut filters; default: how many times fewer MACs there are, a stand-in for your own metric.
        What cannot be measured for the target is None.

    Raises:
        OneXNError: the network cannot be exported or compiled, or the compiled one differs from torch.
        MissingDependencyError: the backend is not installed.
    """
    check_inputs(example_inputs)
    try:
        from onexn_plugins.tvm_backend import compile_model
        from onexn_plugins.tvm_backend.processors import find_target
    except ModuleNotFoundError as error:
        raise MissingDependencyError("apache-tvm", "tvm") from error
    find_target(target)
    if dense is not None and not isinstance(dense, (nn.Module, dict)):
        raise OneXNError("dense", f"must be a network, got {type(dense).__name__}", "Pass the one before pruning")
    file = None if path is None else check_writable(path)
    model = _network(pruner)
    selected = _selected(pruner)
    fold(model)
    model.eval()
    block_size = _block_size(pruner)
    result = {**getattr(pruner, "onexn_chosen", {"pruner": type(pruner).__name__}),
              **_measured(model, selected, block_size, example_inputs, pruner)}
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(export_onnx(model, example_inputs, file or Path(folder) / "network.onnx", block_size=block_size))
        compiled = compile_model(onnx, target=target)
        saved = compiled.save(Path(folder) / "network.onexn")
        result |= {"target": target, "onnx_bytes": onnx.stat().st_size,
                   "compiled_bytes": sum(part.stat().st_size for part in saved.rglob("*") if part.is_file()),
                   "sparse_layers": sum(layer.sparse for layer in compiled.layers)}
        if target != "host":
            result |= dict.fromkeys(("max_error", *TIMES, *(DENSE_TIMES if dense is not None else ())))
        else:
            result["max_error"] = _compared(compiled, model, example_inputs)
            beside = engines(dense, example_inputs) if isinstance(dense, nn.Module) else dense or {}
            result |= _timed(_engines(compiled, onnx, example_inputs)
                             | {f"dense {name}": run for name, run in beside.items()})
    macs, whole = result["macs"], result["dense_macs"]
    return result | {DEFAULT: whole / macs if macs else float(whole or 1)}


def engines(network: nn.Module, example_inputs: Any) -> Engines:
    """The network compiled by our backend, and by onnxruntime: {engine: runs it once}. It is not changed."""
    from onexn_plugins.tvm_backend import compile_model

    with tempfile.TemporaryDirectory() as folder:
        file = Path(export_onnx(network, example_inputs, Path(folder) / "network.onnx"))
        return _engines(compile_model(file), file, example_inputs)


def _network(pruner: Any) -> nn.Module:
    model = pruner if isinstance(pruner, nn.Module) else getattr(pruner, "bound_model", None)
    if not isinstance(model, nn.Module):
        raise OneXNError("pruner", f"must be a pruner or a network, got {type(pruner).__name__}",
                         "Pass what pruner_from_config returned")
    if getattr(pruner, "result", model) is None:
        raise OneXNError("pruner", "has not cut its filters yet", "Call pruner.compress() first")
    return model


def _selected(pruner: Any) -> set[str]:
    """The layers that the pruner prunes; none where it does not say."""
    inner = getattr(pruner, "pruner", pruner)
    spaces = getattr(inner, "_target_spaces", None) or {}
    return set(spaces) if isinstance(spaces, Mapping) else set()


def _block_size(pruner: Any) -> int:
    size = getattr(getattr(pruner, "pruner", pruner), "block_size", 4)
    return size if isinstance(size, int) else 4


def _measured(model: nn.Module, selected: set[str], block_size: int, example_inputs: Any,
              pruner: Any) -> dict[str, Any]:
    """Zeros and multiply-accumulates, weight by weight: right for blocks, single weights and cut filters alike."""
    report = measure(model, block_size, example_inputs)
    weights = {name: layer.weight.detach() for name, layer in weighted_layers(model).items()}
    nonzero = {name: int(torch.count_nonzero(weight)) for name, weight in weights.items()}
    counted = [layer for layer in report.layers if layer.name in selected] or [
        layer for layer in report.layers if layer.prunable]
    total, blocks = sum(layer.weights for layer in counted), sum(layer.blocks for layer in counted)
    macs = sum((layer.dense_macs or 0) * nonzero[layer.name] // layer.weights for layer in report.layers)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    cut = getattr(pruner, "result", None)
    dense = report if cut is None else measure(pruner.dense_model, block_size, example_inputs)
    return {
        "zero_weights": 1 - sum(nonzero[layer.name] for layer in counted) / total if total else 0.0,
        "zero_blocks": 1 - sum(layer.kept for layer in counted) / blocks if blocks else 0.0,
        "macs": macs, "dense_macs": dense.dense_macs,
        "parameters": parameters, "dense_parameters": parameters if cut is None else cut.parameters_before,
        "cut_by": None if cut is None else cut.method,
    }


def _compared(compiled: Any, model: nn.Module, example_inputs: Any) -> float:
    """The compiled network's largest difference from torch, over the output's scale; raises where it is too large."""
    expected = [tensor.detach().cpu().numpy() for tensor in tensors_in(call_model(model, example_inputs))]
    outputs = compiled.run(*_arrays(example_inputs, [item.name for item in compiled.inputs]))
    error = _difference(outputs if isinstance(outputs, list) else [outputs], expected)
    if not error <= TOLERANCE:
        raise OneXNError("network", f"compiled, it differs from torch by {error:.1e} of the output's scale",
                         "Report the network; until then run the ONNX file with onnxruntime")
    return error


def _engines(compiled: Any, onnx: Path, example_inputs: Any) -> Engines:
    """What runs the network once: our backend, and onnxruntime on the same file, each on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    arrays = _arrays(example_inputs, [item.name for item in compiled.inputs])
    feed = dict(zip([item.name for item in session.get_inputs()], arrays, strict=True))
    return {"onexn": lambda: compiled.run(*arrays), "onnxruntime": lambda: session.run(None, feed)}


def _timed(contenders: Engines) -> dict[str, float]:
    """Medians of turns A B A B, and ratios of what took turns."""
    timings = interleave(contenders, rounds=ROUNDS)
    pruned = {"latency_ms": timings.milliseconds("onexn").value,
              "onnxruntime_ms": timings.milliseconds("onnxruntime").value,
              "speedup": timings.speedup("onexn", "onnxruntime").value}
    if "dense onexn" not in contenders:
        return pruned
    return pruned | {"dense_latency_ms": timings.milliseconds("dense onexn").value,
                     "dense_onnxruntime_ms": timings.milliseconds("dense onnxruntime").value,
                     "faster": timings.speedup("onexn", "dense onexn").value,
                     "onnxruntime_faster": timings.speedup("onnxruntime", "dense onnxruntime").value}


def _arrays(example_inputs: Any, names: list[str]) -> list[np.ndarray]:
    if isinstance(example_inputs, dict) and set(names) <= set(example_inputs):
        tensors: list[Tensor] = [example_inputs[name] for name in names]
    else:
        tensors = tensors_in(example_inputs)
    return [tensor.detach().cpu().numpy() for tensor in tensors]


def _difference(outputs: list[np.ndarray], expected: list[np.ndarray]) -> float:
    """The largest difference over the output's scale; NaN where there is one.

    Raises:
        OneXNError: shapes differ.
    """
    shapes, others = ([list(array.shape) for array in arrays] for arrays in (outputs, expected))
    if shapes != others:
        raise OneXNError("network", f"compiled, its outputs have shapes {shapes}, in torch {others}",
                         "Report the network; until then run the ONNX file with onnxruntime")
    return float(np.max([np.abs(output.astype(np.float64) - reference).max(initial=0.0)
                         / (np.abs(reference).max(initial=0.0) or 1.0)
                         for output, reference in zip(outputs, expected, strict=True)]))
