"""The sums of a band at Winograd's points, and the way back to pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels
from onexn_plugins.tvm_backend.kernels.function import Output
from onexn_plugins.tvm_backend.kernels.sharing import Run
from onexn_plugins.tvm_backend.kernels.sums import each_tile
from onexn_plugins.tvm_backend.kernels.tiling import PixelTile
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, Register, constant, each_strip, load, splat, store
from onexn_plugins.tvm_backend.kernels.winograd_layout import Layout, Rows
from onexn_plugins.tvm_backend.kernels.winograd_transform import combine, interleaved


@dataclass(frozen=True)
class BandSums:
    """A band's sums at the points of a conv group, transformed back along rows.

    Attributes:
        layout: of the band.
        rows: the transformed weight.
        group: which conv group.
        halves: the sums, [output channel, row of points, column of pixels, tile].
    """

    layout: Layout
    rows: BlockRows
    group: Expr
    halves: Buffer

    @classmethod
    def allocate(cls, layout: Layout, rows: BlockRows, group: Expr) -> BandSums:
        size = rows.pattern.group_channels * layout.half_size
        return cls(layout, rows, group, T.alloc_buffer((size,), "float32", scope="global"))

    def half(self, channel: Expr) -> Expr:
        """Where the sums of an output channel lie."""
        return (channel - self.group * self.rows.pattern.group_channels) * self.layout.half_size

    def each_vector(self, emit: Callable[[Expr, int], None]) -> None:
        """Emit code for every vector of tiles: emit(first tile, lanes)."""
        def emit_tile(shape: PixelTile, start: Expr) -> None:
            for position, lanes in zip(shape.starts, shape.widths, strict=True):
                emit(start + position, lanes)

        each_tile(self.layout.cut, emit_tile)


def sum_points(sums: BandSums, points: Buffer, run: Run) -> None:
    """Emit all sums of a run of block rows, one row of points after the other: weights are read on and on."""
    for alike in sums.layout.rows:
        with T.serial(alike.first, alike.last) as row:

            def emit(channels: Channels, alike: Rows = alike, row: Expr = row) -> None:
                sums.each_vector(lambda tile, lanes: _sum_row(sums, channels, alike, row, points, tile, lanes))

            sums.rows.each_row(sums.group, emit, run)


def _sum_row(sums: BandSums, run: Channels, alike: Rows, row: Expr, points: Buffer, tile: Expr, lanes: int) -> None:
    """A run's sums at one row of points for a vector of tiles."""
    layout, rows, count = sums.layout, sums.rows, len(alike.places)
    first = alike.before(row) * rows.encoded.num_blocks
    totals = [[Register(constant(0, lanes), lanes) for _ in range(layout.side[1])] for _ in range(run.count)]

    def add(block: Expr, channel: Expr, way: int) -> None:
        rows.prefetch(first + block * count, count, run)
        for place, (_, _, column) in enumerate(alike.places):
            value = Register(load(points, layout.point(tile, channel, alike, row, place), lanes), lanes)
            weights = rows.weights_at(first + block * count + place, run)
            for registers, weight in zip(totals, weights, strict=True):
                registers[column].multiply_add(weight(lanes), value.value)

    rows.each_block(run.row, add)
    for channel, registers in enumerate(totals):
        for column, value in enumerate(combine(layout.horizontal[0].output, registers)):
            place = sums.half(run.start + channel) + layout.half(row, column)
            store(sums.halves, place + tile, value.value, lanes)


def store_pixels(sums: BandSums, output: Output, image: Expr, first_row: Expr, run: Run) -> None:
    """Emit the way back along columns, channel by channel, and all that follows a sum.

    Args:
        sums: of the band.
        output: where pixels go.
        image: of the batch.
        first_row: of tiles in the band.
        run: of block rows.
    """
    layout, rows = sums.layout, sums.rows
    pixels = T.alloc_buffer((layout.outputs * layout.row_length,), "float32", scope="global")

    def emit(channels: Channels) -> None:
        with T.serial(0, channels.count) as index:
            channel = channels.start + index
            sums.each_vector(lambda tile, lanes: _finish_tiles(sums, channel, tile, lanes, pixels))
            plane = image * layout.problem.out_channels + channel
            _store_rows(layout, pixels, output, plane, first_row, rows.unit.lanes)

    rows.each_row(sums.group, emit, run)


def _finish_tiles(sums: BandSums, channel: Expr, tile: Expr, lanes: int, pixels: Buffer) -> None:
    """Transform a channel back along columns, add the bias and lay the tiles' pixels side by side, row by row."""
    layout, columns = sums.layout, []
    for column in range(layout.outputs):
        places = [sums.half(channel) + layout.half(row, column) + tile for row in range(layout.side[0])]
        found = [Register(load(sums.halves, place, lanes), lanes) for place in places]
        columns.append(combine(layout.vertical[0].output, found))
    for row, values in enumerate(zip(*columns, strict=True)):
        finished = [Register(value.value + splat(sums.rows.bias[channel], lanes), lanes) for value in values]
        target = row * layout.row_length + tile * layout.outputs
        for part, vector in enumerate(interleaved(finished)):
            store(pixels, target + part * lanes, vector.value, lanes)


def _store_rows(layout: Layout, pixels: Buffer, output: Output, plane: Expr, first_row: Expr, widest: int) -> None:
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

                each_strip(problem.out_width, widest, emit)

            if problem.out_height % outputs > row or problem.out_height % outputs == 0:
                write()
            else:
                with T.If(y < problem.out_height), T.Then():
                    write()
