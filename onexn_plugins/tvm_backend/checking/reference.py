"""What others compute: onnxruntime first, ONNX's own reference where that does not know an operator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import ModelProto, NodeProto
from onnx.reference import ReferenceEvaluator

from onexn_plugins.tvm_backend.reading.subgraphs import subgraphs_of

Arrays = list[np.ndarray]
Feeds = Mapping[str, np.ndarray]
# How far two computations in float32 may be apart, as a share of the largest value.
TOLERANCE = 1e-3


def onnxruntime_session(model: str | bytes, *, optimised: bool = True) -> Any:
    """A session on one thread that keeps quiet, of a model or a file's path.

    Raises:
        Exception: of many kinds, where onnxruntime does not take the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(_with_named_outputs(model), options, providers=["CPUExecutionProvider"])


def _with_named_outputs(model: str | bytes) -> str | bytes:
    """The same, where every output has a name: onnxruntime ends the process over a Loop or a BatchNormalization that
    leaves one out.
    """
    found = onnx.load(model, load_external_data=False) if isinstance(model, str) else onnx.load_from_string(model)
    if not any("" in node.output for node in _nodes(found.graph.node)):
        return model
    named = onnx.load(model) if isinstance(model, str) else found
    for number, node in enumerate(_nodes(named.graph.node)):
        node.output[:] = [name or f"onexn.unnamed.{number}.{place}" for place, name in enumerate(node.output)]
    return named.SerializeToString()


def _nodes(nodes: Iterable[NodeProto]) -> Iterator[NodeProto]:
    """With those of subgraphs."""
    for node in nodes:
        yield node
        for graph in subgraphs_of(node):
            yield from _nodes(graph.node)


def references(model: ModelProto) -> list[Callable[[Feeds], Arrays]]:
    """Functions from inputs to outputs; they raise what they raise where they do not know an operator."""
    def by_onnxruntime(feeds: Feeds) -> Arrays:
        return onnxruntime_session(model.SerializeToString(), optimised=False).run(None, dict(feeds))

    def by_onnx(feeds: Feeds) -> Arrays:
        with np.errstate(all="ignore"):
            return [np.asarray(value) for value in ReferenceEvaluator(model).run(None, dict(feeds))]

    return [by_onnxruntime, by_onnx]


def agrees_with_any(outputs: Sequence[np.ndarray], sources: Sequence[Callable[[Feeds], Arrays]], feeds: Feeds,
                    fault: Callable[[np.ndarray, np.ndarray], str | None]) -> tuple[bool, str | None]:
    """Whether one of them computes anything, and, where none computes the same, how the first one differs."""
    ran, first = False, None
    for source in sources:
        try:
            expected = source(feeds)
        except Exception:
            continue
        ran = True
        faults = list(filter(None, map(partial(_named, fault), outputs, expected)))
        if not faults:
            return True, None
        first = first or faults[0]
    return ran, first


def _named(fault: Callable[[np.ndarray, np.ndarray], str | None], output: np.ndarray,
           expected: np.ndarray) -> str | None:
    if output.shape != expected.shape or output.dtype != expected.dtype:
        return f"{output.dtype}{list(output.shape)} instead of {expected.dtype}{list(expected.shape)}"
    return fault(output, expected)


def difference(output: np.ndarray, expected: np.ndarray) -> str | None:
    """How two computations differ beyond rounding; None where they do not. Not finite values have to be the same."""
    if not np.issubdtype(expected.dtype, np.floating):
        different = output != expected
        return f"{np.count_nonzero(different)} of {different.size} values differ" if different.any() else None
    finite = np.isfinite(expected)
    if not np.array_equal(output[~finite], expected[~finite], equal_nan=True) or not np.isfinite(output[finite]).all():
        return "infinities or NaN differ"
    scale = float(np.abs(expected[finite]).max(initial=0))
    largest = float(np.abs(output[finite].astype(np.float64) - expected[finite]).max(initial=0))
    return None if largest <= TOLERANCE * scale + 1e-6 else f"{largest:.2g} apart where values reach {scale:.2g}"


def difference_each(output: np.ndarray, expected: np.ndarray) -> str | None:
    """As `difference`, every value compared for itself: large ones hide nothing."""
    if not np.issubdtype(expected.dtype, np.floating):
        return difference(output, expected)
    with np.errstate(all="ignore"):
        same = np.isclose(output, expected, rtol=TOLERANCE, atol=1e-5, equal_nan=True)
    if same.all():
        return None
    return f"{output[~same].reshape(-1)[0]:.4g} instead of {expected[~same].reshape(-1)[0]:.4g}"
