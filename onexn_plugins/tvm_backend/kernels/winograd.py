"""3×3 convolutions of stride 1 with 16 multiplications for 4 outputs instead of 36: Winograd's F(2×2, 3×3).

Tiles of 4×4 input pixels (2 apart) and the weights are transformed (Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, 2015); then each of the 16 points is a product of matrices of its own, channels × tiles. A 1×N block
of zero kernels stays a block of zeros at every point, so that skipping blocks and Winograd's saving multiply.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded, encode
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, weight_constants
from onexn_plugins.tvm_backend.kernels.function import Buffers, Output, build
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.sharing import COPY, JOBS, ROWS, Run, Sharing, each_job, share_bands
from onexn_plugins.tvm_backend.kernels.sums import each_tile
from onexn_plugins.tvm_backend.kernels.tiling import PixelTile, channels_at_once
from onexn_plugins.tvm_backend.kernels.vector import (
    Buffer,
    Expr,
    Register,
    constant,
    each_strip,
    load,
    shuffle,
    splat,
    store,
)
from onexn_plugins.tvm_backend.kernels.window import Image, band_start, pack
from onexn_plugins.tvm_backend.kernels.winograd_layout import OUT, POINTS, SIDE, Layout, layout_for

# What Lavin and Gray call B transposed, G and A transposed.
_INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])
_WEIGHT = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def winograd(
    problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
    *, keep_all: bool = False,
) -> Kernel:
    """A 3×3 kernel of stride 1: per band of tile rows, transform the input once, then all block rows."""
    layout = layout_for(problem, unit)
    encoded = _transformed(weight, tile.block_size, problem.groups, keep_all)
    channels = channels_at_once(encoded.block_size, unit, SIDE)
    sharing = _sharing(layout, encoded, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit, sums=SIDE)
        bands, _ = band_start(layout.window, 0)

        def emit_job(image: Expr, group: Expr, band: Expr) -> None:
            first_row = band_start(layout.window, band)[1]
            points = T.alloc_buffer((layout.size,), "float32", scope="global")
            inputs = image * problem.in_channels + group * layout.channels
            _transform_inputs(layout, buffers.x, inputs, points, first_row, unit, sharing.axis == ROWS)

            def emit_rows(runs: dict[str, Run]) -> None:
                half = T.alloc_buffer((channels * SIDE * OUT * unit.lanes,), "float32", scope="global")
                pixels = T.alloc_buffer((channels * OUT * layout.row_length,), "float32", scope="global")

                def emit_run(run: Channels) -> None:
                    def sum_tiles(shape: PixelTile, start: Expr) -> None:
                        for position, lanes in zip(shape.starts, shape.widths, strict=True):
                            _sum_points(layout, rows, run, points, start + position, lanes, half)
                            _finish_tiles(layout, rows, run, half, start + position, lanes, pixels)

                    each_tile(layout.cut, sum_tiles)
                    with T.serial(0, run.count) as channel:
                        plane = image * problem.out_channels + run.start + channel
                        _store_rows(layout, pixels, channel, buffers.output, plane, first_row, unit)

                rows.each_row(group, emit_run, runs.get(ROWS))

            sharing.along((ROWS,), emit_rows)

        sizes = (problem.batch, problem.groups, bands)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    constants = weight_constants(encoded, bias)
    return build("winograd_3x3", problem.input_shape, problem.output_shape, constants, emit, epilogue)


def _sharing(layout: Layout, encoded: Encoded, unit: VectorUnit) -> Sharing:
    tiles = layout.vectors * unit.lanes
    transforming = float(layout.channels * tiles * POINTS * COPY)
    bands, _ = band_start(layout.window, 0)
    return share_bands(layout.problem, encoded, SIDE * tiles, bands, transforming, unit.threads)


def _transformed(weight: np.ndarray, block_size: int, groups: int, keep_all: bool) -> Encoded:
    """The weight at every point, encoded; values lie as they are read: [point rows, blocks, points of a row, N]."""
    points = _WEIGHT @ weight.astype(np.float64) @ _WEIGHT.T
    encoded = encode(points.astype(np.float32), block_size, groups, keep_all=keep_all)
    values = encoded.values.reshape(encoded.num_blocks, SIDE, SIDE, encoded.block_size)
    return replace(encoded, values=np.ascontiguousarray(values.transpose(1, 0, 2, 3)).reshape(-1), kernel=(SIDE,))


def _transform_inputs(layout: Layout, x: Buffer, first: Expr, points: Buffer, first_row: Expr, unit: VectorUnit,
                      shared: bool) -> None:
    """Each channel's band: its pixels side by side for every place in a tile, then to points; threads may share it."""
    problem, window, lanes = layout.problem, layout.window, unit.lanes
    with (T.parallel if shared else T.serial)(0, layout.channels) as channel:
        scratch = T.alloc_buffer((window.size + lanes,), "float32", scope="global")
        image = Image(x, (first + channel) * (problem.height * problem.width), problem.width)
        pack(window, image, scratch, 0, first_row, unit)
        with T.serial(0, layout.vectors) as vector:
            tile = vector * lanes
            pixels = [Register(load(scratch, tile + offset, lanes), lanes) for offset in window.taps]
            for index, value in enumerate(_transform(_INPUT, pixels)):
                store(points, layout.point(tile, channel, *divmod(index, SIDE)), value.value, lanes)


