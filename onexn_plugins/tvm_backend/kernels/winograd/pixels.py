"""From sums at Winograd's points, already transformed back, to pixels of the image and all that follows a sum."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Output
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, each_strip, load, splat, store
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels
from onexn_plugins.tvm_backend.kernels.parts.sharing import Run
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile
from onexn_plugins.tvm_backend.kernels.winograd.layout import Layout
from onexn_plugins.tvm_backend.kernels.winograd.transform import interleaved


class Sums(Protocol):
    """A band's sums at the points of a conv group.

    Attributes:
        layout: of the band.
        rows: the transformed weight.
        group: which conv group.
    """

    @property
    def layout(self) -> Layout: ...

    @property
    def rows(self) -> BlockRows: ...

    @property
    def group(self) -> Expr: ...

    def add(self, points: Buffer, run: Run) -> None:
        """Emit all sums of a run of block rows; `points` holds the transformed input."""

    def pixels(self, channel: Expr, tile: Expr, lanes: int) -> list[list[Register]]:
        """The sums of an output channel, of all groups, for a vector of tiles: their pixels, row by row."""


def each_vector(layout: Layout, emit: Callable[[Expr, int], None]) -> None:
    """Emit code for every vector of tiles: emit(first tile, lanes)."""
    def emit_tile(shape: PixelTile, start: Expr) -> None:
        for position, lanes in zip(shape.starts, shape.widths, strict=True):
            emit(start + position, lanes)

    each_tile(layout.cut, emit_tile)


def store_pixels(sums: Sums, output: Output, image: Expr, first_row: Expr, run: Run) -> None:
    """Emit the way back to pixels, channel by channel, and all that follows a sum.

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
            each_vector(layout, lambda tile, lanes: _finish_tiles(sums, channel, tile, lanes, pixels))
            plane = image * layout.problem.out_channels + channel
            _store_rows(layout, pixels, output, plane, first_row, rows.unit.lanes)

    rows.each_row(sums.group, emit, run)


def _finish_tiles(sums: Sums, channel: Expr, tile: Expr, lanes: int, pixels: Buffer) -> None:
    """Add the bias to a channel's pixels and lay those of neighbouring tiles side by side, row by row."""
    layout = sums.layout
    for row, values in enumerate(sums.pixels(channel, tile, lanes)):
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
