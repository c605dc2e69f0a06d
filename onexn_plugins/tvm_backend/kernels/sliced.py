"""1×1 convolutions of many input channels, in slices: all sums over some of them, then over the next ones.

A tile's pixels of all input channels do not fit into the first cache, so every block row would fetch them from the
second one. Those of a slice stay there while all block rows are summed. Between slices the sums wait in y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
from onexn_plugins.tvm_backend.kernels.vector import Expr, load, store

# Input channels of a slice: 24 pixels of 128 take 12 KiB of a first cache of 32. But a block row should keep that many
# blocks of a slice, else fetching and storing its sums outweighs. Measured with the 1×1 layers of ResNet-50 and
# MobileNetV2: with all blocks 1.05 to 1.35 times faster, with half of them 1.0 to 1.4, with a quarter 1.0 to 1.3.
_SLICE_CHANNELS, _SLICE_BLOCKS = 128, 48


def best_slices(encoded: Encoded, unit: VectorUnit) -> int:
    """Into how many slices of its input channels a 1×1 convolution is best cut.

    One, which is none, but on AVX2, the only vector unit that it was measured on.
    """
    if not unit.is_avx2 or not encoded.num_blocks:
        return 1
    return max(1, int(encoded.pattern.in_channels / max(_SLICE_CHANNELS, _SLICE_BLOCKS / encoded.density)))


def sliced(problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
           slices: int) -> Kernel:
    """A 1×1 kernel: for each of at least two slices all tiles of pixels, for each of them all block rows."""
    pixels, block_rows = problem.height * problem.width, encoded.pattern.block_rows
    blocks, cut = in_slices(encoded, slices), cut_pixels(pixels, tile, unit)
    sharing = share_pixels(problem, encoded, cut, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(blocks, buffers.constants, unit)

        def emit_share(runs: dict[str, Run]) -> None:
            def emit_job(image: Expr, group: Expr) -> None:
                first_input = image * problem.in_channels + group * encoded.pattern.in_channels

                def emit_slice(number: Expr, begins: bool, ends: bool) -> None:
                    base = (first_input + number * blocks.slice_channels) * pixels
                    source = Source(buffers.x, base, pixels, constant=True)
                    write = _writer(buffers.output, begins, ends)

                    def emit_tile(shape: PixelTile, start: Expr) -> None:
                        def emit_run(run: Channels) -> None:
                            target = planes(write, (image * problem.out_channels + run.start) * pixels, pixels)
                            run = replace(run, row=number * block_rows + run.row)
                            first = None if begins else zero_start(run, unit)
                            sum_tile(rows, source, run, shape, start, target, first)

                        rows.each_row(group, emit_run, runs.get(ROWS))

                    each_tile(cut, emit_tile, runs.get(TILES))

                _each_slice(slices, emit_slice)

            each_job((problem.batch, problem.groups), runs.get(JOBS), emit_job)

        sharing.along((JOBS, TILES, ROWS), emit_share)

    constants = weight_constants(blocks, bias)
    return build("conv_1x1_sliced", problem.input_shape, problem.output_shape, constants, emit, epilogue)


def _each_slice(slices: int, emit: Callable[[Expr, bool, bool], None]) -> None:
    """emit(slice, whether it is the first, whether it is the last)."""
    emit(0, True, False)
    with T.serial(1, slices - 1) as number:
        emit(number, False, False)
    emit(slices - 1, False, True)


def _writer(output: Output, begins: bool, ends: bool) -> Callable[[Expr, Expr, int], None]:
    """Adds a slice's sums to y: the first slice's are the first there, the last one's finish them."""

    def write(index: Expr, value: Expr, lanes: int) -> None:
        if not begins:
            value = value + load(output.y, index, lanes)
        if ends:
            output.store(index, value, lanes)
        else:
            store(output.y, index, value, lanes)

    return write
