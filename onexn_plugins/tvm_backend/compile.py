"""From an ONNX file to a compiled network: read, simplify, plan and fuse, write as Relax, build."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tvm

from onexn_plugins.errors import OneXNError
from onexn_plugins.export import read_pattern
from onexn_plugins.pattern import check_block_size
from onexn_plugins.tvm_backend.aot import compile_static
from onexn_plugins.tvm_backend.canonical import canonicalise
from onexn_plugins.tvm_backend.checks import check_nodes
from onexn_plugins.tvm_backend.compiled import Compiled, Tensor
from onexn_plugins.tvm_backend.folding import fold_layers
from onexn_plugins.tvm_backend.fusion import KernelCall, fuse
from onexn_plugins.tvm_backend.graph import Graph, Node, build_graph
from onexn_plugins.tvm_backend.kernels import VectorUnit
from onexn_plugins.tvm_backend.logs import TVM_CHATTER, without_lines
from onexn_plugins.tvm_backend.lowering import compile_module
from onexn_plugins.tvm_backend.onnx_model import EXPORT_AGAIN, first_line, load_onnx_model
from onexn_plugins.tvm_backend.plan import Layer, Planner
from onexn_plugins.tvm_backend.relax_module import build_module
from onexn_plugins.tvm_backend.targets import Target, find_target


def compile_model(
    onnx_path: str | os.PathLike[str], *, target: str = "host", block_size: int | None = None, threads: int = 1
) -> Compiled:
    """Compile an ONNX network; its 1×N-sparse layers skip their zero blocks where that is faster.

    Args:
        onnx_path: a float32 CNN with static shapes, opset 11 or later; see export_onnx.
        target: one of `targets()`.
        block_size: N of every pruned layer; None takes what the file records, or detects it layer by layer.
        threads: how many threads to run on; on fewer processors it is right but slower.

    Raises:
        OneXNError: the file, target, block size or number of threads cannot be used; names what and why.
    """
    processor = find_target(target)
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise OneXNError("threads", f"must be a positive integer, got {threads!r}", "Use threads=1")
    if threads > 1 and not processor.tvm_runtime:
        raise OneXNError("threads", f"programs for {target!r} run on one thread, got {threads}", "Use threads=1")
    graph, order, layers = _plan(onnx_path, processor, block_size, threads)
    with _blamed_on(onnx_path), without_lines(*TVM_CHATTER):
        library = _build(build_module(graph, order), processor)
    inputs = [_describe(graph, name, name) for name in graph.inputs]
    outputs = [_describe(graph, value, name)
               for value, name in zip(graph.outputs, graph.output_names, strict=True)]
    return Compiled(library, processor, inputs, outputs, layers, threads)


def inspect_onnx(
    onnx_path: str | os.PathLike[str], *, target: str = "host", block_size: int | None = None
) -> list[dict[str, Any]]:
    """What compile_model would make of every Conv and Linear layer, without compiling: Layer as plain values.

    Raises:
        OneXNError: as compile_model.
    """
    _, _, layers = _plan(onnx_path, find_target(target), block_size)
    return [layer.to_dict() for layer in layers]


def _plan(
    onnx_path: str | os.PathLike[str], processor: Target, block_size: int | None, threads: int = 1
) -> tuple[Graph, list[Node | KernelCall], list[Layer]]:
    """The simplified graph, what computes it in order, and what became of every layer."""
    if block_size is not None:
        check_block_size(block_size)
    if not isinstance(onnx_path, (str, os.PathLike)):
        raise OneXNError("onnx_path", f"must be a path, got {type(onnx_path).__name__}",
                         "Write the model with onexn_plugins.export_onnx and give that file")
    unit = VectorUnit(processor.lanes, processor.registers, processor.fused_weights, threads)
    with _blamed_on(onnx_path):
        graph, recorded = _read(Path(onnx_path))
        order, layers = fuse(graph, Planner(unit, block_size, recorded))
    return graph, order, layers


def _read(path: Path) -> tuple[Graph, dict[str, dict[str, Any]]]:
    """The simplified graph and the pattern recorded in the file."""
    model = load_onnx_model(path)
    try:
        recorded = read_pattern(model)
    except ValueError as error:
        raise OneXNError(str(path), "its recorded pattern is not readable", EXPORT_AGAIN) from error
    graph = build_graph(model)
    check_nodes(graph)
    canonicalise(graph)
    fold_layers(graph)
    return graph, recorded if isinstance(recorded, dict) else {}


def _build(module: tvm.IRModule, processor: Target) -> Any:
    """For TVM's virtual machine, or as a static program where the board has no TVM."""
    if processor.tvm_runtime:
        return compile_module(module, tvm.target.Target(processor.tvm))
    return compile_static(module, processor)


@contextmanager
def _blamed_on(path: str | os.PathLike[str]) -> Iterator[None]:
    """Errors that no check foresaw name the file, and keep their cause."""
    try:
        yield
    except OneXNError:
        raise
    except Exception as error:
        raise OneXNError(str(path), f"cannot be compiled: {first_line(error)}",
                         "Report the model; simpler layers or another target may do until then") from error


def _describe(graph: Graph, value: str, name: str) -> Tensor:
    return Tensor(name, tuple(int(size) for size in graph.shape(value)), str(graph.dtype(value)))
