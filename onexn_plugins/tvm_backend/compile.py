"""From an ONNX file or a torch module to a compiled network: read, simplify, plan and fuse, write as Relax, build."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from onnx import ModelProto
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.export import onnx_bytes, read_pattern
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
from onexn_plugins.tvm_backend.lowering import compile_module as lower_module
from onexn_plugins.tvm_backend.onnx_model import EXPORT_AGAIN, first_line, load_onnx_model, parse_onnx_model
from onexn_plugins.tvm_backend.plan import Layer, Planner
from onexn_plugins.tvm_backend.profile import Step
from onexn_plugins.tvm_backend.relax_module import build_module
from onexn_plugins.tvm_backend.targets import Target, find_target

# How messages name a network that came without a file; export_onnx's block size for layers that carry no mask.
IN_MEMORY, UNMASKED_BLOCK_SIZE = "model", 4


def compile_model(
    onnx_path: str | os.PathLike[str], *, target: str = "host", block_size: int | None = None, threads: int = 1
) -> Compiled:
    """Compile an ONNX network; its 1×N-sparse layers skip their zero blocks where that is faster.

    Args:
        onnx_path: a float32 CNN with static shapes, opset 11 or later; see export_onnx.
        target: one of `targets()`.
        block_size: N of every pruned layer; None takes what the file records, or detects it layer by layer.
        threads: how many threads to run on.

    Raises:
        OneXNError: the file, target, block size or number of threads cannot be used; names what and why.
    """
    processor = find_target(target)
    _check_options(block_size, threads)
    return _compile(_plan_file(onnx_path, processor, block_size), processor, threads)


def compile_module(
    model: nn.Module, example_inputs: Any, *, target: str = "host", block_size: int | None = None, threads: int = 1
) -> Compiled:
    """Compile a torch module, without a file in between.

    The way is that of export_onnx and compile_model: torch.export captures the module, torch's exporter translates
    that into ONNX in memory, which is proved equal to torch and goes into compile_model's front end. A second front
    end for torch's own operators would have to repeat all that the first one knows.

    Args:
        model: masked, wrapped or folded, in any mode; it is not changed.
        example_inputs: a tensor, a tuple or a dict of what forward takes; the network gets their shapes.
        target: one of `targets()`.
        block_size: N of every pruned layer; None takes each mask's own, or detects it where there is no mask.
        threads: how many threads to run on.

    Raises:
        OneXNError: as export_onnx and compile_model.
    """
    processor = find_target(target)
    _check_options(block_size, threads)
    return _compile(_plan_module(model, example_inputs, processor, block_size), processor, threads)


def inspect_onnx(
    onnx_path: str | os.PathLike[str], *, target: str = "host", block_size: int | None = None
) -> list[dict[str, Any]]:
    """What compile_model would make of every Conv and Linear layer, without compiling: Layer as plain values.

    Raises:
        OneXNError: as compile_model.
    """
    processor = find_target(target)
    _check_options(block_size)
    return [layer.to_dict() for layer in _plan_file(onnx_path, processor, block_size).layers]


def inspect_module(
    model: nn.Module, example_inputs: Any, *, target: str = "host", block_size: int | None = None
) -> list[dict[str, Any]]:
    """What compile_module would make of every Conv and Linear layer, without compiling: Layer as plain values.

    Raises:
        OneXNError: as compile_module.
    """
    processor = find_target(target)
    _check_options(block_size)
    return [layer.to_dict() for layer in _plan_module(model, example_inputs, processor, block_size).layers]


@dataclass(frozen=True)
class _Plan:
    """A network before it is built.

    Attributes:
        name: how messages name it.
        graph: simplified.
        order: what computes it.
        layers: what became of every Conv and Linear layer.
    """

    name: str
    graph: Graph
    order: list[Node | KernelCall]
    layers: list[Layer]


def _check_options(block_size: int | None, threads: int = 1) -> None:
    if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
        raise OneXNError("threads", f"must be a positive integer, got {threads!r}", "Use threads=1")
    if block_size is not None:
        check_block_size(block_size)


def _plan_file(onnx_path: str | os.PathLike[str], processor: Target, block_size: int | None) -> _Plan:
    if not isinstance(onnx_path, (str, os.PathLike)):
        raise OneXNError("onnx_path", f"must be a path, got {type(onnx_path).__name__}",
                         "Give a torch module to compile_module, or write it with export_onnx and give that file")
    with _blamed_on(str(onnx_path)):
        return _plan(load_onnx_model(onnx_path), str(onnx_path), processor, block_size)


def _plan_module(model: nn.Module, example_inputs: Any, processor: Target, block_size: int | None) -> _Plan:
    content = onnx_bytes(model, example_inputs, block_size=block_size or UNMASKED_BLOCK_SIZE)
    with _blamed_on(IN_MEMORY):
        return _plan(parse_onnx_model(content, Path(IN_MEMORY)), IN_MEMORY, processor, block_size)


def _plan(model: ModelProto, name: str, processor: Target, block_size: int | None) -> _Plan:
    try:
        recorded = read_pattern(model)
    except ValueError as error:
        raise OneXNError(name, "its recorded pattern is not readable", EXPORT_AGAIN) from error
    graph = build_graph(model)
    check_nodes(graph)
    canonicalise(graph)
    fold_layers(graph)
    unit = VectorUnit(processor.lanes, processor.registers, processor.fused_weights)
    planner = Planner(unit, block_size, recorded if isinstance(recorded, dict) else {})
    return _Plan(name, graph, *fuse(graph, planner))


def _compile(plan: _Plan, processor: Target, threads: int) -> Compiled:
    graph = plan.graph
    with _blamed_on(plan.name), without_lines(*TVM_CHATTER):
        library = _build(build_module(graph, plan.order), processor)
    inputs = [_describe(graph, name, name) for name in graph.inputs]
    outputs = [_describe(graph, value, name)
               for value, name in zip(graph.outputs, graph.output_names, strict=True)]
    return Compiled(library, processor, inputs, outputs, plan.layers, threads, _steps(plan))


def _steps(plan: _Plan) -> list[Step]:
    """The kernel calls in the order they run."""
    places = {layer: position for position, layer in enumerate(plan.layers)}
    return [Step(call.kernel.family, tuple(places[layer] for layer in call.layers),
                 sum(array.nbytes for array in call.kernel.constants))
            for call in plan.order if isinstance(call, KernelCall)]


def _build(module: tvm.IRModule, processor: Target) -> Any:
    """For TVM's virtual machine, or as a static program where the board has no TVM."""
    if processor.tvm_runtime:
        return lower_module(module, tvm.target.Target(processor.tvm))
    return compile_static(module, processor)


@contextmanager
def _blamed_on(name: str) -> Iterator[None]:
    """Errors that no check foresaw name the network, and keep their cause."""
    try:
        yield
    except OneXNError:
        raise
    except Exception as error:
        raise OneXNError(name, f"cannot be compiled: {first_line(error)}",
                         "Report the model; simpler layers or another target may do until then") from error


def _describe(graph: Graph, value: str, name: str) -> Tensor:
    return Tensor(name, tuple(int(size) for size in graph.shape(value)), str(graph.dtype(value)))
