"""1×1 convolutions that copy each tile's pixels first: side by side, aligned, and no more than the first cache holds.

In place, a tile's channels lie height × width apart: vectors straddle cache lines, channels share sets of the cache.
All channels of a wide layer would not fit into it; they are summed in slices: all tiles over some input channels, then
over the next ones. Between slices the sums wait in y.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, load, store
from onexn_plugins.tvm_backend.kernels.conv.pointwise import share_pixels
from onexn_plugins.tvm_backend.kernels.encode import Encoded, in_slices
from onexn_plugins.tvm_backend.kernels.parts.bands import is_aligned, packed_source
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, TILES, Run, Sharing, each_job
from onexn_plugins.tvm_backend.kernels.parts.slices import (
    Slice,
    adding,
    best_slices,
    each_slice,
    sum_slice,
    uses,
)
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile, planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Window
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile
from onexn_plugins.tvm_backend.kernels.unit import Packing, VectorUnit


def is_packed(problem: Conv, encoded: Encoded, tile: Tile, unit: VectorUnit) -> bool:
    """Whether it is a 1×1 convolution whose pixels are used often enough to copy them."""
    if problem.taps > 1 or any(problem.padding) or unit.measured.packing is None:
        return False
    many = best_slices(encoded, tile, unit) > 1
    return uses(encoded, unit) >= _least_uses(problem, unit.measured.packing, many, unit)


def _least_uses(problem: Conv, packing: Packing, many: bool, unit: VectorUnit) -> float:
    """Uses of an input channel from which on packing pays; `many` channels do not fit into the first cache."""
    pixels = problem.out_height * problem.out_width
    if not is_aligned(pixels, unit) or 4 * problem.in_channels // problem.groups * pixels >= unit.second_cache:
        return packing.many if many else packing.few
    return packing.aligned_many if many else packing.aligned_few


def packed(problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
           slices: int | None = None) -> Kernel:
    """A 1×1 kernel of any stride without padding: for each slice of the input channels and tile all block rows."""
    pixels = problem.out_height * problem.out_width
    blocks, cut = in_slices(encoded, slices or best_slices(encoded, tile, unit)), cut_pixels(pixels, tile, unit)
    sharing = share_pixels(problem, encoded, cut, unit, launches=problem.batch * problem.groups)
    size = blocks.slice_channels * max(_stride(shape, unit) for shape in (cut.tile, cut.rest or cut.tile))
    in_place = epilogue.residual and epilogue.in_place  # then the residual waits in y as sums do

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(blocks, buffers.constants, unit)
        output = replace(buffers.output, residual=None) if in_place else buffers.output

        def emit_job(image: Expr, group: Expr) -> None:
            inputs = image * problem.in_channels + group * blocks.pattern.in_channels
            seen = _seen(problem, buffers.x, inputs, blocks.pattern.in_channels, unit, sharing)

            def emit_share(runs: dict[str, Run]) -> None:
                copied = T.alloc_buffer((size,), "float32", scope="global")

                def emit_slice(part: Slice) -> None:
                    base = seen.base + part.number * (blocks.slice_channels * pixels)
                    write = adding(output.y, part, output.store, begun=in_place)

                    def emit_tile(shape: PixelTile, start: Expr) -> None:
                        source = Source(copied, 0, _stride(shape, unit))
                        _copy(replace(seen, base=base + start), part.channels, shape, source)

                        def emit_run(run: Channels) -> None:
                            first = (image * problem.out_channels + run.start) * pixels + start
                            if part.ends:
                                for channel in range(run.count):
                                    output.prefetch(first + channel * pixels, sum(shape.widths))
                            sum_slice(rows, part, source, run, shape, 0, planes(write, first, pixels))

                        rows.each_row(group, emit_run, runs.get(ROWS))

                    each_tile(cut, emit_tile, runs.get(TILES))

                each_slice(blocks, emit_slice)

            sharing.along((TILES, ROWS), emit_share)

        sizes = (problem.batch, problem.groups)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    constants = weight_constants(blocks, bias)
    return build("conv_1x1_packed", problem.input_shape, problem.output_shape, constants, emit, unit, epilogue,
                 over_residual=True)


def _stride(shape: PixelTile, unit: VectorUnit) -> int:
    """Values from one channel's pixels to the next one's: whole vectors, so that all are aligned."""
    return -(-(sum(shape.widths) + shape.columns) // unit.lanes) * unit.lanes


def _seen(problem: Conv, x: Buffer, inputs: Expr, channels: int, unit: VectorUnit, sharing: Sharing) -> Source:
    """The pixels of a group's input channels that the outputs see, side by side: x itself but under a stride."""
    pixels = problem.out_height * problem.out_width
    if problem.is_pointwise:
        return Source(x, inputs * pixels, pixels)
    window = Window(problem, problem.out_height)
    return packed_source(window, x, inputs, channels, unit, sharing.axis in (TILES, ROWS))


def _copy(seen: Source, channels: int, shape: PixelTile, copied: Source) -> None:
    """Copy a tile's pixels of some channels; `seen` begins with the first of them."""
    singles = [(position, 1) for position in shape.column_starts]
    with T.serial(0, channels) as channel:
        for position, lanes in [*zip(shape.starts, shape.widths, strict=True), *singles]:
            value = load(seen.buffer, seen.base + channel * seen.channel_stride + position, lanes)
            store(copied.buffer, channel * copied.channel_stride + position, value, lanes)
