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
from onexn_plugins.tvm_backend.kernels.winograd_layout import Layout, layout_for

def winograd(
    problem: Conv, weight: np.ndarray, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
    *, outputs: int = 2, keep_all: bool = False,
) -> Kernel:
    """A k×k kernel: per band of tile rows, transform the input once, then all block rows.

    Args:
        problem, weight, bias, epilogue, unit, tile, keep_all: as for conv; the tile's vectors do not matter.
        outputs: of a tile per side: 2 or 4.
    """
    layout = layout_for(problem, outputs, unit)
    encoded = _transformed(layout, weight, tile.block_size, keep_all)
    columns = layout.side[1]
    channels = channels_at_once(encoded.block_size, unit, columns)
    sharing = _sharing(layout, encoded, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit, sums=columns)
        bands, _ = band_start(layout.window, 0)

        def emit_job(image: Expr, group: Expr, band: Expr) -> None:
            first_row = band_start(layout.window, band)[1]
            points = T.alloc_buffer((layout.size,), "float32", scope="global")
            inputs = image * problem.in_channels + group * layout.channels
            _transform_inputs(layout, buffers.x, inputs, points, first_row, unit, sharing.axis == ROWS)

            def emit_rows(runs: dict[str, Run]) -> None:
                half = T.alloc_buffer((channels * layout.side[0] * outputs * unit.lanes,), "float32", scope="global")
                pixels = T.alloc_buffer((channels * outputs * layout.row_length,), "float32", scope="global")

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
    return build(f"winograd_{problem.kernel[0]}x{problem.kernel[1]}", problem.input_shape, problem.output_shape, constants, emit, epilogue)


def _sharing(layout: Layout, encoded: Encoded, unit: VectorUnit) -> Sharing:
    tiles = layout.vectors * unit.lanes
    transforming = float(layout.channels * tiles * layout.points * COPY)
    bands, _ = band_start(layout.window, 0)
    return share_bands(layout.problem, encoded, tiles, bands, transforming, unit.threads)


def _transformed(layout: Layout, weight: np.ndarray, block_size: int, keep_all: bool) -> Encoded:
    """The weight at every point, encoded; values lie as they are read: [rows of points, blocks, places, N]."""
    down, right = layout.problem.stride
    phases = {
        (v, h): rows.weight @ weight[:, :, v::down, h::right].astype(np.float64) @ columns.weight.T
        for v, rows in enumerate(layout.vertical) for h, columns in enumerate(layout.horizontal)
    }
    rows = [np.stack([phases[v, h][:, :, row, column] for v, h, column in layout.places(row)], axis=-1)
            for row in range(layout.side[0])]
    points = np.concatenate(rows, axis=-1).astype(np.float32)
    encoded = encode(points, block_size, layout.problem.groups, keep_all=keep_all)
    values = encoded.values.reshape(encoded.num_blocks, layout.points, encoded.block_size)
    cuts = [layout.points_before(row) for row in range(1, layout.side[0])]
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
            for v, rows in enumerate(layout.vertical):
                for h, columns in enumerate(layout.horizontal):
                    pixels = [Register(load(scratch, tile + offset, lanes), lanes)
                              for offset in layout.phase_taps(v, h)]
                    found = iter(_transform(rows.input, columns.input, pixels))
                    for row in range(rows.points):
                        for place, (down, right, _) in enumerate(layout.places(row)):
                            if (down, right) == (v, h):
                                store(points, layout.point(tile, channel, row, place), next(found).value, lanes)


def _sum_points(layout: Layout, rows: BlockRows, run: Channels, points: Buffer, start: Expr, lanes: int,
                half: Buffer) -> None:
    """The sums of a run of channels for a vector of tiles, transformed back along rows: half[channel, row, column]."""
    height, width = layout.side
    for row in range(height):
        places = layout.places(row)
        first = layout.points_before(row) * rows.encoded.num_blocks
        sums = [[Register(constant(0, lanes), lanes) for _ in range(width)] for _ in range(run.count)]

        def add(block: Expr, channel: Expr, way: int, row: int = row, first: int = first,
                places: list[tuple[int, int, int]] = places, sums: list[list[Register]] = sums) -> None:
            for place, (_, _, column) in enumerate(places):
                value = Register(load(points, layout.point(start, channel, row, place), lanes), lanes)
                weights = rows.weights_at(first + block * len(places) + place, run)
                for totals, weight in zip(sums, weights, strict=True):
                    totals[column].multiply_add(weight(lanes), value.value)

        rows.each_block(run.row, add)
        for channel, totals in enumerate(sums):
            for column, value in enumerate(_combine(layout.horizontal[0].output, totals)):
                store(half, ((channel * height + row) * layout.outputs + column) * lanes, value.value, lanes)


