"""A stem (a 3×3 convolution of stride 2 over few channels) by Winograd's algorithm, and the depthwise one after it.

F(2×2, 3×3) on the four phases of the image takes 25 multiplications where a direct sum takes 36, and its factors are
all ±1. Hidden rows come in bands as high as a strip of tiles; every channel has a window of its own, which keeps the
two rows that the next band's depthwise sums read too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import sum_channel
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import LINE, Buffer, Expr, each_strip, fill, load, prefetch, store
from onexn_plugins.tvm_backend.kernels.pairs.geometry import why_not_projected
from onexn_plugins.tvm_backend.kernels.pairs.pair import Pair, why_not_pair
from onexn_plugins.tvm_backend.kernels.pairs.projection import Destination
from onexn_plugins.tvm_backend.kernels.pairs.stem_sums import StripSums
from onexn_plugins.tvm_backend.kernels.pairs.stem_tiles import (
    OUTPUTS,
    STRIDE,
    STRIP_ROWS,
    VECTORS,
    strip_points,
    strips,
    transform_band,
)
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels
from onexn_plugins.tvm_backend.kernels.parts.window import Window
from onexn_plugins.tvm_backend.kernels.problem import Conv, Kernel
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd.kernel import WOULD_SPREAD, transformed

# Hidden rows that a band shares with the next one: those above and below its last output row.
_KEPT = 2
# Input channels up to which this was measured to be faster; their points should stay in the second-level cache.
_MOST_CHANNELS = 4


def why_not_stem(request: Request) -> str | None:
    """None where strips of tiles cover the hidden image, and registers hold their sums."""
    (first, second), unit = request.stages[:2], request.unit
    problem, depthwise = first.conv, second.conv
    if unit.strict:
        return WOULD_SPREAD
    if not unit.measured.stems or unit.threads > 1:
        return "stems have a kernel for one thread of AVX-512"
    fits = (
        (problem.kernel, problem.stride, problem.dilation) == ((3, 3), (STRIDE, STRIDE), (1, 1))
        and problem.groups == 1 and problem.in_channels <= _MOST_CHANNELS and problem.padding[1] == 1
        and (depthwise.kernel, depthwise.stride, depthwise.dilation) == ((3, 3), (1, 1), (1, 1))
        and depthwise.padding == (1, 1, 1, 1)
        and problem.out_height % STRIP_ROWS == 0 and problem.out_width % unit.lanes == 0
    )
    if not fits:
        return (f"no 3×3 convolution of stride {STRIDE} over up to {_MOST_CHANNELS} channels with a 3×3 depthwise one "
                f"after it, whose images strips of {STRIP_ROWS}×{unit.lanes} pixels cover")
    return why_not_pair(request) or why_not_projected(request)


def stem_method(request: Request) -> str:
    """Its algorithm in words."""
    return strip_points(request.first.conv, request.unit).method


def stem(request: Request) -> Kernel:
    """The kernel of a pair, or of a pair and its projection."""
    pair, unit, lanes = Pair(request), request.unit, request.unit.lanes
    problem, depthwise, tile, projection = pair.problem, pair.depthwise, pair.tile, pair.projection
    points = strip_points(problem, unit)
    encoded = transformed(points, request.first.array, tile.block_size, request.first.keeps_all)
    window = Window(depthwise, STRIP_ROWS + 1, lanes)  # the last row is of zeros, below the image
    across = strips(problem, unit)
    turns = across * encoded.pattern.block_rows
    begin = -(-encoded.values.size // lanes) * lanes

    def emit(buffers: Buffers) -> None:
        windows = T.alloc_buffer((begin + problem.out_channels * window.size,), "float32", scope="global")
        # LLVM would keep weights that nothing overwrites in registers from strip to strip, more than there are.
        if encoded.num_blocks:
            _copy(buffers.constants["values"], 0, windows, 0, encoded.values.size, unit)
        rows = BlockRows(encoded, buffers.constants | {"values": windows}, unit, VECTORS * OUTPUTS)
        sums = StripSums.allocate(points, rows, tile.block_size, across)
        between = projection.scratch(STRIP_ROWS + 1, unit) if projection else None

        def emit_band(image: Expr, band: Expr) -> None:
            transform_band(points, buffers.x, image, band * STRIP_ROWS, sums.source, unit)
            target = Destination.of_output(buffers, depthwise, image)
            if projection and between is not None:
                target = projection.takes(buffers, pair.dw_epilogue, between, STRIP_ROWS + 1, unit)

            def emit_run(run: Channels) -> None:
                first = begin + run.start * window.size
                with T.serial(0, across) as strip:
                    def write(channel: int, row: int, value: Expr) -> None:
                        place = first + channel * window.size + (_KEPT + row) * window.row_stride
                        store(windows, place + _first_pixel(window) + strip * lanes, value, lanes)

                    _fetch_input(problem, buffers.x, image, band + 1, run.row * across + strip, turns)
                    for channel in range(run.count if projection is None else 0):
                        _fetch_output(depthwise, buffers.output.y, image, run.start + channel, band, strip, across)
                    sums.emit(run, strip, pair.finish, write)
                with T.serial(0, run.count) as channel:
                    place = first + channel * window.size
                    _sum_band(window, windows, place, run.start + channel, band, target, unit)
                    kept = (_KEPT - 1) * window.row_stride + depthwise.width
                    place = place + _first_pixel(window)
                    _copy(windows, place + STRIP_ROWS * window.row_stride, windows, place, kept, unit)

            rows.each_row(0, emit_run)
            if projection and between is not None:
                _each_part(depthwise, band, lambda first, count, _, in_band: projection.sum_rows(
                    buffers, between, STRIP_ROWS + 1, image, first, count, unit, in_band))

        with T.serial(0, problem.batch) as image:
            fill(windows, begin, problem.out_channels * window.size, 0.0, lanes)
            with T.serial(0, problem.out_height // STRIP_ROWS) as band:
                emit_band(image, band)

    kernel = pair.kernel(f"winograd_{OUTPUTS}x{OUTPUTS}_3x3_depthwise", emit, encoded=encoded)
    return replace(kernel, method=points.method)


def _first_pixel(window: Window) -> int:
    """Where the first row of a channel's window has its first pixel."""
    return window.phases[0, 0].base + window.problem.padding[1]


