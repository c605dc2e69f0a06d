"""`onexn run`: one inference of an ONNX file or a compiled library."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onexn_plugins.cli.common import Result, add_onnx_shapes, add_strict, add_tuning, is_onnx, stage
from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.files import check_writable, written_aside

HELP = "Run a model once on this machine and show or save its outputs."
EXAMPLE = "onexn run pruned.onnx --input image.npy --compare"
TOLERANCE = 1e-4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an ONNX file, or what `onexn compile` saved")
    parser.add_argument("--input", action="append", default=[], metavar="[NAME=]FILE.npy",
                        help="an input array, once per input, by name or in the model's order; random (seeded) ones "
                             "without it")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE.npz", help="where to save the outputs")
    parser.add_argument("--compare", action="store_true",
                        help=f"exit with 1 where onnxruntime differs by over {TOLERANCE:g} of the output's scale")
    add_onnx_shapes(parser)
    add_tuning(parser)
    add_strict(parser)


def run(arguments: argparse.Namespace) -> Result:
    if arguments.output is not None:
        check_writable(arguments.output)
    if arguments.compare and not is_onnx(arguments.model):
        raise OneXNError(arguments.model, "a compiled library cannot be compared", "Give the ONNX file itself")
    compiled = open_model(arguments)
    arrays = _inputs(compiled, arguments.input)
    outputs = _as_list(compiled.run(*arrays))
    values: dict[str, Any] = {"model": arguments.model, "outputs": [
        {"shape": list(output.shape), **_described(output)} for output in outputs]}
    lines = [f"output {index}: {item['shape']}, " + (
        f"mean {item['mean']:.4g}, from {item['min']:.4g} to {item['max']:.4g}" if "mean" in item else "no element")
             for index, item in enumerate(values["outputs"])]
    if arguments.compare:
        values["difference"] = difference(arguments.model, arrays, outputs)
        lines.append(f"difference from onnxruntime: {values['difference']:.1e} of the output's scale")
    if arguments.output is not None:
        with written_aside(arguments.output) as unfinished, unfinished.open("wb") as file:
            np.savez(file, *outputs)
        lines.append(f"saved: {arguments.output}")
    return Result(values, "\n".join(lines), int(values.get("difference", 0.0) > TOLERANCE))


def _described(output: np.ndarray) -> dict[str, float]:
    """Of an output that has elements."""
    if not output.size:
        return {}
    return {name: float(getattr(output, name)()) for name in ("mean", "min", "max")}


def open_model(arguments: argparse.Namespace, threads: int = 1) -> Any:
    """Compile an ONNX file for the host, or load what was compiled before."""
    from onexn_plugins.tvm_backend import compile_model, load

    if not is_onnx(arguments.model):
        for option in ("tuning", "input_shapes", "strict"):
            if getattr(arguments, option):
                raise OneXNError(arguments.model, "is compiled already, so "
                                 f"--{option.rstrip('s').replace('_', '-')} comes too late", "Give the ONNX file")
        return load(arguments.model)
    with stage(arguments, f"compiling {arguments.model} for this machine"):
        return compile_model(arguments.model, threads=threads, tuning=arguments.tuning,
                             input_shapes=arguments.input_shapes, strict=arguments.strict)


def random_inputs(compiled: Any) -> list[np.ndarray]:
    """Reproducible inputs of the shapes and types the model takes."""
    generator = np.random.default_rng(0)
    return [_random(generator, item.shape, np.dtype(item.dtype)) for item in compiled.inputs]


def _random(generator: np.random.Generator, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
    """Normal numbers; bytes of an image; 0 or 1 of another integer, which may be an index."""
    if np.issubdtype(dtype, np.floating):
        return generator.standard_normal(shape).astype(dtype)
    return generator.integers(0, 256 if dtype == np.uint8 else 2, shape).astype(dtype)


def onnxruntime_session(path: str, threads: int = 1) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise OneXNError(path, "is refused by onnxruntime, so there is nothing to compare with: "
                         f"{first_line(error).rpartition(' : ')[2]}", "Run it without a comparison") from error


def _inputs(compiled: Any, given: list[str]) -> list[np.ndarray]:
    """The arrays of `[NAME=]FILE.npy` in the model's order; all random where none is given."""
    if not given:
        return random_inputs(compiled)
    known = [item.name for item in compiled.inputs]
    named = [(("", text) if Path(text).exists() else _split(text)) for text in given]
    if not any(name for name, _ in named):
        return [_read(Path(file)) for _, file in named]
    files = dict(named)
    if len(files) < len(named) or set(files) != set(known):
        raise OneXNError("--input", f"{', '.join(given)} are not the inputs of the model: {', '.join(known)}",
                         f"Give one --input NAME=FILE.npy for each of {', '.join(known)}, or all without a name")
    return [_read(Path(files[name])) for name in known]


def _split(text: str) -> tuple[str, str]:
    """`NAME=FILE.npy` as both; the name is "" where there is none."""
    name, _, file = text.rpartition("=")
    return name, file


def _read(file: Path) -> np.ndarray:
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise OneXNError(str(file), f"cannot be read as an array: {error}", "Save it with numpy.save") from error


def difference(path: str, arrays: Sequence[np.ndarray], outputs: Sequence[np.ndarray]) -> float:
    """Largest difference from onnxruntime's outputs, relative to their scale; 1 where NaN or infinities differ."""
    from onexn_plugins.tvm_backend.checking.network import share_apart

    session = onnxruntime_session(path)
    names = [item.name for item in session.get_inputs()]
    expected = session.run(None, dict(zip(names, arrays, strict=True)))
    return max(map(share_apart, outputs, expected), default=0.0)


def _as_list(outputs: Any) -> list[np.ndarray]:
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]