def _finish_tiles(layout: Layout, rows: BlockRows, run: Channels, half: Buffer, start: Expr, lanes: int,
                  pixels: Buffer) -> None:
    """Transform back along columns, add the bias and lay the tiles' pixels side by side: pixels[channel, row]."""
    outputs = layout.outputs
    values = layout.side[0] * outputs
    with T.serial(0, run.count) as channel:
        bias = Register(splat(rows.bias[run.start + channel], lanes), lanes)
        found = [Register(load(half, (channel * values + index) * lanes, lanes), lanes) for index in range(values)]
        columns = [_combine(layout.vertical[0].output, found[column::outputs]) for column in range(outputs)]
        for row in range(outputs):
            target = (channel * outputs + row) * layout.row_length + start * outputs
            finished = [Register(column[row].value + bias.value, lanes) for column in columns]
            for part, vector in enumerate(_interleaved(finished)):
                store(pixels, target + part * lanes, vector.value, lanes)


def _transform(vertical: np.ndarray, horizontal: np.ndarray, values: list[Register]) -> list[Register]:
    """vertical @ values @ horizontal.T, for values row by row."""
    width = horizontal.shape[1]
    columns = [_combine(vertical, values[column::width]) for column in range(width)]
    return [value for row in range(len(vertical)) for value in _combine(horizontal, [column[row] for column in columns])]


def _combine(matrix: np.ndarray, values: list[Register]) -> list[Register]:
    """matrix @ values."""
    return [_sum(row, values) for row in matrix]


def _sum(factors: np.ndarray, values: list[Register]) -> Register:
    """factors @ values, with as few multiplications as there are other factors than 1, -1 and 0."""
    lanes = values[0].lanes
    terms = [(float(factor), value.value) for factor, value in zip(factors, values, strict=True) if factor]
    terms.sort(key=lambda term: (abs(term[0]) != 1, -term[0]))
    total = None
    for factor, value in terms:
        if abs(factor) != 1:
            value = value * constant(factor, lanes)
        if total is None:
            total = value if factor != -1 else constant(0, lanes) - value
        else:
            total = total - value if factor == -1 else total + value
    return Register(constant(0, lanes) if total is None else total, lanes)


def _interleaved(vectors: list[Register]) -> list[Register]:
    """The first lanes of a power of two of vectors, then the second ones ..., in as many vectors."""
    if len(vectors) == 1:
        return vectors
    lanes = vectors[0].lanes
    order = [lane + lanes * side for lane in range(lanes) for side in range(2)]
    return [Register(shuffle([even.value, odd.value], half), lanes)
            for even, odd in zip(_interleaved(vectors[::2]), _interleaved(vectors[1::2]), strict=True)
            for half in (order[:lanes], order[lanes:])]


def _store_rows(layout: Layout, pixels: Buffer, channel: Expr, output: Output, plane: Expr, first_row: Expr,
                unit: VectorUnit) -> None:
    """Finish one channel of a band; what its tiles hold beyond the image is dropped."""
    problem, outputs = layout.problem, layout.outputs
    columns = layout.window.problem.out_width * outputs
    with T.serial(0, layout.window.rows) as tile_row:
        for row in range(outputs):
            y = (first_row + tile_row) * outputs + row

            def write(row: int = row, y: Expr = y) -> None:
                def emit(column: Expr, lanes: int) -> None:
                    index = (channel * outputs + row) * layout.row_length + tile_row * columns + column
                    target = (plane * problem.out_height + y) * problem.out_width + column
                    output.store(target, load(pixels, index, lanes), lanes)

                each_strip(problem.out_width, unit.lanes, emit)

            if problem.out_height % outputs > row or problem.out_height % outputs == 0:
                write()
            else:
                with T.If(y < problem.out_height), T.Then():
                    write()
