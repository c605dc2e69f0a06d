"""The heart of every 1×N convolution: channels × pixels sums in registers over the kept blocks of a row.

For each kept block the pixels of its input channel are loaded once and used for all its output channels (the reuse
that 1×N is for). Pixels that do not fill a vector are summed transposed, as vectors over the output channels.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.sharing import Run, turn
from onexn_plugins.tvm_backend.kernels.tiling import Cut, PixelTile
from onexn_plugins.tvm_backend.kernels.vector import Expr, Register, load, splat

# Takes (channel of the run, pixel, vector of sums, lanes).
Target = Callable[[int, Expr, Expr, int], None]


def planes(write: Callable[[Expr, Expr, int], None], base: Expr, channel_stride: int) -> Target:
    """Channels `channel_stride` apart from flat index `base` on; `write` takes (index, vector, lanes)."""
    return lambda channel, pixel, value, lanes: write(base + channel * channel_stride + pixel, value, lanes)


def each_tile(cut: Cut, emit: Callable[[PixelTile, Expr], None], run: Run = None) -> None:
    """Emit code for the tiles of a cut, given the tile and its first pixel."""
    if cut.repeats:
        first, last = (0, cut.repeats) if run is None else run
        with T.serial(first, tirx.min(last, cut.repeats) if cut.rest and run else last) as index:
            emit(cut.tile, index * sum(cut.tile.widths))
    if cut.rest is not None:
        with turn(cut.repeats, run):
            emit(cut.rest, cut.rest_start)


def each_group(cut: Cut, size: int, emit: Callable[[PixelTile, Expr, Expr], None], run: Run = None) -> None:
    """As each_tile, in groups of up to `size` equal tiles: emit(tile, first pixel, how many tiles)."""
    if cut.repeats:
        first, last = (0, cut.repeats) if run is None else (run[0], tirx.min(run[1], cut.repeats))
        with T.serial(0, tirx.truncdiv(last - first + (size - 1), size)) as index:
            start = first + index * size
            count = size if run is None and cut.repeats % size == 0 else tirx.min(size, last - start)
            emit(cut.tile, start * sum(cut.tile.widths), count)
    if cut.rest is not None:
        with turn(cut.repeats, run):
            emit(cut.rest, cut.rest_start, 1)


def sum_tile(rows: BlockRows, source: Source, run: Channels, tile: PixelTile, start: Expr, target: Target) -> None:
    """Emit the sums (with bias) of a run of channels over the tile whose first pixel is `start`."""
    sums = [
        [Register(splat(rows.bias[run.start + channel], width), width) for width in tile.widths]
        for channel in range(run.count)
    ]
    columns = [rows.bias_vectors(run) for _ in range(tile.columns)]

    def add(block: Expr, channel: Expr, way: int) -> None:
        first = source.base + channel * source.channel_stride + start
        for tap, offset in enumerate(source.taps):
            if tile.widths:
                _add_vectors(rows, source, run, tile, sums, block, tap, first + offset)
            if tile.columns:
                _add_columns(rows, source, run, tile, columns, block, tap, first + offset)

    rows.each_block(run.row, add)
    for channel in range(run.count):
        for register, position in zip(sums[channel], tile.starts, strict=True):
            target(channel, start + position, register.value, register.lanes)
        for vectors, position in zip(columns, tile.column_starts, strict=True):
            target(channel, start + position, _lane_of(vectors, channel), 1)


def _lane_of(vectors: list[Register], index: int) -> Expr:
    """One value of several vectors laid end to end."""
    for vector in vectors:
        if index < vector.lanes:
            break
        index -= vector.lanes
    return vector.lane(index)


def _add_vectors(rows: BlockRows, source: Source, run: Channels, tile: PixelTile, sums: list[list[Register]],
                 block: Expr, tap: int, first: Expr) -> None:
    pixels = [
        Register(load(source.buffer, first + position, width), width)
        for position, width in zip(tile.starts, tile.widths, strict=True)
    ]
    for channel, weight in enumerate(rows.weights(block, tap, run)):
        for register, vector in zip(sums[channel], pixels, strict=True):
            register.multiply_add(weight(register.lanes), vector.value)


def _add_columns(rows: BlockRows, source: Source, run: Channels, tile: PixelTile, columns: list[list[Register]],
                 block: Expr, tap: int, first: Expr) -> None:
    weights = rows.weight_vectors(block, tap, run)
    for vectors, position in zip(columns, tile.column_starts, strict=True):
        for register, weight in zip(vectors, weights, strict=True):
            register.multiply_add(weight.value, splat(source.buffer[first + position], register.lanes))
