"""CumSum: running sums along an axis, from either end, with or without the element itself."""

from __future__ import annotations

from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.lowering.operators.layout import around
from onexn_plugins.tvm_backend.reading.graph import Graph, Node


def cumulative_sum(builder: relax.BlockBuilder, graph: Graph, node: Node,
                   inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    axis = graph.constant(node, 1)
    if axis is None:
        return None
    spec = graph.specs[node.output]
    outer, size, inner = around(spec.shape, int(axis.reshape(())))
    backwards, exclusive = node.attributes.get("reverse", 0), node.attributes.get("exclusive", 0)

    def body(x: Buffer, y: Buffer) -> None:
        total = T.alloc_buffer((1,), str(spec.dtype), scope="global")
        with T.serial(0, outer) as before, T.serial(0, inner) as after:
            T.buffer_store(total, tirx.const(0, str(spec.dtype)), [0])
            with T.serial(0, size) as step:
                index = (before * size + (size - 1 - step if backwards else step)) * inner + after
                if exclusive:
                    T.buffer_store(y, total[0], [index])
                T.buffer_store(total, total[0] + x[index], [0])
                if not exclusive:
                    T.buffer_store(y, total[0], [index])

    return call(builder, "cumulative_sum", body, inputs[:1], [spec])
