"""From an ONNX file or a torch module to a compiled network: plan, write as Relax, build."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.logs import TVM_CHATTER, without_lines
from onexn_plugins.tvm_backend.lowering.relax_module import build_module
from onexn_plugins.tvm_backend.output.forms import form_of
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.planning.network import Network, blamed_on, plan_file, plan_module
from onexn_plugins.tvm_backend.processors import Target, find_target
from onexn_plugins.tvm_backend.reading.graph import Graph
from onexn_plugins.tvm_backend.running.compiled import Compiled, Tensor, checked_threads
from onexn_plugins.tvm_backend.running.profile import Step
from onexn_plugins.tvm_backend.tuning.applied import Tuning


def compile_model(
    onnx_path: str | os.PathLike[str],
    *,
    target: str = "host",
    block_size: int | None = None,
    threads: int = 1,
    tuning: str | os.PathLike[str] | None = None,
) -> Compiled:
    """Compile an ONNX network; its 1×N-sparse layers skip their zero blocks where that is faster.

    Args:
        onnx_path: a float32 CNN with static shapes, opset 11 or later; see export_onnx.
        target: one of `targets()`.
        block_size: N of every pruned layer; None takes what the file records, or detects it layer by layer.
        threads: how many threads to run on; on fewer processors the network is right, but slower.
        tuning: a database that `tune` wrote; layers it knows take their tile and block size from there.

    Raises:
        OneXNError: the file, target, block size, number of threads or database cannot be used; names what and why.
    """
    processor = find_target(target)
    _check_threads(threads, processor)
    tuned = _read_tuning(tuning, processor, threads, block_size)
    return _compile(plan_file(onnx_path, processor, block_size, tuned, threads), processor, threads)


def compile_module(
    model: nn.Module,
    example_inputs: Any,
    *,
    target: str = "host",
    block_size: int | None = None,
    threads: int = 1,
    tuning: str | os.PathLike[str] | None = None,
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
        tuning: as in compile_model.

    Raises:
        OneXNError: as export_onnx and compile_model.
    """
    processor = find_target(target)
    _check_threads(threads, processor)
    tuned = _read_tuning(tuning, processor, threads, block_size)
    return _compile(plan_module(model, example_inputs, processor, block_size, tuned, threads), processor, threads)


def inspect_onnx(
    onnx_path: str | os.PathLike[str],
    *,
    target: str = "host",
    block_size: int | None = None,
    tuning: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """What compile_model would make of every Conv and Linear layer, without compiling: Layer as plain values.

    Raises:
        OneXNError: as compile_model.
    """
    processor = find_target(target)
    tuned = _read_tuning(tuning, processor, 1, block_size)
    return [layer.to_dict() for layer in plan_file(onnx_path, processor, block_size, tuned).layers]


def inspect_module(
    model: nn.Module,
    example_inputs: Any,
    *,
    target: str = "host",
    block_size: int | None = None,
    tuning: str | os.PathLike[str] | None = None,
) -> list[dict[str, Any]]:
    """What compile_module would make of every Conv and Linear layer, without compiling: Layer as plain values.

    Raises:
        OneXNError: as compile_module.
    """
    processor = find_target(target)
    tuned = _read_tuning(tuning, processor, 1, block_size)
    return [layer.to_dict() for layer in plan_module(model, example_inputs, processor, block_size, tuned).layers]


def _check_threads(threads: int, processor: Target) -> None:
    if checked_threads(threads) > 1 and not processor.tvm_runtime:
        raise OneXNError("threads", f"programs for {processor.name!r} run on one thread, got {threads}",
                         "Use threads=1")


def _read_tuning(path: str | os.PathLike[str] | None, processor: Target, threads: int,
                 block_size: int | None) -> Tuning | None:
    """The database's answers, where there is one."""
    if path is None:
        return None
    if block_size is not None:
        raise OneXNError("block_size", "is chosen by the tuning database", "Leave out block_size or tuning")
    return Tuning.read(path, processor, threads)


def _compile(network: Network, processor: Target, threads: int) -> Compiled:
    graph = network.graph
    with blamed_on(network.name), without_lines(*TVM_CHATTER):
        built = form_of(processor).build(build_module(graph, network.order), processor)
    inputs = [_tensor(graph, name, name) for name in graph.inputs]
    outputs = [_tensor(graph, value, name)
               for value, name in zip(graph.outputs, graph.output_names, strict=True)]
    return Compiled(built, processor, inputs, outputs, network.layers, threads, _steps(network))


def _steps(network: Network) -> list[Step]:
    """The kernel calls in the order they run."""
    places = {layer: position for position, layer in enumerate(network.layers)}
    return [Step(call.kernel.family, tuple(places[layer] for layer in call.layers),
                 sum(array.nbytes for array in call.kernel.constants))
            for call in network.order if isinstance(call, KernelCall)]


def _tensor(graph: Graph, value: str, name: str) -> Tensor:
    return Tensor(name, tuple(int(size) for size in graph.shape(value)), str(graph.dtype(value)))
