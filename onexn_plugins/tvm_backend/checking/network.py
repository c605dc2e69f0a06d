"""Compares a whole compiled network with onnxruntime on the file it came from, and names the first layer that differs.

What operators alone cannot show is found here: rewrites of the graph, kernels and what is computed together.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime
import tvm

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.tvm_backend.checking import inputs
from onexn_plugins.tvm_backend.checking.reference import (
    TOLERANCE,
    Arrays,
    Feeds,
    onnx_model,
    onnxruntime_session,
)
from onexn_plugins.tvm_backend.lowering.relax_module import build_module
from onexn_plugins.tvm_backend.output.tvm_library import compile_library
from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.planning.network import Network
from onexn_plugins.tvm_backend.processors import find_target
from onexn_plugins.tvm_backend.reading.graph import Node, TensorSpec
from onexn_plugins.tvm_backend.running.compiled import Compiled

SECONDS = 1.0
# One thread of an ordinary processor, for kernels of ours and onnxruntime's together; what TVM lowers; reading a file.
_MACS_PER_SECOND, _TVM_MACS_PER_SECOND, _BYTES_PER_SECOND = 8e9, 3e8, 5e8
# How much inputs are changed to see how far a network spreads what float32 rounds, how many times as far outputs may be
# apart, and what no spread excuses.
_NUDGE, _BEYOND, _MOST = 1e-6, 10.0, 0.1
# By how much inputs change, up or down each for itself, to see which whole numbers a near tie decides, and how often.
_TIES, _TRIES = (1e-6, 1e-5, 1e-4), 18
# Between operators onnxruntime rounds some values of a network in half precision.
_HALF_TOLERANCE = 1e-2


def expected_seconds(network: Network) -> float:
    """How long the comparison takes, roughly."""
    macs = sum(layer.dense_macs / (_MACS_PER_SECOND if layer.block_size or "depthwise" in layer.operator
                                   else _TVM_MACS_PER_SECOND) for layer in network.layers)
    return macs + sum(array.nbytes for array in network.graph.constants.values()) / _BYTES_PER_SECOND


def compare(compiled: Compiled, network: Network) -> dict[str, Any]:
    """What the artefact says about the comparison: {"compared": True, "with", "difference"}, the largest difference as
    a share of the largest value; or {"compared": False, "reason"} where onnxruntime does not run the file.

    Raises:
        OneXNError: the network computes something else; names the first layer or operator that differs, if it is found.
    """
    try:
        session = onnxruntime_session(network.source)
        feeds, expected = _reference(session, compiled)
    except Exception as error:
        return not_compared(f"onnxruntime does not run it: {first_line(error)}")
    outputs = compiled.run(dict(feeds))
    made = outputs if isinstance(outputs, list) else [outputs]
    fault = _fault(compiled, network, session, feeds, made, expected)
    if fault is not None:
        # Of int8 weights before a MatMul onnxruntime makes one operator, which rounds what they are multiplied with.
        session = onnxruntime_session(network.source, optimised=False)
        expected = session.run(None, dict(feeds))
        fault = _fault(compiled, network, session, feeds, made, expected)
    if fault is not None:
        raise OneXNError(_first_difference(network, feeds) or network.name, f"would be computed wrong: {fault}",
                         "Report the model; until then replace the layer, or compile with verify=False to look into it")
    return {"compared": True, "with": f"onnxruntime {onnxruntime.__version__}",
            "difference": float(f"{max(map(share_apart, made, expected), default=0.0):.2g}")}


def _fault(compiled: Compiled, network: Network, session: Any, feeds: Feeds, made: Arrays,
           expected: Arrays) -> str | None:
    """Which output differs from what onnxruntime expects, and how."""
    fault = _other_type(compiled, made, expected)
    if fault is not None:
        return fault
    shares = list(map(share_apart, made, expected))
    return (_too_far_apart(compiled, session, feeds, expected, shares, _tolerance(network))
            or _other_numbers(compiled, session, feeds, made, expected))


def _other_type(compiled: Compiled, made: Arrays, expected: Arrays) -> str | None:
    """Which output has another type or shape."""
    for tensor, output, reference in zip(compiled.outputs, made, expected, strict=True):
        if output.dtype != reference.dtype or output.shape != reference.shape:
            return f"output {tensor.name!r} is {output.dtype}{list(output.shape)}, in onnxruntime " \
                   f"{reference.dtype}{list(reference.shape)}"
    return None


def _tolerance(network: Network) -> float:
    """For networks in float32 or, also where the rest was widened, in half precision."""
    dtypes = {spec.dtype for spec in network.graph.specs.values()}
    return _HALF_TOLERANCE if np.dtype(np.float16) in dtypes else TOLERANCE


def _too_far_apart(compiled: Compiled, session: Any, feeds: Feeds, expected: Arrays, shares: list[float],
                   tolerance: float) -> str | None:
    """Which output of floats is further from onnxruntime's than what rounding explains, each by its own spread."""
    floats = [np.issubdtype(tensor.numpy_dtype, np.floating) for tensor in compiled.outputs]
    if max((share for share, is_float in zip(shares, floats, strict=True) if is_float), default=0.0) <= tolerance:
        return None
    spreads = _spreads(session, feeds, expected)
    for tensor, is_float, share, spread in zip(compiled.outputs, floats, shares, spreads, strict=True):
        if is_float and share > max(tolerance, min(_BEYOND * spread, _MOST)):
            return f"output {tensor.name!r} is {share:.2g} of its size from onnxruntime's"
    return None


