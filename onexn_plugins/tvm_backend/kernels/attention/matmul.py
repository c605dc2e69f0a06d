"""Batched products of two activations."""

from __future__ import annotations

import math

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.attention.products import (
    Operand,
    pack_panel,
    pack_rows,
    panels_for,
    sum_rows,
    times,
)
from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr, store
from onexn_plugins.tvm_backend.kernels.matrices import MatMul
from onexn_plugins.tvm_backend.kernels.parts.sharing import COPY, each_shared_job
from onexn_plugins.tvm_backend.kernels.problem import Kernel, why_not_indexed
from onexn_plugins.tvm_backend.kernels.request import Request


def why_not_matmul(request: Request) -> str | None:
    """None where the columns of the result lie side by side."""
    problem = request.first.problem
    assert isinstance(problem, MatMul)
    if problem.result.column != 1:
        return "its result's columns do not lie side by side"
    return why_not_indexed(problem.right.tensor)


def matmul(request: Request) -> Kernel:
    """A kernel of x (the left operand's tensor) and one more activation, the right operand's."""
    problem, unit = request.first.problem, request.unit
    assert isinstance(problem, MatMul)
    panels = panels_for(problem.rows, problem.columns, unit)
    left, right, result = problem.left, problem.right, problem.result

    def emit(buffers: Buffers) -> None:
        def emit_job(*job: Expr) -> None:
            *batch, panel = job
            packed = T.alloc_buffer((panels.width * problem.inner,), "float32", scope="global")
            copies = T.alloc_buffer((problem.rows * problem.inner if left.factors else 1,), "float32", scope="global")
            rows = pack_rows(Operand.of(buffers.x, left, tuple(batch)), left.factors, 0, problem.rows, problem.inner,
                             copies, unit)
            pack_panel(Operand.of(buffers.others[0], right, tuple(batch)), right.factors, panels, panel, problem.inner,
                       packed, 0)
            written = Operand.of(buffers.output.y, result, tuple(batch))

            def finish(first: Expr, row: int, start: Expr, value: Expr, lanes: int) -> None:
                store(written.buffer, written.at(first + row, panels.first(panel) + start),
                      times(value, result.factors, lanes), lanes)

            sum_rows(rows, problem.rows, packed, 0, panels, problem.inner, finish)

        cost = problem.macs / panels.count + COPY * panels.width * problem.inner
        each_shared_job((*problem.batch, panels.count), cost, unit.threads, emit_job)

    assert math.prod(problem.batch) > 0
    return build("matmul", problem.input_shape, problem.output_shape, {}, emit, unit, others=(right.tensor,))
