"""Fully connected layers: vectors over the N outputs of a block; also 1×1 convolutions of a single pixel."""

from __future__ import annotations

import math
from collections.abc import Callable

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import LINE, Expr, Register, constant, pieces, splat
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import ROWS, Run, row_costs, share
from onexn_plugins.tvm_backend.kernels.problem import Kernel, Linear, as_linear
from onexn_plugins.tvm_backend.kernels.request import Request

# Sums that must be under way at once to hide the latency of a multiply-add (4 cycles, one or two started per cycle).
_INDEPENDENT_SUMS = 4
# Dense block rows read side by side: several streams of weights have more cache lines on their way than one. With six
# MobileNetV2's classifier (1000×1280) took 79 us from the third-level cache, with one 104 us (AVX-512).
_STREAMS = 8


def why_not_over_channels(request: Request) -> str | None:
    """None for a linear layer, or a convolution on a single pixel."""
    return None if as_linear(request.first.problem) else "an image of several pixels"


def over_channels(request: Request) -> Kernel:
    """A fully connected kernel; its buffers have the shapes of the problem, whatever their unit dimensions."""
    stage, unit, problem = request.first, request.unit, as_linear(request.first.problem)
    assert problem is not None
    encoded = stage.encoded
    # Fewer channels would have the cache lines of larger blocks fetched from memory more than once.
    sums, channels = unit.measured.sums, min(encoded.block_size, LINE)
    vectors = len(pieces(channels, unit.lanes))
    # As many rows of x as vectors of weights where several block rows can be read side by side: that takes the fewest
    # loads, and more rows of x that are some power of two apart would fall into the same lines of the cache.
    at_once = max(1, min(problem.batch, math.isqrt(sums) if encoded.is_dense else sums // vectors))
    heavier = encoded.values.size > problem.batch * problem.in_features

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit, at_once=channels)

        def each_inputs(emit_inputs: Callable[[Expr, int], None]) -> None:
            repeats, rest = divmod(problem.batch, at_once)
            with T.serial(0, repeats) as index:
                emit_inputs(index * at_once, at_once)
            if rest:
                emit_inputs(repeats * at_once, rest)

        def each_group(count: int, emit_group: Callable[[list[Channels]], None], run: Run) -> None:
            rows.each_row_group(_rows_at_once(encoded, sums // (vectors * count)), emit_group, run)

        def emit_sums(group: list[Channels], first: Expr, count: int) -> None:
            if len(group) == 1:
                _sum_inputs(rows, buffers, problem, group[0], first, count)
            else:
                _sum_dense_rows(rows, buffers, problem, group, first, count)

        def emit_share(runs: dict[str, Run]) -> None:
            # What takes more memory, weights or x, is read once, a part of it for all of the other.
            if heavier:
                each_group(at_once, lambda group: each_inputs(lambda *inputs: emit_sums(group, *inputs)),
                           runs.get(ROWS))
            else:
                each_inputs(lambda first, count: each_group(
                    count, lambda group: emit_sums(group, first, count), runs.get(ROWS)))

        share(unit.threads, {ROWS: row_costs(encoded, problem.batch)}).along((ROWS,), emit_share)

    return build("linear", stage.problem.input_shape, stage.problem.output_shape, weight_constants(encoded, stage.bias),
                 emit, unit, stage.epilogue)


def _rows_at_once(encoded: Encoded, most: int) -> int:
    """Block rows to sum at once, at most so many: a number that leaves few over; sparse rows go one by one."""
    if not encoded.is_dense:
        return 1
    most = max(1, min(_STREAMS, most))
    full_rows = encoded.pattern.group_channels // encoded.block_size
    return min(range(most, most // 2, -1), key=lambda size: full_rows % size)


def _sum_dense_rows(rows: BlockRows, buffers: Buffers, problem: Linear, group: list[Channels], first: Expr,
                    count: int) -> None:
    """The outputs of a run of each of several dense block rows, for `count` rows of x from `first` on."""
    sums = [[rows.bias_vectors(run) for _ in range(count)] for run in group]
    with T.serial(0, problem.in_features) as feature:
        values = [Register(buffers.x[(first + row) * problem.in_features + feature], 1).value for row in range(count)]
        for run, totals in zip(group, sums, strict=True):
            weights = rows.weight_vectors(run.row * problem.in_features + feature, 0, run)
            for value, vectors in zip(values, totals, strict=True):
                for total, weight in zip(vectors, weights, strict=True):
                    total.multiply_add(weight.value, splat(value, total.lanes))
    for run, totals in zip(group, sums, strict=True):
        for row, vectors in enumerate(totals):
            _store(buffers, vectors, (first + row) * problem.out_features + run.start)


def _sum_inputs(rows: BlockRows, buffers: Buffers, problem: Linear, run: Channels, first: Expr, count: int) -> None:
    """The outputs of a run for `count` rows of x from `first` on."""
    parts = [rows.bias_vectors(run) for _ in range(count)]
    ways = max(1, _INDEPENDENT_SUMS // (count * len(parts[0])))
    sums = [parts] + [
        [[Register(constant(0, part.lanes), part.lanes) for part in vectors] for vectors in parts]
        for _ in range(ways - 1)
    ]

    def add(block: Expr, feature: Expr, way: int) -> None:
        weights = rows.weight_vectors(block, 0, run)
        for row in range(count):
            value = buffers.x[(first + row) * problem.in_features + feature]
            for total, weight in zip(sums[way][row], weights, strict=True):
                total.multiply_add(weight.value, splat(value, total.lanes))

    rows.each_block(run.row, add, ways)
    for row in range(count):
        for way in range(1, ways):
            for total, part in zip(parts[row], sums[way][row], strict=True):
                total.set(total.value + part.value)
        _store(buffers, parts[row], (first + row) * problem.out_features + run.start)


def _store(buffers: Buffers, vectors: list[Register], position: Expr) -> None:
    for vector in vectors:
        buffers.output.store(position, vector.value, vector.lanes)
        position = position + vector.lanes
