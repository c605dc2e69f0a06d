"""What the package makes of a random network: right, refused, wrong, or compared with nothing.

Right is what agrees with onnxruntime, or with ONNX's reference in float64 where that does not: of the two one may be
wrong as well. Inputs are ordinary ones, large ones, and extreme ones where there are no sums, whose order decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from benchmarks.fuzz.networks.generator import DYNAMIC
from benchmarks.fuzz.networks.maxima import GlobalMaxPool, MaxPool
from benchmarks.fuzz.networks.minimise import between
from benchmarks.fuzz.networks.runners import Run, run_here
from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.checking import inputs
from onexn_plugins.tvm_backend.checking.reference import onnxruntime_session
from onexn_plugins.tvm_backend.reading.graph import TensorSpec
from onexn_plugins.tvm_backend.running.compiled import Compiled

Feeds = dict[str, np.ndarray]
# By the number of bytes of a float, as a share of the largest value.
TOLERANCE = {2: 1e-2, 4: 2e-3, 8: 2e-3}
SUMS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "GlobalAveragePool", "BatchNormalization", "Einsum",
        "LayerNormalization", "Softmax", "LogSoftmax", "Resize", "Upsample", "ReduceMean", "ReduceSum", "ReduceL2",
        "ReduceProd", "ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "LpPool", "LpNormalization",
        "InstanceNormalization", "GroupNormalization", "RMSNormalization", "MeanVarianceNormalization", "LRN", "CumSum",
        "RNN", "GRU", "LSTM", "GridSample",
        # maxima and places of NaN differ from runtime to runtime
        "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin", "TopK", "ArgMax", "ArgMin", "Hardmax", "ScatterElements",
        "ScatterND", "Cast", "QuantizeLinear", "DynamicQuantizeLinear"}
# How much inputs are changed to see whether what float32 rounds decides the outputs.
NUDGES = (1e-6, -1e-6, 1e-5, -1e-5)
FINE = ("right", "refused", "uncompared")  # what is no fault
# What skips zeros, and infinities and NaN with them, unless strictness is asked for.
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
INTERNAL = "for a reason that no check foresaw"


def judge(model: ModelProto, path: Path, target: str = "host", run: Run = run_here, **options: Any) -> str:
    """"right", "refused: why", "internal: what", "wrong: where", or "uncompared: why" where nobody else computes it.

    Args:
        model: the network.
        path: where it is written.
        target: what it is compiled for.
        run: what runs it.
        options: further arguments of compile_model.
    """
    path.write_bytes(model.SerializeToString())
    uncompared: list[str] = []
    try:
        compiled = compile_model(path, target=target, verify=False, input_shapes=sizes(model), **options)
        makers = [inputs.ordinary, inputs.large]
        if not SUMS.intersection(operators(model)):
            makers.append(inputs.extreme)
        for make in makers:
            try:
                feeds = {tensor.name: make(TensorSpec(tensor.shape, tensor.numpy_dtype), seed)
                         for seed, tensor in enumerate(compiled.inputs)}
                fault = _fault(model, compiled, run(compiled, list(feeds.values())), make.__name__, feeds)
            except _NotComparedError as error:
                uncompared.append(str(error))
                continue
            if fault and not options.get("strict") and _meets_infinity(model, feeds):
                return judge(model, path, target, run, **{**options, "strict": True})
            if fault:
                return f"wrong: {fault}"
    except OneXNError as error:
        kind = "internal" if INTERNAL in str(error) else "refused"
        cause = f" ({type(error.__cause__).__name__}: {error.__cause__})" if kind == "internal" else ""
        return f"{kind}: {error}{cause}".replace(str(path), path.name)[:600]
    except Exception as error:
        return f"internal: {type(error).__name__}: {error}"[:300]
    return f"uncompared: {uncompared[0]}" if len(uncompared) == len(makers) else "right"


def sizes(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of the inputs that have dynamic dimensions; see generator."""
    shapes = {item.name: item.type.tensor_type.shape.dim for item in model.graph.input}
    return {name: tuple(int(dim.dim_param.removeprefix(DYNAMIC)) if dim.dim_param else dim.dim_value for dim in dims)
            for name, dims in shapes.items() if any(dim.dim_param for dim in dims)}


def operators(model: ModelProto) -> Iterator[str]:
    """Of the network and what it may run."""
    for node in model.graph.node:
        yield node.op_type
        yield from (inner.op_type for attribute in node.attribute for inner in attribute.g.node)


class _NotComparedError(Exception):
    """Neither onnxruntime nor ONNX's reference computes the network from these inputs."""


