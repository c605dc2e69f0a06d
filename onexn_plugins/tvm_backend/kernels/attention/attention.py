"""Attention: scores, their softmax and its product with the values, some rows at a time, so that scores stay in the
first cache (Rabe and Staats 2021 show why no more of them need to exist at once)."""

from __future__ import annotations

from collections.abc import Callable

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.attention.products import (
    Operand,
    Panels,
    pack_panel,
    pack_rows,
    packed_values,
    panels_for,
    sum_rows,
    times,
)
from onexn_plugins.tvm_backend.kernels.attention.rows import exponentials, why_not_along_rows
from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, splat, store
from onexn_plugins.tvm_backend.kernels.matrices import MatMul
from onexn_plugins.tvm_backend.kernels.parts.sharing import each_shared_job
from onexn_plugins.tvm_backend.kernels.problem import Kernel, why_not_indexed
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Rows whose scores are made at once, at most.
_MOST_ROWS = 24
# Float32 values that one image and head may take: packed keys and values, and a few rows of scores.
_MOST_VALUES = 1 << 22


def why_not_attention(request: Request) -> str | None:
    """None where the columns of the result lie side by side."""
    scores, mixed = _products(request)
    if (reason := why_not_along_rows(request.stages[1].problem)) is not None:
        return reason
    if mixed.result.column != 1:
        return "its result's columns do not lie side by side"
    if scores.columns * (scores.inner + mixed.columns + _MOST_ROWS) > _MOST_VALUES:
        return "keys and values of one head are too many to be packed at once"
    return why_not_indexed(scores.right.tensor) or why_not_indexed(mixed.right.tensor)


def attention(request: Request) -> Kernel:
    """A kernel of x (the queries' tensor) and two more activations, those of keys and values."""
    scores, mixed = _products(request)
    unit = request.unit
    keys, values = (panels_for(scores.rows, problem.columns, unit) for problem in (scores, mixed))
    at_once = _rows_at_once(scores, keys, unit)
    repeats, rest = divmod(scores.rows, at_once)

    def emit(buffers: Buffers) -> None:
        def emit_job(*job: Expr) -> None:
            batch = job[:len(scores.batch)]
            queries = Operand.of(buffers.x, scores.left, batch)
            packed_keys = _packed(Operand.of(buffers.others[0], scores.right, batch), scores, keys)
            packed_mixed = _packed(Operand.of(buffers.others[1], mixed.right, batch), mixed, values)
            written = Operand.of(buffers.output.y, mixed.result, batch)
            copies, table, shares = (T.alloc_buffer((size,), "float32", scope="global") for size in (
                at_once * scores.inner, at_once * scores.columns, at_once))

            def emit_rows(first: Expr, rows: int) -> None:
                left = pack_rows(queries, scores.left.factors, first, rows, scores.inner, copies, unit)
                _product(left, rows, packed_keys, keys, scores, lambda row, column, value, lanes: store(
                    table, row * scores.columns + column, times(value, scores.result.factors, lanes), lanes))
                with T.serial(0, rows) as row:
                    place = row * scores.columns
                    store(shares, row, exponentials(table, place, table, place, scores.columns, unit), 1)
                chances = Operand(table, 0, scores.columns, 1)
                _product(chances, rows, packed_mixed, values, mixed, lambda row, column, value, lanes: store(
                    written.buffer, written.at(first + row, column),
                    times(value * splat(shares[row], lanes), mixed.result.factors, lanes), lanes))

            if repeats:
                with T.serial(0, repeats) as block:
                    emit_rows(block * at_once, at_once)
            if rest:
                emit_rows(repeats * at_once, rest)

        each_shared_job(scores.batch or (1,), float(scores.macs + mixed.macs), unit.threads, emit_job)

    return build("attention", scores.input_shape, mixed.output_shape, {}, emit, unit,
                 others=(scores.right.tensor, mixed.right.tensor))


def _products(request: Request) -> tuple[MatMul, MatMul]:
    scores, mixed = request.first.problem, request.last.problem
    assert isinstance(scores, MatMul)
    assert isinstance(mixed, MatMul)
    return scores, mixed


def _rows_at_once(scores: MatMul, keys: Panels, unit: VectorUnit) -> int:
    """Whole tiles of rows whose scores take half of the first cache, a number that divides all rows if one does."""
    fitting = unit.first_cache // 8 // scores.columns
    most = max(1, min(fitting, _MOST_ROWS) // keys.rows) * keys.rows
    if scores.rows <= most:
        return scores.rows
    sizes = range(most, 0, -keys.rows)
    return next((size for size in sizes if scores.rows % size == 0), most)


def _packed(source: Operand, problem: MatMul, panels: Panels) -> Buffer:
    """All panels, one behind the other."""
    packed = T.alloc_buffer((packed_values(panels, problem.inner),), "float32", scope="global")
    with T.serial(0, panels.count) as panel:
        pack_panel(source, problem.right.factors, panels, panel, problem.inner, packed,
                   panel * (panels.width * problem.inner))
    return packed


def _product(left: Operand, rows: int, packed: Buffer, panels: Panels, problem: MatMul,
             target: Callable[[Expr, Expr, Expr, int], None]) -> None:
    """`target` takes (row, column, sums, lanes)."""
    with T.serial(0, panels.count) as panel:
        sum_rows(left, rows, packed, panel * (panels.width * problem.inner), panels, problem.inner,
                 lambda first, row, start, value, lanes: target(first + row, panels.first(panel) + start, value, lanes))
