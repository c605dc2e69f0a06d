"""`onexn run`: one inference of an ONNX file or a compiled library."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onexn_plugins.cli.common import Result, add_tuning, is_onnx, stage
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside

HELP = "Run a model once on this machine and show or save its outputs."
EXAMPLE = "onexn run pruned.onnx --input image.npy --compare"
TOLERANCE = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an ONNX file, or what `onexn compile` saved")
    parser.add_argument("--input", action="append", type=Path, default=[], metavar="FILE.npy",
                        help="an input array, in the model's order; random (seeded) ones without it")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.npz", help="where to save the outputs")
    parser.add_argument("--compare", action="store_true",
                        help=f"exit with 1 where onnxruntime differs by over {TOLERANCE:g} of the output's scale")
    add_tuning(parser)


def run(arguments: argparse.Namespace) -> Result:
    if arguments.output is not None:
        check_writable(arguments.output)
    if arguments.compare and not is_onnx(arguments.model):
        raise OneXNError(arguments.model, "a compiled library cannot be compared", "Give the ONNX file itself")
    compiled = open_model(arguments)
    arrays = _inputs(compiled, arguments.input)
    outputs = _as_list(compiled.run(*arrays))
    values: dict[str, Any] = {"model": arguments.model, "outputs": [
        {"shape": list(output.shape), "mean": float(output.mean()), "min": float(output.min()),
         "max": float(output.max())} for output in outputs]}
    lines = [f"output {index}: {item['shape']}, mean {item['mean']:.4g}, from {item['min']:.4g} to {item['max']:.4g}"
             for index, item in enumerate(values["outputs"])]
    if arguments.compare:
        values["difference"] = difference(arguments.model, arrays, outputs)
        lines.append(f"difference from onnxruntime: {values['difference']:.1e} of the output's scale")
    if arguments.output is not None:
        with written_aside(arguments.output) as unfinished, unfinished.open("wb") as file:
            np.savez(file, *outputs)
        lines.append(f"saved: {arguments.output}")
    return Result(values, "\n".join(lines), int(values.get("difference", 0.0) > TOLERANCE))


def open_model(arguments: argparse.Namespace, threads: int = 1) -> Any:
    """Compile an ONNX file for the host, or load what was compiled before."""
    from onexn_plugins.tvm_backend import compile_model, load

    if not is_onnx(arguments.model):
        if arguments.tuning is not None:
            raise OneXNError(arguments.model, "is compiled already, so --tuning comes too late", "Give the ONNX file")
        return load(arguments.model)
    with stage(arguments, f"compiling {arguments.model} for this machine"):
        return compile_model(arguments.model, threads=threads, tuning=arguments.tuning)


def random_inputs(compiled: Any) -> list[np.ndarray]:
    """Reproducible inputs of the shapes and types the model takes."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(item.shape).astype(item.dtype) for item in compiled.inputs]


def onnxruntime_session(path: str, threads: int = 1) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _inputs(compiled: Any, files: list[Path]) -> list[np.ndarray]:
    if not files:
        return random_inputs(compiled)
    arrays = []
    for file in files:
        try:
            arrays.append(np.load(file, allow_pickle=False))
        except (OSError, ValueError) as error:
            raise OneXNError(str(file), f"cannot be read as an array: {error}", "Save it with numpy.save") from error
    return arrays


def difference(path: str, arrays: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """Largest difference from onnxruntime's outputs, relative to their scale."""
    session = onnxruntime_session(path)
    names = [item.name for item in session.get_inputs()]
    expected = session.run(None, dict(zip(names, arrays, strict=True)))
    return max(float(np.abs(output - reference).max() / (np.abs(reference).max() or 1.0))
               for output, reference in zip(outputs, expected, strict=True))


def _as_list(outputs: Any) -> list[np.ndarray]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
