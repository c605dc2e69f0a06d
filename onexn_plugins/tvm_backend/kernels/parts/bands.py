"""Bands of output rows over padded scratch images: what is packed, how threads share it, how rows are stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Output
from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    alloc_running_over,
    channel_stride,
    each_strip,
    load,
    store,
)
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import COPY, Run, Sharing, share_bands
from onexn_plugins.tvm_backend.kernels.parts.sums import Start, StoreSums, each_tile, sum_tile
from onexn_plugins.tvm_backend.kernels.parts.tiling import Cut
from onexn_plugins.tvm_backend.kernels.parts.window import Window, band_start, pack_channels, window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


def upright(problem: Conv) -> Conv:
    """The same problem for images of one row as one for images of one column: the memory is the same, and bands can be
    cut along it."""
    top, left, bottom, right = problem.padding
    if problem.height > 1 or problem.kernel[0] > 1 or problem.stride[0] > 1 or top or bottom or problem.width == 1:
        return problem
    return replace(problem, height=problem.width, width=1, kernel=problem.kernel[::-1], stride=problem.stride[::-1],
                   padding=(left, top, right, bottom), dilation=problem.dilation[::-1])


def packed_source(window: Window, x: Buffer, inputs: Expr, count: int, unit: VectorUnit, shared: bool,
                  first_row: Expr = 0, listed: Buffer | None = None) -> Source:
    """`count` input channels of a band, packed into scratch that vectors may run over; threads may share that.

    `listed`: see Source.
    """
    scratch = alloc_running_over(count * window.size, unit.lanes)
    pack_channels(window, x, inputs, count, scratch, first_row, unit, shared=shared)
    return Source(scratch, 0, window.size, window.taps, listed=listed)


def pixels_of(window: Window, x: Buffer, inputs: Expr, count: int, unit: VectorUnit, shared: bool) -> Source:
    """A group's input channels: x itself where pixels map one to one, else packed scratch; threads may share it."""
    problem = window.problem
    if problem.is_pointwise:
        pixels = problem.height * problem.width
        return Source(x, inputs * pixels, pixels, constant=True)
    return packed_source(window, x, inputs, count, unit, shared)


def share_windows(problem: Conv, encoded: Encoded, unit: VectorUnit,
                  budget: int | None = None) -> tuple[Window, Sharing]:
    """The bands and how threads share them: each takes bands that it packs itself, or all take rows of each band.

    `budget`: bytes for a packed band; by default half of the second cache, the other half being for weights.
    """
    window = window_for(problem, problem.in_channels // problem.groups, budget or unit.second_cache // 2)
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


def band_rows(problem: Conv, unit: VectorUnit) -> int:
    """Output rows of a band where threads take one each."""
    return -(-problem.out_height // unit.threads)


def each_band(window: Window, emit: Callable[[Expr | None], None], run: Run) -> None:
    """Emit code for every band of an image, or those of a run, given its first output row; None for a whole image."""
    count = band_start(window, 0)[0]
    if count == 1:
        emit(None)
        return
    first, last = (0, count) if run is None else run
    with T.serial(0, last - first) as index:
        emit(band_start(window, first + index)[1])


def padded_stride(window: Window, unit: VectorUnit) -> int:
    """Values between two channels of scratch that takes a band's positions in whole vectors."""
    return (window.positions // unit.lanes + 1) * unit.lanes


def sum_run(rows: BlockRows, source: Source, run: Channels, cut: Cut, target: StoreSums,
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


def is_aligned(pixels: int, unit: VectorUnit) -> bool:
    """Whether channels of so many pixels begin at whole vectors, so that in place no vector crosses cache lines."""
    return pixels % unit.lanes == 0


def aligned(seen: Source, channels: int, pixels: int, unit: VectorUnit) -> Source:
    """A copy of some channels' pixels, each channel at whole vectors; `seen` begins with the first of them."""
    stride = channel_stride(pixels, unit.lanes)
    copied = T.alloc_buffer((channels * stride,), "float32", scope="global")
    with T.serial(0, channels) as channel:
        each_strip(pixels, unit.lanes, lambda position, lanes: store(
            copied, channel * stride + position,
            load(seen.buffer, seen.base + channel * seen.channel_stride + position, lanes), lanes))
    return Source(copied, 0, stride)
