"""What the package makes of a random network: right, refused, or wrong.

Right is what agrees with onnxruntime, or with ONNX's reference in float64 where that does not: of the two one may be
wrong as well. Inputs are ordinary ones, and extreme ones where there are no sums, whose order decides there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import compile_model
from onexn_plugins.tvm_backend.checking import inputs
from onexn_plugins.tvm_backend.checking.reference import onnxruntime_session
from onexn_plugins.tvm_backend.reading.graph import TensorSpec
from onexn_plugins.tvm_backend.running.compiled import Compiled

TOLERANCE = 2e-3
SUMS = {"Conv", "ConvTranspose", "Gemm", "MatMul", "AveragePool", "GlobalAveragePool", "BatchNormalization",
        "LayerNormalization", "Softmax", "LogSoftmax", "Resize", "ReduceMean", "ReduceSum", "ReduceL2", "ReduceProd",
        "MaxPool", "GlobalMaxPool", "ReduceMax", "ReduceMin"}  # maxima of NaN differ from runtime to runtime
# How much inputs are changed to see whether what float32 rounds decides the outputs.
NUDGE = 1e-6
INTERNAL = "cannot be compiled: "


def judge(model: ModelProto, path: Path) -> str:
    """"right", "refused: why", "internal: what" or "wrong: where"."""
    path.write_bytes(model.SerializeToString())
    try:
        compiled = compile_model(path, verify=False)
        makers = [inputs.ordinary, inputs.large]
        if not SUMS.intersection(node.op_type for node in model.graph.node):
            makers.append(inputs.extreme)
        for make in makers:
            fault = _fault(model, compiled, make.__name__, {
                tensor.name: make(TensorSpec(tensor.shape, tensor.numpy_dtype), seed)
                for seed, tensor in enumerate(compiled.inputs)})
            if fault:
                return f"wrong: {fault}"
    except OneXNError as error:
        kind = "internal" if INTERNAL in str(error) else "refused"
        return f"{kind}: {error}".replace(str(path), path.name)[:300]
    except Exception as error:
        return f"internal: {type(error).__name__}: {error}"[:300]
    return "right"


def _fault(model: ModelProto, compiled: Compiled, kind: str, feeds: dict[str, np.ndarray]) -> str | None:
    outputs = compiled.run(feeds)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    expected = onnxruntime_session(model.SerializeToString()).run(None, feeds)
    exact: list[np.ndarray] | None = None
    for place, (output, reference) in enumerate(zip(outputs, expected, strict=True)):
        name = compiled.outputs[place].name
        if output.shape != reference.shape or output.dtype != reference.dtype:
            return f"{name} is {output.dtype}{list(output.shape)}, not {reference.dtype}{list(reference.shape)}"
        if not _close(output, reference):
            exact = _in_float64(model, feeds) if exact is None else exact
            if not exact or exact[place].shape != output.shape:
                exact = expected
            nudged = _in_float64(model, {name: value * (1 + NUDGE) for name, value in feeds.items()})
            if not _close(output, exact[place]) and not _rounds_worse(output, exact[place], reference, *(
                    [nudged[place]] if nudged and nudged[place].shape == output.shape else [])):
                different = ~np.isclose(output, reference, rtol=TOLERANCE, atol=1e-6, equal_nan=True)
                if different.any():
                    return (f"{name} on {kind} inputs: {output[different][0]:.5g} instead of "
                            f"{reference[different][0]:.5g}")
    return None


def _close(output: np.ndarray, expected: np.ndarray) -> bool:
    """Equal up to rounding, as a share of the largest value; what is not finite is the same."""
    finite = np.isfinite(expected)
    if not np.array_equal(output[~finite], expected[~finite].astype(output.dtype), equal_nan=True):
        return False
    scale = max(float(np.abs(expected[finite]).max(initial=0.0)), 1e-3)
    return bool(np.all(np.abs(output[finite].astype(np.float64) - expected[finite]) <= TOLERANCE * scale))


def _rounds_worse(output: np.ndarray, exact: np.ndarray, *others: np.ndarray) -> bool:
    """Whether others, onnxruntime or the reference on inputs that differ as little as float32 rounds, are about as far
    from float64 as we are: the network magnifies it.
    """
    with np.errstate(all="ignore"):
        ours, *theirs = (np.nanmax(np.abs(values - exact), initial=0.0) for values in (output, *others))
    return bool(np.isfinite(ours) and ours <= 4 * max(theirs))


def _in_float64(model: ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """ONNX's reference on doubles; nothing where it does not compute the network."""
    wide = ModelProto()
    wide.CopyFrom(model)
    for tensor in wide.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for item in (*wide.graph.input, *wide.graph.output):
        item.type.tensor_type.elem_type = TensorProto.DOUBLE
    try:
        with np.errstate(all="ignore"):
            return ReferenceEvaluator(wide).run(None, {name: value.astype(np.float64) for name, value in feeds.items()})
    except Exception:
        return []