def _sum_band(window: Window, windows: Buffer, place: Expr, channel: Expr, band: Expr, target: Destination,
              unit: VectorUnit) -> None:
    """The depthwise sums of one channel, whose window is at `place`, in all rows that have their hidden rows now."""

    def emit(first: Expr, count: int, row: int, in_band: int) -> None:
        sum_channel(Window(window.problem, count, window.alignment), windows, place + row * window.row_stride, channel,
                    target.buffers, target.first(channel, first, in_band), unit)

    _each_part(window.problem, band, emit)


def _each_part(depthwise: Conv, band: Expr, emit: Callable[[Expr, int, int, int], None]) -> None:
    """Emit code for the output rows that have their hidden rows once a band has.

    emit(first of them, how many, the row of the window where their hidden rows begin, how many such rows come before).
    """
    with T.If(band == 0):
        with T.Then():
            emit(0, STRIP_ROWS - 1, 1, 0)
        with T.Else():
            emit(band * STRIP_ROWS - 1, STRIP_ROWS, 0, 0)
    with T.If((band + 1) * STRIP_ROWS == depthwise.out_height), T.Then():
        emit(depthwise.out_height - 1, 1, STRIP_ROWS, min(STRIP_ROWS, depthwise.out_height - 1))


def _fetch_input(problem: Conv, x: Buffer, image: Expr, band: Expr, turn: Expr, turns: int) -> None:
    """Ask for a turn's share of what a band reads."""
    rows = STRIP_ROWS * STRIDE
    for channel in range(problem.in_channels):
        row = (image * problem.in_channels + channel) * problem.height + band * rows
        for place in _lines(row * problem.width, rows * problem.width, turn, turns):
            prefetch(x, place)


def _fetch_output(depthwise: Conv, y: Buffer, image: Expr, channel: Expr, band: Expr, turn: Expr, turns: int) -> None:
    """Ask for a turn's share of about what a band writes in one channel."""
    row = (image * depthwise.out_channels + channel) * depthwise.out_height + band * STRIP_ROWS
    for place in _lines(row * depthwise.out_width, STRIP_ROWS * depthwise.out_width, turn, turns):
        prefetch(y, place, to_write=True)


def _lines(first: Expr, count: int, turn: Expr, turns: int) -> list[Expr]:
    """A turn's share of the cache lines that hold `count` values from `first` on."""
    lines = -(-count // (turns * LINE))
    return [first + (turn * lines + line) * LINE for line in range(lines)]


def _copy(source: Buffer, start: Expr, target: Buffer, place: Expr, count: int, unit: VectorUnit) -> None:
    """Copy `count` values."""
    each_strip(count, unit.lanes, lambda position, lanes: store(
        target, place + position, load(source, start + position, lanes), lanes))
