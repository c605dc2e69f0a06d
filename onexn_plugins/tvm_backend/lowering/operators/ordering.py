"""TopK: a heap of the K best so far, the worst of them on top, for each row; in the end it is taken apart in order."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr
from onexn_plugins.tvm_backend.lowering.operators.comparisons import settled
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.lowering.operators.layout import around
from onexn_plugins.tvm_backend.reading.graph import Graph, Node, TensorSpec

_INT64 = np.dtype(np.int64)


def top_k(builder: relax.BlockBuilder, graph: Graph, node: Node, inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Of equal elements the one that stands first is the better one; NaN is larger than any number."""
    shape, axis = graph.shape(node.inputs[0]), node.attributes.get("axis", -1)
    if graph.constant(node, 1) is None:
        return None
    outer, size, inner = around(shape, axis)
    count = around(graph.shape(node.output), axis)[1]

    def body(x: Buffer, values: Buffer, indices: Buffer) -> None:
        heap = T.alloc_buffer((count,), "int32", scope="global")
        at = T.alloc_buffer((1,), "int32", scope="global")
        with T.serial(0, outer) as before, T.serial(0, inner) as after:
            row = _Row(x, heap, at, before * size * inner + after, inner, bool(node.attributes.get("largest", 1)))
            row.sort(size, count)
            with T.serial(0, count) as number:
                to = (before * count + number) * inner + after
                T.buffer_store(values, row.value(heap[number]), [to])
                T.buffer_store(indices, T.cast(heap[number], "int64"), [to])

    made = (graph.shape(node.output), graph.dtype(node.inputs[0]))
    return call(builder, "top_k", body, inputs[:1], [TensorSpec(*made), TensorSpec(made[0], _INT64)])


@dataclass(frozen=True)
class _Row:
    """One row of x and the heap of its best elements' indices."""

    x: Buffer
    heap: Buffer
    at: Buffer
    start: Expr
    step: int
    largest: bool

    def value(self, index: Expr) -> Expr:
        return self.x[self.start + index * self.step]

    def sort(self, size: int, count: int) -> None:
        """Leave the `count` best of `size` elements in the heap's buffer, the best one first."""
        with T.serial(0, count) as number:
            T.buffer_store(self.heap, number, [number])
        with T.serial(0, count // 2) as number:
            self._sink(count // 2 - 1 - number, count, count)
        with T.serial(count, size) as index, T.If(self._is_better(index, self.heap[0])), T.Then():
            T.buffer_store(self.heap, index, [0])
            self._sink(0, count, count)
        with T.serial(0, count - 1) as number:
            last = count - 1 - number
            worst = T.bind(self.heap[0])
            T.buffer_store(self.heap, self.heap[last], [0])
            T.buffer_store(self.heap, worst, [last])
            self._sink(0, last, count)

    def _sink(self, top: Expr | int, size: Expr | int, count: int) -> None:
        """Bring the element at `top` of a heap of `size` down to where nothing below it is worse."""
        T.buffer_store(self.at, top, [0])
        with T.serial(0, count.bit_length()):
            position = T.bind(self.at[0])
            left = T.bind(position * 2 + 1)
            with T.If(left < size), T.Then():
                right = T.bind(tirx.Select(left + 1 < size, left + 1, left))
                worse = T.bind(tirx.Select(self._is_better(self.heap[left], self.heap[right]), right, left))
                with T.If(self._is_better(self.heap[position], self.heap[worse])), T.Then():
                    below = T.bind(self.heap[worse])
                    T.buffer_store(self.heap, self.heap[position], [worse])
                    T.buffer_store(self.heap, below, [position])
                    T.buffer_store(self.at, worse, [0])

    def _is_nan(self, value: Expr) -> Expr:
        return tirx.isnan(value) if "float" in str(self.x.dtype) else tirx.const(0, "bool")

    def _is_better(self, first: Expr, second: Expr) -> Expr:
        first, second = T.bind(first), T.bind(second)
        one, other = T.bind(self.value(first)), T.bind(self.value(second))
        upper, lower = (one, other) if self.largest else (other, one)
        above, below = self._is_above(upper, lower), self._is_above(lower, upper)
        return T.bind(tirx.Or(above, tirx.And(tirx.Not(below), first < second)))

    def _is_above(self, one: Expr, other: Expr) -> Expr:
        return settled(tirx.Or(one > other, tirx.And(self._is_nan(one), tirx.Not(self._is_nan(other)))))
