"""1×N-sparse linear layers of many rows: vectors over the rows of x, as a 1×1 convolution has them over pixels.

A linear layer's own vectors are the N outputs of a block, which leave most lanes of a wide register empty. Here rows
are turned into columns tile by tile, and the sums back into rows as they are stored.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr, Register, transpose
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import ROWS, TILES, Run, row_costs, share
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile, sum_tile
from onexn_plugins.tvm_backend.kernels.parts.tiling import Cut, PixelTile, channels_at_once, covering, tile_pixels
from onexn_plugins.tvm_backend.kernels.parts.turning import QUAD, turn_rows
from onexn_plugins.tvm_backend.kernels.problem import Kernel, Linear, as_linear
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Multiply-adds that take as long as turning one value of x.
_TURN = 2


def fills_vectors(problem: Linear, unit: VectorUnit) -> bool:
    """Whether rows fill a vector."""
    return problem.batch >= unit.lanes and problem.in_features >= QUAD


def filled(problem: Linear, unit: VectorUnit) -> float:
    """Share of the vectors' lanes that rows fill."""
    return problem.batch / sum(covering(problem.batch, unit).widths)


def dense_on_rows(problem: Linear, unit: VectorUnit) -> bool:
    """Whether vectors over rows are faster without blocks, too."""
    return unit.measured.dense_rows and fills_vectors(problem, unit)


def why_not_over_rows(request: Request) -> str | None:
    """None where rows fill vectors. Dense weights fill them over the outputs, whatever the number of rows."""
    problem = as_linear(request.first.problem)
    if problem is None:
        return "an image of several pixels"
    if not fills_vectors(problem, request.unit):
        return f"{problem.batch} rows of {problem.in_features} features do not fill vectors"
    if request.first.blocks.is_dense and not dense_on_rows(problem, request.unit):
        return "without blocks, vectors over the outputs are faster"
    return None


def over_rows(request: Request) -> Kernel:
    """A fully connected kernel for at least a vector of rows.

    The last vector is as short as covers what is left, and overlaps the one before where it is longer than that.
    """
    stage, unit, problem = request.first, request.unit, as_linear(request.first.problem)
    assert problem is not None
    encoded, tile = stage.encoded, stage.tile
    repeats, left = divmod(problem.batch, tile.vectors * unit.lanes)
    cut = Cut(PixelTile((unit.lanes,) * tile.vectors), repeats, covering(left, unit) if left else None)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def emit_share(runs: dict[str, Run]) -> None:
            columns = T.alloc_buffer((problem.in_features * sum(cut.tile.widths),), "float32", scope="global")

            def emit_tile(shape: PixelTile, start: Expr) -> None:
                first_rows = {position: tirx.min(start + position, problem.batch - lanes)
                              for position, lanes in zip(shape.starts, shape.widths, strict=True)}
                for (position, row), lanes in zip(first_rows.items(), shape.widths, strict=True):
                    turn_rows(buffers.x, partial(_row_start, row, problem.in_features), problem.in_features, columns,
                              position, sum(shape.widths), lanes)
                source = Source(columns, 0, sum(shape.widths))

                def emit_run(run: Channels) -> None:
                    sums: dict[int, list[Register]] = {}

                    def collect(_channel: int, position: Expr, value: Expr, lanes: int) -> None:
                        assert isinstance(position, int), "tiles begin at 0 here"
                        sums.setdefault(position, []).append(Register(value, lanes))

                    sum_tile(rows, source, run, shape, 0, collect)
                    for position, values in sums.items():
                        first = first_rows[position] * problem.out_features + run.start
                        _store_turned(buffers, first, problem.out_features, values)

                rows.each_row(0, emit_run, runs.get(ROWS))

            each_tile(cut, emit_tile, runs.get(TILES))

        turning = _TURN * problem.in_features * problem.batch
        costs = row_costs(encoded, problem.batch)
        pixels = np.array(tile_pixels(cut, channels_at_once(encoded.block_size, unit), unit))
        share(unit.threads, {
            TILES: pixels / problem.batch * (costs.sum() + turning),
            ROWS: costs + turning / len(costs),
        }).along((TILES, ROWS), emit_share)

    return build("linear_rows", stage.problem.input_shape, stage.problem.output_shape,
                 weight_constants(encoded, stage.bias), emit, unit, stage.epilogue)


def _row_start(row: Expr, features: int, other: int) -> Expr:
    """Where a row begins, counted from one of them."""
    return (row + other) * features


def _store_turned(buffers: Buffers, first: Expr, stride: int, values: list[Register]) -> None:
    """Store a run's sums, a vector of rows for each channel: those of a row lie side by side from `first` on."""
    whole = len(values) - len(values) % QUAD
    for channel in range(0, whole, QUAD):
        for number, quads in enumerate(transpose(values[channel:channel + QUAD])):
            places = [first + (start + number) * stride + channel for start in range(0, quads.lanes, QUAD)]
            buffers.output.store_parts(places, quads.value, QUAD)
    for channel in range(whole, len(values)):
        lanes = values[channel].lanes
        places = [first + lane * stride + channel for lane in range(lanes)]
        buffers.output.store_parts(places, values[channel].value, 1)