def _other_numbers(compiled: Compiled, session: Any, feeds: Feeds, made: Arrays, expected: Arrays) -> str | None:
    """Which output of whole numbers or truth values differs where no near tie decides: where onnxruntime's own stays
    when inputs change as little as float32 rounds. The place of one of two equal maxima does not stay.
    """
    open_places = [output != reference if not np.issubdtype(reference.dtype, np.floating) else np.zeros(0, bool)
                   for output, reference in zip(made, expected, strict=True)]
    for number in range(_TRIES):
        if not any(places.any() for places in open_places):
            return None
        moved = session.run(None, _shaken(feeds, _TIES[number % len(_TIES)], number))
        open_places = [places & (other == reference) if places.size else places
                       for places, other, reference in zip(open_places, moved, expected, strict=True)]
    return next((f"{np.count_nonzero(places)} of {places.size} values of output {tensor.name!r} differ from "
                 "onnxruntime's, and no rounding decides them"
                 for tensor, places in zip(compiled.outputs, open_places, strict=True) if places.any()), None)


def _shaken(feeds: Feeds, amount: float, seed: int) -> dict[str, np.ndarray]:
    """Every float changed by up to that share of it, and of the typical one."""
    generator = np.random.default_rng(seed)
    return {name: (value + amount * generator.uniform(-1, 1, value.shape) * (np.abs(value) + 1)).astype(value.dtype)
            if np.issubdtype(value.dtype, np.floating) else value for name, value in feeds.items()}


def share_apart(output: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference over the largest value, 1 where NaN or infinities differ; of whole numbers, how many of
    them differ.
    """
    if not np.issubdtype(expected.dtype, np.floating):
        return float(np.mean(output != expected)) if expected.size else 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(output[~finite], expected[~finite], equal_nan=True) or not np.isfinite(output[finite]).all():
        return 1.0
    scale = max(float(np.abs(expected[finite]).max(initial=0)), 1e-6)
    return float(np.abs(output[finite].astype(np.float64) - expected[finite]).max(initial=0)) / scale


def _reference(session: Any, compiled: Compiled) -> tuple[Feeds, Arrays]:
    """Inputs that onnxruntime takes, and its outputs."""
    specs = {tensor.name: TensorSpec(tensor.shape, tensor.numpy_dtype) for tensor in compiled.inputs}
    try:
        feeds = {name: inputs.ordinary(spec, seed) for seed, (name, spec) in enumerate(specs.items())}
        return feeds, session.run(None, feeds)
    except Exception:  # whole numbers that are no valid index, say
        feeds = {name: inputs.positive(spec, seed) for seed, (name, spec) in enumerate(specs.items())}
        return feeds, session.run(None, feeds)


def _spreads(session: Any, feeds: Feeds, expected: Arrays) -> list[float]:
    """How far each of onnxruntime's own outputs moves when inputs change by as much as float32 rounds."""
    nudged = {name: (value * (1 + _NUDGE)).astype(value.dtype) if np.issubdtype(value.dtype, np.floating) else value
              for name, value in feeds.items()}
    return list(map(share_apart, session.run(None, nudged), expected))


def _first_difference(network: Network, feeds: Feeds) -> str | None:
    """The first step whose result is not onnxruntime's; None where none can be told."""
    try:
        steps = list(_steps(network))
        names = [name for name, _ in steps]
        model = onnx_model(network.source)
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        expected = onnxruntime_session(model.SerializeToString()).run(None, dict(feeds))
        graph = dataclasses.replace(network.graph, outputs=tuple(names), output_names=tuple(names))
        module = build_module(graph, network.order)
        made = compile_library(module, find_target("host")).run(
            *(tvm.runtime.tensor(feeds[name]) for name in network.graph.inputs))
    except Exception:
        return None
    results = [made] if len(names) == 1 else list(made)
    return next((label for (_, label), result, reference in zip(steps, results, expected, strict=True)
                 if share_apart(np.from_dlpack(result), reference) > TOLERANCE), None)


def _steps(network: Network) -> Iterator[tuple[str, str]]:
    """Values that the file has as well, and what makes them; without those that are overwritten later."""
    overwritten = {item.inputs[-1] for item in network.order if isinstance(item, KernelCall) and item.kernel.in_place}
    for item in network.order:
        label = item.label if isinstance(item, Node) else _name(item)
        for name in item.outputs if isinstance(item, Node) else (item.output,):
            if name in network.names and name not in overwritten:
                yield name, label


def _name(call: KernelCall) -> str:
    return " + ".join(layer.name for layer in call.layers) or call.nodes[0].label


def checked_verify(verify: Any) -> bool | None:
    """What `verify` may be.

    Raises:
        OneXNError: it is something else.
    """
    if verify is not None and not isinstance(verify, bool):
        raise OneXNError("verify", f"must be True, False or None, got {verify!r}",
                         "None compares where that takes less than a second")
    return verify


def not_compared(reason: str) -> dict[str, Any]:
    """What the artefact says then."""
    return {"compared": False, "reason": reason}
