"""Fully connected layers: vectors over the N outputs of a block; also 1×1 convolutions of a single pixel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, weight_constants
from onexn_plugins.tvm_backend.kernels.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.problem import Epilogue, Kernel, Linear, VectorUnit
from onexn_plugins.tvm_backend.kernels.sharing import ROWS, Run, row_costs, share
from onexn_plugins.tvm_backend.kernels.vector import Expr, Register, constant, pieces, splat

# Sums that must be under way at once to hide the latency of a multiply-add (4 cycles, one or two started per cycle).
_INDEPENDENT_SUMS = 4


def linear_kernel(
    problem: Linear, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit,
    input_shape: Sequence[int], output_shape: Sequence[int],
) -> Kernel:
    """A fully connected kernel; shapes are those of the buffers, whatever their unit dimensions."""
    vectors = len(pieces(min(encoded.block_size, unit.registers // 2), unit.lanes))
    at_once = max(1, min(problem.batch, unit.registers // 2 // vectors))

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def emit_share(runs: dict[str, Run]) -> None:
            def emit_inputs(first: Expr, count: int) -> None:
                rows.each_row(0, lambda run: _sum_inputs(rows, buffers, problem, run, first, count), runs.get(ROWS))

            repeats, rest = divmod(problem.batch, at_once)
            with T.serial(0, repeats) as index:
                emit_inputs(index * at_once, at_once)
            if rest:
                emit_inputs(repeats * at_once, rest)

        share(unit.threads, {ROWS: row_costs(encoded, problem.batch)}).along((ROWS,), emit_share)

    return build("linear", input_shape, output_shape, weight_constants(encoded, bias), emit, epilogue)


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
        position = (first + row) * problem.out_features + run.start
        for index, part in enumerate(parts[row]):
            total = part.value
            for way in range(1, ways):
                total = total + sums[way][row][index].value
            buffers.output.store(position, total, part.lanes)
            position = position + part.lanes
