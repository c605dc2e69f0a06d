"""k×k convolutions (and strided or padded 1×1 ones): bands of output rows over padded scratch images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.function import Buffers, Output, build
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.sharing import COPY, JOBS, ROWS, Run, Sharing, each_job, share_bands
from onexn_plugins.tvm_backend.kernels.sums import Start, Target, each_tile, planes, sum_tile
from onexn_plugins.tvm_backend.kernels.tiling import Cut, channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, each_strip, load, store
from onexn_plugins.tvm_backend.kernels.window import Window, band_start, pack_channels, window_for

# Bytes of packed input a band may take: half of a second-level cache of 1 MiB; the other half is for weights.
BAND_BUDGET = 512 * 1024


def spatial(
    problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile
) -> Kernel:
    """A k×k kernel: per band of output rows, pack the input once, then all block rows over all its pixels."""
    group_inputs, out_pixels = problem.in_channels // problem.groups, problem.out_height * problem.out_width
    window, sharing = share_windows(problem, encoded, unit)
    cut = cut_pixels(window.positions, tile, unit, padded=not window.is_compact)
    sums_stride = padded_stride(window, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)
        bands, _ = band_start(window, 0)

        def emit_job(image: Expr, group: Expr, band: Expr) -> None:
            first_row = band_start(window, band)[1]
            inputs = image * problem.in_channels + group * group_inputs
            source = packed_source(window, buffers.x, inputs, group_inputs, unit, sharing.axis == ROWS, first_row)

            def emit_rows(runs: dict[str, Run]) -> None:
                channels = channels_at_once(encoded.block_size, unit)
                sums = T.alloc_buffer((channels * sums_stride,), "float32", scope="global")

                def emit_run(run: Channels) -> None:
                    first = (image * problem.out_channels + run.start) * out_pixels + first_row * problem.out_width
                    if window.is_compact:
                        sum_run(rows, source, run, cut, planes(buffers.output.store, first, out_pixels))
                        return
                    sum_run(rows, source, run, cut, planes(writer(sums), 0, sums_stride))
                    with T.serial(0, run.count) as channel:
                        plane = first + channel * out_pixels
                        store_rows(window, sums, channel * sums_stride, buffers.output, plane, unit)

                rows.each_row(group, emit_run, runs.get(ROWS))

            sharing.along((ROWS,), emit_rows)

        sizes = (problem.batch, problem.groups, bands)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    name = f"conv_{problem.kernel[0]}x{problem.kernel[1]}"
    return build(name, problem.input_shape, problem.output_shape, weight_constants(encoded, bias), emit, unit, epilogue)


def packed_source(window: Window, x: Buffer, inputs: Expr, count: int, unit: VectorUnit, shared: bool,
                  first_row: Expr = 0) -> Source:
    """`count` input channels of a band, packed into scratch that vectors may run over; threads may share that."""
    scratch = T.alloc_buffer((count * window.size + unit.lanes,), "float32", scope="global")
    pack_channels(window, x, inputs, count, scratch, first_row, unit, shared=shared)
    return Source(scratch, 0, window.size, window.taps)


def pixels_of(window: Window, x: Buffer, inputs: Expr, count: int, unit: VectorUnit, shared: bool) -> Source:
    """A group's input channels: x itself where pixels map one to one, else packed scratch; threads may share it."""
    problem = window.problem
    if problem.is_pointwise:
        pixels = problem.height * problem.width
        return Source(x, inputs * pixels, pixels, constant=True)
    return packed_source(window, x, inputs, count, unit, shared)


def share_windows(problem: Conv, encoded: Encoded, unit: VectorUnit) -> tuple[Window, Sharing]:
    """The bands and how threads share them: each takes bands that it packs itself, or all take rows of each band."""
    window = window_for(problem, problem.in_channels // problem.groups, BAND_BUDGET)
    windows = [window]
    if unit.threads > 1:
        heights = [-(-problem.out_height // (unit.threads * times)) for times in (1, 2)]
        windows += [Window(problem, height) for height in heights if height < window.rows]
    choices = [(window, _sharing(problem, encoded, window, unit)) for window in windows]
    return min(choices, key=lambda choice: choice[1].cost)


def _sharing(problem: Conv, encoded: Encoded, window: Window, unit: VectorUnit) -> Sharing:
    pixels = -(-window.positions // unit.lanes) * unit.lanes
    packing = float(problem.in_channels // problem.groups * window.size * COPY)
    return share_bands(problem, encoded, pixels, band_start(window, 0)[0], packing, unit.threads)


def padded_stride(window: Window, unit: VectorUnit) -> int:
    """Values between two channels of scratch that takes a band's positions in whole vectors."""
    return (window.positions // unit.lanes + 1) * unit.lanes


def sum_run(rows: BlockRows, source: Source, run: Channels, cut: Cut, target: Target,
            first: Start | None = None) -> None:
    """Emit the sums of a run of channels over all pixels of a cut."""
    each_tile(cut, lambda tile, start: sum_tile(rows, source, run, tile, start, target, first))


def writer(buffer: Buffer) -> Callable[[Expr, Expr, int], None]:
    """Writes plain vectors to a buffer."""
    return lambda index, value, lanes: store(buffer, index, value, lanes)


def store_rows(window: Window, sums: Buffer, base: Expr, output: Output, first: Expr, unit: VectorUnit) -> None:
    """Finish one channel of a band and leave out the junk between its rows."""
    width = window.problem.out_width
    with T.serial(0, window.rows) as row:

        def emit(column: Expr, lanes: int) -> None:
            value = load(sums, base + row * window.row_stride + column, lanes)
            output.store(first + row * width + column, value, lanes)

        each_strip(width, unit.lanes, emit)
