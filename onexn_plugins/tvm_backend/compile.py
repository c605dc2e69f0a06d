"""From an ONNX file or a torch module to a compiled network: plan, write as Relax, build."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.checking.network import (
    SECONDS,
    checked_verify,
    compare,
    expected_seconds,
    not_compared,
)
from onexn_plugins.tvm_backend.checking.operators import check_operators
from onexn_plugins.tvm_backend.logs import TVM_CHATTER, without_lines
from onexn_plugins.tvm_backend.lowering.relax_module import build_module
from onexn_plugins.tvm_backend.output.forms import form_of
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.planning.network import Network, blamed_on, plan_file, plan_module
from onexn_plugins.tvm_backend.planning.unserved import unserved, warn_of
from onexn_plugins.tvm_backend.processors import Target, find_target, why_not_here
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
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    verify: bool | None = None,
    strict: bool = False,
) -> Compiled:
    """Compile an ONNX network; its 1×N-sparse layers skip their zero blocks where that is faster.

    Args:
        onnx_path: a float32 CNN, opset 7 or later; see export_onnx.
        target: one of `targets()`.
        block_size: N of every pruned layer; None takes what the file records, or detects it layer by layer.
        threads: how many threads to run on; on fewer processors the network is right, but slower.
        tuning: a database that `tune` wrote; layers it knows take their tile and block size from there.
        input_shapes: the shape of each input that has dynamic dimensions, by name: {"images": (1, 3, 320, 320)}.
        verify: run the network once and compare it with onnxruntime; None does so where that takes less than a second
            on this machine. For another processor, True compares the network as compiled for this one. Whatever runs
            in no kernel of ours is compared operator by operator in any case. See Compiled.verification.
        strict: infinities and NaN in inputs go wherever ONNX's operators take them. It costs what pruning gained: zero
            blocks are multiplied, because zero times infinity is NaN, and Winograd's algorithm is not used. Otherwise
            finite inputs, and infinite ones away from those, give the same results; nothing else differs.

    Raises:
        OneXNError: the file, target, block size, number of threads or database cannot be used, or what it would
            compute is not what onnxruntime computes; names what and why.
    """
    processor = find_target(target)
    _check_threads(threads, processor)
    tuned = _read_tuning(tuning, processor, threads, block_size)
    network = plan_file(onnx_path, processor, block_size, tuned, threads, input_shapes, _checked_strict(strict, tuned))
    if checked_verify(verify) and why_not_here(processor):
        here = compile_model(onnx_path, block_size=block_size, input_shapes=input_shapes, verify=True, strict=strict)
        return _compile(network, processor, threads, False, here.verification, strict)
    return _compile(network, processor, threads, verify, strict=strict)


def compile_module(
    model: nn.Module,
    example_inputs: Any,
    *,
    target: str = "host",
    block_size: int | None = None,
    threads: int = 1,
    tuning: str | os.PathLike[str] | None = None,
    verify: bool | None = None,
    strict: bool = False,
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
        verify: as in compile_model.
        strict: as in compile_model.

    Raises:
        OneXNError: as export_onnx and compile_model.
    """
    processor = find_target(target)
    _check_threads(threads, processor)
    tuned = _read_tuning(tuning, processor, threads, block_size)
    network = plan_module(model, example_inputs, processor, block_size, tuned, threads,
                          _checked_strict(strict, tuned))
    if checked_verify(verify) and why_not_here(processor):
        here = compile_module(model, example_inputs, block_size=block_size, verify=True, strict=strict)
        return _compile(network, processor, threads, False, here.verification, strict)
    return _compile(network, processor, threads, verify, strict=strict)


def inspect_onnx(
    onnx_path: str | os.PathLike[str],
    *,
    target: str = "host",
    block_size: int | None = None,
    tuning: str | os.PathLike[str] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    strict: bool = False,
) -> list[dict[str, Any]]:
    """What compile_model would make of every convolution and linear layer, without compiling: Layer as plain values.

    Raises:
        OneXNError: as compile_model.
    """
    found = describe_onnx(onnx_path, target=target, block_size=block_size, tuning=tuning, input_shapes=input_shapes,
                          strict=strict)
    return list(found["layers"])


