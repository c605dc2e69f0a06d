"""What runs without a kernel of ours, and what that is expected to cost: said before anyone waits for it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from onexn_plugins.tvm_backend.planning.fusion import KernelCall
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

# Multiply-adds per second of one thread in TVM's own loops and in onnxruntime, and bytes per second of what both are
# bound by otherwise: orders of magnitude on AVX-512. A 3-d convolution of 87 million took 100 ms and 1 ms, a 1-d one of
# 3 million 1.5 and 0.1; a transposed one is up to stride² times slower than that, for TVM sums the zeros it spreads.
_TVM, _ONNXRUNTIME, _BYTES = 1e9, 3e10, 5e9
# Milliseconds beyond onnxruntime's from which on a network's user is warned.
_WORTH_A_WARNING = 1.0


class SlowOperators(UserWarning):
    """A network has operators without kernels of ours that will be much slower than in onnxruntime."""


@dataclass(frozen=True)
class Unserved:
    """One operator that TVM lowers.

    Attributes:
        name: as in the file.
        operator: of ONNX.
        macs: multiply-adds; 0 where it only moves or maps values.
        milliseconds, onnxruntime_milliseconds: expected on one thread, by order of magnitude.
    """

    name: str
    operator: str
    macs: int
    milliseconds: float
    onnxruntime_milliseconds: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def unserved(graph: Graph, order: Iterable[Node | KernelCall]) -> list[Unserved]:
    """All of them in the order they run; reshapes are views and cost nothing."""
    return [_expected(graph, item) for item in order if isinstance(item, Node) and item.op != "Reshape"]


def _expected(graph: Graph, node: Node) -> Unserved:
    macs, moved = _macs(graph, node), 4 * sum(prod(graph.shape(name)) for name in (*node.inputs, *node.outputs) if name)
    summed, spread = macs, macs
    if node.op == "ConvTranspose":
        spread *= prod(node.attributes.get("strides") or [1])
    return Unserved(node.name or node.output, node.op, macs, round(1e3 * (spread / _TVM + moved / _BYTES), 3),
                    round(1e3 * (summed / _ONNXRUNTIME + moved / _BYTES), 3))


def _macs(graph: Graph, node: Node) -> int:
    """Multiply-adds, or what takes as long, of operators that sum."""
    if node.op not in ("Conv", "ConvTranspose", "MatMul", "Gemm", "MaxPool", "AveragePool"):
        return 0
    first, made = graph.shape(node.inputs[0]), graph.shape(node.output)
    if node.op in ("MaxPool", "AveragePool"):
        return prod(made) * prod(node.attributes["kernel_shape"])
    second = graph.shape(node.inputs[1])
    if node.op == "Conv":
        return prod(made) * prod(second[1:])
    if node.op == "ConvTranspose":
        return prod(first) * prod(second[1:])
    return prod(made) * first[-2 if node.op == "Gemm" and node.attributes.get("transA") else -1]


def warn_of(name: str, found: Sequence[Unserved]) -> None:
    """Warn where the network will wait for them."""
    slower = sum(item.milliseconds - item.onnxruntime_milliseconds for item in found)
    if slower >= _WORTH_A_WARNING:
        warnings.warn(f"{name}: no kernel of ours computes {summary(found)}", SlowOperators, stacklevel=2)


def summary(found: Sequence[Unserved]) -> str:
    """In words, the slowest first; empty where all have kernels."""
    kinds: dict[str, list[Unserved]] = {}
    for item in sorted(found, key=lambda item: -item.milliseconds):
        kinds.setdefault(item.operator, []).append(item)
    if not kinds:
        return ""
    totals = [sum(getattr(item, key) for item in found) for key in ("milliseconds", "onnxruntime_milliseconds")]
    listed = ", ".join(f"{kind} ×{len(items)}" if len(items) > 1 else f"{kind} {items[0].name!r}"
                       for kind, items in kinds.items())
    return f"{listed}: about {totals[0]:.2g} ms a run, {totals[1]:.2g} in onnxruntime"
