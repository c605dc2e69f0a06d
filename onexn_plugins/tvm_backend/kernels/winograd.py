"""3×3 convolutions of stride 1 with 16 multiplications for 4 outputs instead of 36: Winograd's F(2×2, 3×3).

Tiles of 4×4 input pixels (2 apart) and the weights are transformed (Lavin and Gray, Fast Algorithms for Convolutional
Neural Networks, 2015); then each of the 16 points is a product of matrices of its own, channels × tiles. A 1×N block
of zero kernels stays a block of zeros at every point, so that skipping blocks and Winograd's saving multiply.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded, encode
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, weight_constants
from onexn_plugins.tvm_backend.kernels.function import Buffers, Output, build
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, Unsupported, VectorUnit
from onexn_plugins.tvm_backend.kernels.sharing import COPY, JOBS, ROWS, Run, Sharing, each_job, share_bands
from onexn_plugins.tvm_backend.kernels.sums import each_tile
from onexn_plugins.tvm_backend.kernels.vector import (
    Buffer,
    Expr,
    Register,
    constant,
    each_strip,
    load,
    splat,
    store,
)
from onexn_plugins.tvm_backend.kernels.window import Image, band_start, pack
from onexn_plugins.tvm_backend.kernels.winograd_layout import Layout, Rows, is_possible, layout_for
from onexn_plugins.tvm_backend.kernels.winograd_transform import combine, interleaved, transform


def winograd(
    problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
    *, outputs: int = 2, keep_all: bool = False,
) -> Kernel:
    """A k×k kernel of any stride without dilation: per band of tile rows, transform the input once, then all sums.

    Args:
        problem, weight, bias, epilogue, unit, keep_all: as for conv.
        tile: its block size counts alone.
        outputs: pixels of a tile per side: 2 or 4.

    Raises:
        Unsupported: a dilation, or more taps than the tile allows.
    """
    if not is_possible(problem, outputs):
        raise Unsupported(f"Winograd's algorithm for tiles of {outputs}×{outputs} pixels, a kernel of "
                          f"{problem.kernel}, stride {problem.stride} and dilation {problem.dilation}")
    layout = layout_for(problem, outputs, unit)
    encoded = _transformed(layout, weight, tile.block_size, keep_all)
    sharing = _sharing(layout, encoded, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit, sums=layout.side[1])
        bands, _ = band_start(layout.window, 0)

        def emit_job(image: Expr, group: Expr, band: Expr) -> None:
            first_row = band_start(layout.window, band)[1]
            points = T.alloc_buffer((layout.size,), "float32", scope="global")
            inputs = image * problem.in_channels + group * layout.channels
            _transform_inputs(layout, buffers.x, inputs, points, first_row, unit, sharing.axis == ROWS)
            sharing.along((ROWS,), lambda runs: _emit_sums(
                layout, rows, points, buffers.output, image, group, first_row, runs.get(ROWS)))

        sizes = (problem.batch, problem.groups, bands)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    name = f"winograd_{outputs}x{outputs}_{problem.kernel[0]}x{problem.kernel[1]}"
    return build(name, problem.input_shape, problem.output_shape, weight_constants(encoded, bias), emit, epilogue)


def _sharing(layout: Layout, encoded: Encoded, unit: VectorUnit) -> Sharing:
    tiles = layout.vectors * unit.lanes
    transforming = float(layout.channels * tiles * layout.points * COPY)
    bands, _ = band_start(layout.window, 0)
    return share_bands(layout.problem, encoded, tiles, bands, transforming, unit.threads)


def _transformed(layout: Layout, weight: np.ndarray, block_size: int, keep_all: bool) -> Encoded:
    """The weight at every point, encoded; values lie as they are read: [rows of points, blocks, places, N]."""
    down, right = layout.problem.stride
    phases = {
        (v, h): vertical.weight @ weight[:, :, v::down, h::right].astype(np.float64) @ horizontal.weight.T
        for (v, vertical), (h, horizontal) in layout.phases
    }
    points = np.stack([phases[v, h][:, :, row, column] for rows in layout.rows for row in range(rows.first, rows.last)
                       for v, h, column in rows.places], axis=-1).astype(np.float32)
    encoded = encode(points, block_size, layout.problem.groups, keep_all=keep_all)
    values = encoded.values.reshape(encoded.num_blocks, layout.points, encoded.block_size)
    cuts = [rows.before(row) for rows in layout.rows for row in range(rows.first, rows.last)][1:]
    return replace(encoded, values=np.concatenate([row.reshape(-1) for row in np.split(values, cuts, axis=1)]))


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
            for (down, vertical), (right, horizontal) in layout.phases:
                pixels = [Register(load(scratch, tile + offset, lanes), lanes)
                          for offset in layout.pixels(down, right)]
                found = transform(vertical.input, horizontal.input, pixels)
                for rows in layout.rows:
                    for row, values in enumerate(found[rows.first:rows.last], rows.first):
                        for column, value in enumerate(values):
                            place = rows.places.index((down, right, column))
                            store(points, layout.point(tile, channel, rows, row, place), value.value, lanes)


def _emit_sums(layout: Layout, rows: BlockRows, points: Buffer, output: Output, image: Expr, group: Expr,
               first_row: Expr, run_of_rows: Run) -> None:
    """All sums of a band, one row of points after the other, so that weights are read on and on; then its pixels."""
    group_channels = rows.pattern.group_channels
    halves = T.alloc_buffer((group_channels * layout.half_size,), "float32", scope="global")
    pixels = T.alloc_buffer((layout.outputs * layout.row_length,), "float32", scope="global")

    def each_vector(emit: Callable[[Expr, int], None]) -> None:
        each_tile(layout.cut, lambda shape, start: [
            emit(start + position, lanes) for position, lanes in zip(shape.starts, shape.widths, strict=True)])

    def half_of(run: Channels) -> Expr:
        return (run.start - group * group_channels) * layout.half_size

    for alike in layout.rows:
        with T.serial(alike.first, alike.last) as row:
            rows.each_row(group, lambda run, alike=alike, row=row: each_vector(lambda tile, lanes: _sum_points(
                layout, rows, run, alike, row, points, tile, lanes, halves, half_of(run))), run_of_rows)

    def finish_run(run: Channels) -> None:
        with T.serial(0, run.count) as channel:
            half = half_of(run) + channel * layout.half_size
            bias = rows.bias[run.start + channel]
            each_vector(lambda tile, lanes: _finish_tiles(layout, halves, half, bias, tile, lanes, pixels))
            _store_rows(layout, pixels, output, image * layout.problem.out_channels + run.start + channel, first_row,
                        rows.unit)

    rows.each_row(group, finish_run, run_of_rows)


def _sum_points(layout: Layout, rows: BlockRows, run: Channels, alike: Rows, row: Expr, points: Buffer, tile: Expr,
                lanes: int, halves: Buffer, half: Expr) -> None:
    """A run's sums at a row of points for a vector of tiles, transformed back along the row, to `halves`."""
    places, first = alike.places, alike.before(row) * rows.encoded.num_blocks
    sums = [[Register(constant(0, lanes), lanes) for _ in range(layout.side[1])] for _ in range(run.count)]

    def add(block: Expr, channel: Expr, way: int) -> None:
        rows.prefetch(first + block * len(places), len(places), run)
        for place, (_, _, column) in enumerate(places):
            value = Register(load(points, layout.point(tile, channel, alike, row, place), lanes), lanes)
            weights = rows.weights_at(first + block * len(places) + place, run)
            for totals, weight in zip(sums, weights, strict=True):
                totals[column].multiply_add(weight(lanes), value.value)

    rows.each_block(run.row, add)
    for channel, totals in enumerate(sums):
        for column, value in enumerate(combine(layout.horizontal[0].output, totals)):
            store(halves, half + channel * layout.half_size + layout.half(row, column) + tile, value.value, lanes)