def _sum_points(layout: Layout, rows: BlockRows, run: Channels, points: Buffer, start: Expr, lanes: int,
                half: Buffer) -> None:
    """The sums of a run of channels for a vector of tiles, transformed back along rows: half[channel, row, column]."""
    for row in range(SIDE):
        sums = [[Register(constant(0, lanes), lanes) for _ in range(SIDE)] for _ in range(run.count)]

        def add(block: Expr, channel: Expr, way: int, row: int = row, sums: list[list[Register]] = sums) -> None:
            stored = block + row * rows.encoded.num_blocks
            for column in range(SIDE):
                value = Register(load(points, layout.point(start, channel, row, column), lanes), lanes)
                for totals, weight in zip(sums, rows.weights(stored, column, run), strict=True):
                    totals[column].multiply_add(weight(lanes), value.value)

        rows.each_block(run.row, add)
        for channel, totals in enumerate(sums):
            for column, value in enumerate(_combine(_OUTPUT, totals)):
                store(half, ((channel * SIDE + row) * OUT + column) * lanes, value.value, lanes)


def _finish_tiles(layout: Layout, rows: BlockRows, run: Channels, half: Buffer, start: Expr, lanes: int,
                  pixels: Buffer) -> None:
    """Transform back along columns, add the bias and lay the tiles' pixels side by side: pixels[channel, row]."""
    with T.serial(0, run.count) as channel:
        bias = Register(splat(rows.bias[run.start + channel], lanes), lanes)
        found = [Register(load(half, (channel * SIDE * OUT + index) * lanes, lanes), lanes)
                 for index in range(SIDE * OUT)]
        columns = [_combine(_OUTPUT, found[column::OUT]) for column in range(OUT)]
        for row in range(OUT):
            target = (channel * OUT + row) * layout.row_length + start * OUT
            _store_interleaved(pixels, target, [Register(column[row].value + bias.value, lanes) for column in columns])


def _transform(matrix: np.ndarray, values: list[Register]) -> list[Register]:
    """matrix @ values @ matrix.T, for values row by row."""
    side = matrix.shape[1]
    columns = [_combine(matrix, values[column::side]) for column in range(side)]
    return [value for row in range(len(matrix)) for value in _combine(matrix, [column[row] for column in columns])]


def _combine(matrix: np.ndarray, values: list[Register]) -> list[Register]:
    """matrix @ values; coefficients are 1, -1 and 0."""
    lanes = values[0].lanes
    results = []
    for row in matrix:
        terms = sorted(((int(sign), value) for sign, value in zip(row, values, strict=True) if sign),
                       key=lambda term: -term[0])
        total = terms[0][1].value
        for sign, value in terms[1:]:
            total = total + value.value if sign > 0 else total - value.value
        results.append(Register(total, lanes))
    return results


def _store_interleaved(buffer: Buffer, index: Expr, columns: list[Register]) -> None:
    """Columns of tiles side by side: the first lanes of all columns, then the second ones ..."""
    lanes = columns[0].lanes
    order = [lane + lanes * column for lane in range(lanes) for column in range(OUT)]
    vectors = [column.value for column in columns]
    for part in range(OUT):
        store(buffer, index + part * lanes, shuffle(vectors, order[part * lanes:(part + 1) * lanes]), lanes)


def _store_rows(layout: Layout, pixels: Buffer, channel: Expr, output: Output, plane: Expr, first_row: Expr,
                unit: VectorUnit) -> None:
    """Finish one channel of a band; what its tiles hold beyond the image is dropped."""
    problem = layout.problem
    columns = layout.window.problem.out_width * OUT
    with T.serial(0, layout.window.rows) as tile_row:
        for row in range(OUT):
            y = (first_row + tile_row) * OUT + row

            def write(row: int = row, y: Expr = y) -> None:
                def emit(column: Expr, lanes: int) -> None:
                    index = (channel * OUT + row) * layout.row_length + tile_row * columns + column
                    target = (plane * problem.out_height + y) * problem.out_width + column
                    output.store(target, load(pixels, index, lanes), lanes)

                each_strip(problem.out_width, unit.lanes, emit)

            if problem.out_height % OUT > row or problem.out_height % OUT == 0:
                write()
            else:
                with T.If(y < problem.out_height), T.Then():
                    write()