def _fault(model: ModelProto, compiled: Compiled, outputs: list[np.ndarray], kind: str, feeds: Feeds) -> str | None:
    try:
        expected = onnxruntime_session(model.SerializeToString()).run(None, feeds)
    except Exception as error:  # an index that these inputs lead to lies outside, mostly
        expected = _by_reference(model, feeds)
        if not expected:
            raise _NotComparedError(f"{type(error).__name__}: {error}"[:300]) from error
    for place, (output, reference) in enumerate(zip(outputs, expected, strict=True)):
        name = compiled.outputs[place].name
        if output.shape != reference.shape or output.dtype != reference.dtype:
            return f"{name} is {output.dtype}{list(output.shape)}, not {reference.dtype}{list(reference.shape)}"
        alone = between(model, [model.graph.output[place]], [])
        if _close(output, reference) or _explained(alone, feeds, output, reference):
            continue
        different = ~np.isclose(output.astype(np.float64), reference.astype(np.float64),
                                rtol=TOLERANCE.get(output.itemsize, 0), atol=1e-6, equal_nan=True)
        if different.any():
            return f"{name} on {kind} inputs: {output[different][0]:.5g} instead of {reference[different][0]:.5g}"
    return None


def _explained(model: ModelProto, feeds: Feeds, output: np.ndarray, expected: np.ndarray) -> bool:
    """Whether float64 gives the model's only output, or whatever float32 rounds moves it as far as we are apart."""
    feeds = {item.name: feeds[item.name] for item in model.graph.input if item.name in feeds}
    exact, *_ = _in_float64(model, feeds) or _by_reference(model, feeds) or [expected]
    if exact.shape != output.shape:
        exact = expected
    changed = [{name: (value * (1 + nudge)).astype(value.dtype) if value.dtype.kind == "f" else value
                for name, value in feeds.items()} for nudge in NUDGES]
    moved = (_in_float64(model, nudged) or _by_onnxruntime(model, nudged) for nudged in changed)
    others = [made[0] for made in moved if made and made[0].shape == output.shape]
    return _close(output, exact) or _rounds_worse(output, exact, expected, *others)


def _meets_infinity(model: ModelProto, feeds: Feeds) -> bool:
    """Whether a layer reads infinities or NaN, which only strict=True promises to take where ONNX does."""
    probe = ModelProto()
    probe.CopyFrom(model)
    read = dict.fromkeys(name for node in model.graph.node if node.op_type in LAYERS for name in node.input if name)
    del probe.graph.output[:]
    probe.graph.output.extend(ValueInfoProto(name=name) for name in read if name not in feeds)
    values = [feeds[name] for name in read if name in feeds] + _by_onnxruntime(probe, feeds)
    return not all(np.isfinite(value).all() for value in values)


def _close(output: np.ndarray, expected: np.ndarray) -> bool:
    """Equal up to rounding, as a share of the largest value; what is not finite is the same."""
    if output.dtype.kind != "f":
        return bool(np.array_equal(output, expected))
    finite = np.isfinite(expected)
    with np.errstate(all="ignore"):
        if not np.array_equal(output[~finite], expected[~finite].astype(output.dtype), equal_nan=True):
            return False
        scale = max(float(np.abs(expected[finite]).max(initial=0.0)), 1e-3)
        apart = np.abs(output[finite].astype(np.float64) - expected[finite])
    return bool(np.all(apart <= TOLERANCE[output.itemsize] * scale))


def _rounds_worse(output: np.ndarray, exact: np.ndarray, *others: np.ndarray) -> bool:
    """Whether others, onnxruntime or the reference on inputs that differ as little as float32 rounds, are about as far
    from float64 as we are: the network magnifies it. Whole numbers: whether others differ in as many places.
    """
    if output.dtype.kind != "f":
        ours, *theirs = (np.count_nonzero(values != exact) for values in (output, *others))
        return bool(ours <= 4 * max(theirs))
    with np.errstate(all="ignore"):
        ours, *theirs = (np.nanmax(np.abs(values.astype(np.float64) - exact), initial=0.0)
                         for values in (output, *others))
    return bool(np.isfinite(ours) and ours <= 4 * max(theirs))


def _in_float64(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """ONNX's reference on doubles; nothing where it does not compute the network."""
    wide = ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        tensor.CopyFrom(_wide(tensor))
    for node in wide.graph.node:
        for tensor in (item.t for item in node.attribute if node.op_type == "Constant"):
            tensor.CopyFrom(_wide(tensor))
    for item in (*wide.graph.input, *wide.graph.output):
        if item.type.tensor_type.elem_type in (TensorProto.FLOAT, TensorProto.FLOAT16):
            item.type.tensor_type.elem_type = TensorProto.DOUBLE
    given = {name: value.astype(np.float64) if value.dtype.kind == "f" else value for name, value in feeds.items()}
    return _by_reference(wide, given)


def _wide(tensor: TensorProto) -> TensorProto:
    """Floats as doubles."""
    if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
        return tensor
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name)


def _by_onnxruntime(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """Nothing where it does not compute the network."""
    try:
        return list(onnxruntime_session(model.SerializeToString()).run(None, feeds))
    except Exception:
        return []


def _by_reference(model: ModelProto, feeds: Feeds) -> list[np.ndarray]:
    """By ONNX's reference, whose maxima keep NaN; nothing where it does not compute the network."""
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(model, new_ops=[MaxPool, GlobalMaxPool])
            return [np.asarray(value) for value in evaluator.run(None, feeds)]
    except Exception:
        return []
