"""Sums over the input channels of a slice at a time: the first slice's begin an output's, the last one's finish it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, load, store
from onexn_plugins.tvm_backend.kernels.encode import Blocks, Encoded
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sums import StoreSums, sum_tile, zero_start
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, channels_at_once
from onexn_plugins.tvm_backend.kernels.problem import Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

Write = Callable[[Expr, Expr, int], None]

# Share of the first cache that a tile's pixels under all taps of a slice take, each tap's counted for itself.
_SLICE_SHARE = 3 / 4
# A block row should keep that many blocks × taps of a slice, else fetching and storing its sums outweighs.
_SLICE_BLOCKS = 32


@dataclass(frozen=True)
class Slice:
    """A run of input channels.

    Attributes:
        number: the how manyth it is.
        channels: how many they are.
        begins, ends: whether it is the first one and the last one.
    """

    number: Expr
    channels: int
    begins: bool
    ends: bool


def uses(blocks: Blocks, unit: VectorUnit) -> float:
    """How many runs of output channels read an input channel on average."""
    return blocks.density * blocks.pattern.group_channels / channels_at_once(blocks.block_size, unit)


def best_slices(blocks: Blocks, tile: Tile, unit: VectorUnit) -> int:
    """Into how many slices the input channels are best cut; measured on AVX2 and AVX-512."""
    tile_bytes = 4 * tile.vectors * unit.lanes * blocks.taps * blocks.pattern.in_channels
    kept = blocks.density * blocks.pattern.in_channels * blocks.taps  # blocks × taps of a row
    return max(1, round(min(tile_bytes / (_SLICE_SHARE * unit.first_cache), kept / _SLICE_BLOCKS)))


def sum_slice(rows: BlockRows, part: Slice, source: Source, run: Channels, shape: PixelTile, start: Expr,
              target: StoreSums) -> None:
    """As sum_tile, over a slice's channels; `source` begins with the first of them."""
    in_slice = replace(run, row=part.number * rows.pattern.block_rows + run.row)
    sum_tile(rows, source, in_slice, shape, start, target, None if part.begins else zero_start(run, rows.unit))


def each_slice(blocks: Encoded, emit: Callable[[Slice], None]) -> None:
    """Emit code for the first, the middle ones and the last slice of in_slices."""
    last = blocks.slices - 1
    channels = blocks.pattern.in_channels - last * blocks.slice_channels
    if last:
        emit(Slice(0, blocks.slice_channels, begins=True, ends=False))
    if last > 1:
        with T.serial(1, last) as number:
            emit(Slice(number, blocks.slice_channels, begins=False, ends=False))
    emit(Slice(last, channels, begins=not last, ends=True))


def adding(sums: Buffer, part: Slice, finish: Write, *, begun: bool = False) -> Write:
    """Writes the sums of a slice: added to those before, which wait in `sums`; the last ones are finished.

    `begun`: something waits there before the first slice as well.
    """

    def write(index: Expr, value: Expr, lanes: int) -> None:
        if begun or not part.begins:
            value = value + load(sums, index, lanes)
        if part.ends:
            finish(index, value, lanes)
        else:
            store(sums, index, value, lanes)

    return write
