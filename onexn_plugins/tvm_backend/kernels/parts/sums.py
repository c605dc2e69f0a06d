"""The heart of every 1×N convolution: channels × pixels sums in registers over the kept blocks of a row.

For each kept block the pixels of its input channel are loaded once and used for all its output channels (the reuse
that 1×N is for). Pixels that do not fill a vector are summed transposed, as vectors over the output channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    Register,
    constant,
    load,
    pieces,
    splat,
    store,
)
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import Run, turn
from onexn_plugins.tvm_backend.kernels.parts.tiling import Cut, PixelTile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Takes (channel of the run, pixel, vector of sums, lanes).
StoreSums = Callable[[int, Expr, Expr, int], None]
# Kept blocks of a row from which on a turn's instructions outweigh those that an odd last block costs.
_LONG_ROW = 8


@dataclass(frozen=True)
class Start:
    """What the sums of a run begin with.

    Attributes:
        vector: gives it for pixels: (channel of the run, pixel of the tile, lanes).
        column: gives it for a single pixel, as vectors over the channels.
    """

    vector: Callable[[int, int, int], Expr]
    column: Callable[[], list[Register]]


def bias_start(rows: BlockRows, run: Channels) -> Start:
    """Sums begin with the bias."""
    return Start(lambda channel, _, lanes: splat(rows.bias[run.start + channel], lanes), lambda: rows.bias_vectors(run))


def zero_start(run: Channels, unit: VectorUnit) -> Start:
    """Sums begin with nothing."""
    return Start(lambda _channel, _position, lanes: constant(0, lanes),
                 lambda: [Register(constant(0, width), width) for width in pieces(run.count, unit.lanes)])


def planes(write: Callable[[Expr, Expr, int], None], base: Expr, channel_stride: int) -> StoreSums:
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


def bias_pixels(cut: Cut, unit: VectorUnit) -> int:
    """Values per channel that written_out_bias needs: the vectors of the largest tile on ARM, none on x86."""
    return -(-cut.pixels_at_once // unit.lanes) * unit.lanes if unit.isa.loads_pairs else 0


def written_out_bias(rows: BlockRows, run: Channels, cut: Cut, scratch: Buffer, base: int) -> Start | None:
    """Write the bias of a run for every vector of a tile to `scratch` from `base` on, so that tiles begin with loads.

    Copies of a register cost as many instructions as there are sums, loads of neighbouring vectors half as many. LLVM
    would keep the loaded vectors in registers all the time, unless they stand where a tile might write for all that it
    can prove: behind what ascending stores write, or before what descending ones do. None where registers are better
    filled from one value.
    """
    lanes, pixels = rows.unit.lanes, bias_pixels(cut, rows.unit)
    if not pixels:
        return None
    for channel in range(run.count):
        bias = Register(splat(rows.bias[run.start + channel], lanes), lanes)
        for position in range(0, pixels, lanes):
            store(scratch, base + channel * pixels + position, bias.value, lanes)
    return replace(bias_start(rows, run), vector=lambda channel, position, width: load(
        scratch, base + channel * pixels + position, width))


def sum_tile(rows: BlockRows, source: Source, run: Channels, tile: PixelTile, start: Expr, target: StoreSums,
             first: Start | None = None) -> None:
    """Emit the sums of a run of channels over the tile whose first pixel is `start`.

    Args:
        rows: the convolution's weight.
        source: its input.
        run: which channels.
        tile: which pixels.
        start: see above.
        target: takes the sums.
        first: what sums begin with; None for the bias.
    """
    first = first or bias_start(rows, run)
    sums = [
        [Register(first.vector(channel, position, width), width)
         for position, width in zip(tile.starts, tile.widths, strict=True)]
        for channel in range(run.count)
    ]
    columns = [first.column() for _ in range(tile.columns)]
    seen, origin = source.seen_from(start, rows.unit)

    def add(block: Expr, channel: Expr, way: int) -> None:
        rows.prefetch(block * len(seen.taps), len(seen.taps), run)
        pixel = seen.base + channel * seen.channel_stride + origin

        def add_tap(tap: Expr, offset: Expr) -> None:
            if tile.widths:
                _add_vectors(rows, seen, run, tile, sums, block, tap, pixel + offset)
            if tile.columns:
                _add_columns(rows, seen, run, tile, columns, block, tap, pixel + offset)

        if seen.listed is None:
            for tap, offset in enumerate(seen.taps):
                add_tap(tap, offset)
        else:
            with T.serial(0, len(seen.taps)) as tap:
                add_tap(tap, seen.listed[tap])

    rows.each_block(run.row, add, _blocks_per_turn(rows, source))
    for channel in range(run.count):
        for register, position in zip(sums[channel], tile.starts, strict=True):
            target(channel, start + position, register.value, register.lanes)
        for vectors, position in zip(columns, tile.column_starts, strict=True):
            target(channel, start + position, _lane_of(vectors, channel), 1)


def _blocks_per_turn(rows: BlockRows, source: Source) -> int:
    """Blocks per turn of the loop over them: two share the loop's own instructions and one load of weights on ARM.

    Not where LLVM unrolls the loop: of two blocks it makes eight, which spill (Cortex-A53: 0.41 multiply-adds a cycle
    instead of 0.51; see benchmarks/arm).
    """
    long = rows.encoded.num_blocks >= _LONG_ROW * rows.encoded.pattern.block_rows
    return 2 if rows.unit.isa.multiplies_by_lane and not rows.unit.unrolls and len(source.taps) == 1 and long else 1


def _lane_of(vectors: list[Register], index: int) -> Expr:
    """One value of several vectors laid end to end."""
    for vector in vectors:
        if index < vector.lanes:
            break
        index -= vector.lanes
    return vector.lane(index)


def _add_vectors(rows: BlockRows, source: Source, run: Channels, tile: PixelTile, sums: list[list[Register]],
                 block: Expr, tap: Expr, first: Expr) -> None:
    pixels = [
        Register(load(source.buffer, first + position, width), width)
        for position, width in zip(tile.starts, tile.widths, strict=True)
    ]
    for channel, weight in enumerate(rows.weights(block, tap, run)):
        for register, vector in zip(sums[channel], pixels, strict=True):
            register.multiply_add(weight(register.lanes), vector.value)


def _add_columns(rows: BlockRows, source: Source, run: Channels, tile: PixelTile, columns: list[list[Register]],
                 block: Expr, tap: Expr, first: Expr) -> None:
    weights = rows.weight_vectors(block, tap, run)
    for vectors, position in zip(columns, tile.column_starts, strict=True):
        for register, weight in zip(vectors, weights, strict=True):
            register.multiply_add(weight.value, splat(source.buffer[first + position], register.lanes))