def describe_onnx(
    onnx_path: str | os.PathLike[str],
    *,
    target: str = "host",
    block_size: int | None = None,
    tuning: str | os.PathLike[str] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """As inspect_onnx, with what runs without a kernel of ours: {"layers": ..., "others": Unserved as plain values}.

    Raises:
        OneXNError: as compile_model.
    """
    processor = find_target(target)
    tuned = _read_tuning(tuning, processor, 1, block_size)
    return _described(plan_file(onnx_path, processor, block_size, tuned, input_shapes=input_shapes,
                                strict=_checked_strict(strict, tuned)))


def inspect_module(
    model: nn.Module,
    example_inputs: Any,
    *,
    target: str = "host",
    block_size: int | None = None,
    tuning: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> list[dict[str, Any]]:
    """What compile_module would make of every convolution and linear layer, without compiling: Layer as plain values.

    Raises:
        OneXNError: as compile_module.
    """
    found = describe_module(model, example_inputs, target=target, block_size=block_size, tuning=tuning, strict=strict)
    return list(found["layers"])


def describe_module(
    model: nn.Module,
    example_inputs: Any,
    *,
    target: str = "host",
    block_size: int | None = None,
    tuning: str | os.PathLike[str] | None = None,
    strict: bool = False,
) -> dict[str, Any]:
    """As describe_onnx, of a torch module.

    Raises:
        OneXNError: as compile_module.
    """
    processor = find_target(target)
    tuned = _read_tuning(tuning, processor, 1, block_size)
    return _described(plan_module(model, example_inputs, processor, block_size, tuned,
                                  strict=_checked_strict(strict, tuned)))


def _described(network: Network) -> dict[str, Any]:
    return {"layers": [layer.to_dict() for layer in network.layers],
            "others": [item.to_dict() for item in unserved(network.graph, network.order)]}


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


def _checked_strict(strict: bool, tuned: Tuning | None) -> bool:
    """Whether infinities go where ONNX takes them; tuned choices skip blocks."""
    if not isinstance(strict, bool):
        raise OneXNError("strict", f"must be True or False, got {strict!r}", "See compile_model")
    if strict and tuned is not None:
        raise OneXNError("strict", "a tuning database is for networks that skip their zero blocks",
                         "Leave out strict or tuning")
    return strict


def _compile(network: Network, processor: Target, threads: int, verify: bool | None,
             verified: Mapping[str, Any] | None = None, strict: bool = False) -> Compiled:
    """Build the network and compare it; `verified` says that a comparison took place before."""
    graph = network.graph
    warn_of(network.name, unserved(graph, network.order))
    with without_lines(*TVM_CHATTER), blamed_on(network.name):
        check_operators(graph, network.order, processor)
        built = form_of(processor).build(build_module(graph, network.order), processor)
        inputs = [_tensor(graph, name, name) for name in graph.inputs]
        outputs = [_tensor(graph, value, name)
                   for value, name in zip(graph.outputs, graph.output_names, strict=True)]
        compiled = Compiled(built, processor, inputs, outputs, network.layers, threads, _steps(network),
                            strict=strict)
        compiled.verification = dict(verified) if verified else _verified(compiled, network, verify)
    return compiled


def _verified(compiled: Compiled, network: Network, verify: bool | None) -> dict[str, Any]:
    """What became of the comparison; see Compiled.verification."""
    if verify is False:
        return not_compared("was not asked for")
    if why_not_here(compiled.target):
        return not_compared("was compiled for another processor")
    if verify is None and expected_seconds(network) > SECONDS:
        return not_compared("would take more than a second; verify=True does it")
    return compare(compiled, network)


def _steps(network: Network) -> list[Step]:
    """The kernel calls in the order they run."""
    places = {layer: position for position, layer in enumerate(network.layers)}
    return [Step(call.kernel.family, tuple(places[layer] for layer in call.layers),
                 sum(array.nbytes for array in call.kernel.constants))
            for call in network.order if isinstance(call, KernelCall)]


def _tensor(graph: Graph, value: str, name: str) -> Tensor:
    return Tensor(name, tuple(int(size) for size in graph.shape(value)), str(graph.dtype(value)))