def _finish_tiles(layout: Layout, halves: Buffer, half: Expr, bias: Expr, tile: Expr, lanes: int,
                  pixels: Buffer) -> None:
    """Transform a channel back along columns, add the bias and lay the tiles' pixels side by side, row by row."""
    columns = []
    for column in range(layout.outputs):
        sums = [Register(load(halves, half + layout.half(row, column) + tile, lanes), lanes)
                for row in range(layout.side[0])]
        columns.append(combine(layout.vertical[0].output, sums))
    for row, values in enumerate(zip(*columns, strict=True)):
        finished = [Register(value.value + splat(bias, lanes), lanes) for value in values]
        for part, vector in enumerate(interleaved(finished)):
            target = row * layout.row_length + tile * layout.outputs + part * lanes
            store(pixels, target, vector.value, lanes)


def _store_rows(layout: Layout, pixels: Buffer, output: Output, plane: Expr, first_row: Expr,
                unit: VectorUnit) -> None:
    """Finish one channel of a band; what its tiles hold beyond the image is dropped."""
    problem, outputs = layout.problem, layout.outputs
    columns = layout.window.problem.out_width * outputs
    with T.serial(0, layout.window.rows) as tile_row:
        for row in range(outputs):
            y = (first_row + tile_row) * outputs + row

            def write(row: int = row, y: Expr = y) -> None:
                def emit(column: Expr, lanes: int) -> None:
                    value = load(pixels, row * layout.row_length + tile_row * columns + column, lanes)
                    output.store((plane * problem.out_height + y) * problem.out_width + column, value, lanes)

                each_strip(problem.out_width, unit.lanes, emit)

            if problem.out_height % outputs > row or problem.out_height % outputs == 0:
                write()
            else:
                with T.If(y < problem.out_height), T.Then():
                    write()
