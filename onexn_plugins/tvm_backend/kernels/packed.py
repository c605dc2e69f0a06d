"""1×1 convolutions that copy each tile's pixels first: side by side, aligned, and no more than the first cache holds.

In place, a tile's channels lie height × width apart: vectors straddle cache lines, channels share sets of the cache.
All channels of a wide layer would not fit into it; they are summed in slices: all tiles over some input channels, then
over the next ones. Between slices the sums wait in y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded, in_slices
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.function import Buffers, Output, build
from onexn_plugins.tvm_backend.kernels.pointwise import share_pixels
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.sharing import JOBS, ROWS, TILES, Run, each_job
from onexn_plugins.tvm_backend.kernels.sums import each_tile, planes, sum_tile, zero_start
from onexn_plugins.tvm_backend.kernels.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, load, store

# Copying pays where so many block rows use a channel's pixels: 1.0 to 1.5 times faster than in place with 8 and more of
# them, up to a third slower with 4 and less. Measured with the 1×1 layers of ResNet-50 and MobileNetV2.
_LEAST_USES = 8
# Input channels of a slice: 24 pixels of 256 take 24 KiB of a first cache of 32. A block row should keep that many
# blocks of a slice, else fetching and storing its sums outweighs.
_SLICE_CHANNELS, _SLICE_BLOCKS = 256, 32


@dataclass(frozen=True)
class _Slice:
    """A run of input channels: the how manyth it is, how many they are, whether it is the first and the last."""

    number: Expr
    channels: int
    begins: bool
    ends: bool


def is_packed(encoded: Encoded, unit: VectorUnit) -> bool:
    """Whether pixels are used often enough to copy them; measured on AVX2 alone."""
    return unit.is_avx2 and encoded.pattern.rows_per_group * encoded.density >= _LEAST_USES


def packed(problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
           slices: int | None = None) -> Kernel:
    """A 1×1 kernel: for each slice of the input channels all tiles of pixels, for each of them all block rows."""
    pixels, block_rows = problem.height * problem.width, encoded.pattern.block_rows
    blocks, cut = in_slices(encoded, slices or best_slices(encoded)), cut_pixels(pixels, tile, unit)
    sharing = share_pixels(problem, encoded, cut, unit)
    size = blocks.slice_channels * max(_stride(shape, unit) for shape in (cut.tile, cut.rest or cut.tile))

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(blocks, buffers.constants, unit)

        def emit_share(runs: dict[str, Run]) -> None:
            copied = T.alloc_buffer((size,), "float32", scope="global")

            def emit_job(image: Expr, group: Expr) -> None:
                first_input = image * problem.in_channels + group * blocks.pattern.in_channels

                def emit_slice(part: _Slice) -> None:
                    base = (first_input + part.number * blocks.slice_channels) * pixels
                    write = _writer(buffers.output, part)

                    def emit_tile(shape: PixelTile, start: Expr) -> None:
                        source = Source(copied, 0, _stride(shape, unit))
                        _copy(buffers.x, base + start, pixels, part.channels, shape, source)

                        def emit_run(run: Channels) -> None:
                            first = (image * problem.out_channels + run.start) * pixels + start
                            in_slice = replace(run, row=part.number * block_rows + run.row)
                            sum_tile(rows, source, in_slice, shape, 0, planes(write, first, pixels),
                                     None if part.begins else zero_start(run, unit))

                        rows.each_row(group, emit_run, runs.get(ROWS))

                    each_tile(cut, emit_tile, runs.get(TILES))

                _each_slice(blocks, emit_slice)

            each_job((problem.batch, problem.groups), runs.get(JOBS), emit_job)

        sharing.along((JOBS, TILES, ROWS), emit_share)

    constants = weight_constants(blocks, bias)
    return build("conv_1x1_packed", problem.input_shape, problem.output_shape, constants, emit, epilogue)


def best_slices(encoded: Encoded) -> int:
    """Into how many slices the input channels are best cut."""
    kept = encoded.density * encoded.pattern.in_channels  # blocks of a row
    return max(1, round(min(encoded.pattern.in_channels / _SLICE_CHANNELS, kept / _SLICE_BLOCKS)))


def _each_slice(blocks: Encoded, emit: Callable[[_Slice], None]) -> None:
    last = blocks.slices - 1
    channels = blocks.pattern.in_channels - last * blocks.slice_channels
    if last:
        emit(_Slice(0, blocks.slice_channels, begins=True, ends=False))
    if last > 1:
        with T.serial(1, last) as number:
            emit(_Slice(number, blocks.slice_channels, begins=False, ends=False))
    emit(_Slice(last, channels, begins=not last, ends=True))


def _stride(shape: PixelTile, unit: VectorUnit) -> int:
    """Values from one channel's pixels to the next one's: whole vectors, so that all are aligned."""
    return -(-(sum(shape.widths) + shape.columns) // unit.lanes) * unit.lanes


def _copy(x: Buffer, first: Expr, pixels: int, channels: int, shape: PixelTile, copied: Source) -> None:
    """Copy a tile's pixels, of channels that begin `pixels` apart from flat index `first` of x on."""
    singles = [(position, 1) for position in shape.column_starts]
    with T.serial(0, channels) as channel:
        for position, lanes in [*zip(shape.starts, shape.widths, strict=True), *singles]:
            value = load(x, first + channel * pixels + position, lanes)
            store(copied.buffer, channel * copied.channel_stride + position, value, lanes)


def _writer(output: Output, part: _Slice) -> Callable[[Expr, Expr, int], None]:
    """Adds a slice's sums to y: the first slice's are the first there, the last one's finish them."""

    def write(index: Expr, value: Expr, lanes: int) -> None:
        if not part.begins:
            value = value + load(output.y, index, lanes)
        if part.ends:
            output.store(index, value, lanes)
        else:
            store(output.y, index, value, lanes)

    return write
