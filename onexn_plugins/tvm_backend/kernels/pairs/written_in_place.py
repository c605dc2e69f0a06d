"""A 1×N convolution that writes each hidden row straight into the window its depthwise convolution reads.

Nothing is packed: padding is written once and the hidden rows of one block row after another go between it. Under a
horizontal stride of 2 a vector of pixels is split into its even and odd ones, each for its own phase.
"""

from __future__ import annotations

from dataclasses import replace

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import sum_channel
from onexn_plugins.tvm_backend.kernels.channelwise.sliding import anchors, row_alignment
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, fill, shuffle, store
from onexn_plugins.tvm_backend.kernels.pairs.geometry import why_not_in_place, why_not_projected, why_not_unpadded
from onexn_plugins.tvm_backend.kernels.pairs.pair import Pair, why_not_pair
from onexn_plugins.tvm_backend.kernels.pairs.projection import Destination
from onexn_plugins.tvm_backend.kernels.parts.bands import band_rows, each_band, pixels_of, sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import BANDS, JOBS, ROWS, Run, Sharing, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import StoreSums, bias_pixels, written_out_bias
from onexn_plugins.tvm_backend.kernels.parts.tiling import Cut, channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Window, window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv, Kernel, Tile
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Bytes of the windows of the channels summed at once that stay in a first cache of 32 KiB beside what is summed, and
# multiply-adds of a hidden pixel up to which it pays that neighbouring bands both sum the rows they share: pairs of
# MobileNetV2 at 112×112 are then 1.15 to 1.5 times faster, at 56×56 up to 1.3 times; dense ones would lose 4 %.
_WINDOWS_BUDGET, _FEW_MACS = 20 * 1024, 12
# Bytes of a band's output that a projection reads: a quarter of a second-level cache of 2 MiB.
_PROJECTED_BUDGET = 512 * 1024


def why_not_written_in_place(request: Request) -> str | None:
    """None where hidden rows fill vectors; a projection is computed where its own conditions hold, too."""
    first, second = request.stages[:2]
    refused = why_not_pair(request) or why_not_projected(request) or why_not_in_place(second.conv, request.unit)
    if refused or len(request.stages) == 2:
        return refused
    unpadded = why_not_unpadded(first.conv, second.conv, request.unit) is None
    return "hidden rows do not fill vectors, or are few enough to be read unpadded" if unpadded else None


def written_in_place(request: Request) -> Kernel:
    """The kernel of a pair, or of a pair and its projection."""
    emitter = _Emitter(Pair(request))
    return emitter.pair.kernel(emitter.pair.name, emitter.emit, anchors(emitter.window, request.unit))


def cut_row(depthwise: Conv, tile: Tile, unit: VectorUnit) -> Cut:
    """A hidden row as tiles; where its pixels are to be split, two vectors become two with two shuffles."""
    cut = cut_pixels(depthwise.width, tile, unit)
    return cut.paired() if depthwise.stride[1] == 2 else cut


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.unit, self.depthwise = pair, pair.unit, pair.depthwise
        height = _cached_rows(pair) or band_rows(self.depthwise, self.unit)
        self.sharing = pair.sharing((-(-self.depthwise.out_height // height), height))
        # What is written and read most should not cross cache lines.
        self.window = Window(self.depthwise, _rows(pair, self.sharing), self.unit.lanes)
        self.channels = channels_at_once(pair.encoded.block_size, self.unit)
        self.cut = cut_row(self.depthwise, pair.tile, self.unit)
        self.begin = self.channels * bias_pixels(self.cut, self.unit)  # where windows begin
        # Then rows overwrite rows and leave the padding as it is.
        self.whole = self.window.rows == self.depthwise.out_height
        self.shared = self.sharing.axis in (ROWS, BANDS)  # then every thread has windows of its own

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel."""
        self.buffers, self.rows = buffers, self.pair.rows(buffers)
        self.sharing.along((JOBS,), self._jobs)

    def _jobs(self, runs: dict[str, Run]) -> None:
        """A thread's images and groups."""
        windows = None if self.shared else self._new_windows()
        sizes = (self.pair.problem.batch, self.pair.problem.groups)
        each_job(sizes, runs.get(JOBS), lambda image, group: self._job(image, group, windows))

    def _job(self, image: Expr, group: Expr, windows: Buffer | None) -> None:
        """A group of an image."""
        pair = self.pair
        hidden = Window(pair.problem, pair.problem.out_height, row_alignment(self.unit))
        source = pixels_of(hidden, self.buffers.x, pair.inputs(image, group), pair.group_inputs, self.unit, self.shared)
        row_stride = pair.problem.width if pair.problem.is_pointwise else hidden.row_stride
        self.sharing.along((ROWS, BANDS), lambda runs: self._share(image, group, source, row_stride, windows, runs))

    def _share(self, image: Expr, group: Expr, source: Source, row_stride: int, windows: Buffer | None,
               runs: dict[str, Run]) -> None:
        """A thread's block rows or bands."""
        own = self._new_windows() if windows is None else windows
        projection = self.pair.projection
        between = projection.scratch(self.window.rows, self.unit) if projection else None
        each_band(self.window, lambda first_row: self._band(
            image, group, source, row_stride, own, between, runs.get(ROWS), first_row), runs.get(BANDS))

    def _band(self, image: Expr, group: Expr, source: Source, row_stride: int, windows: Buffer, between: Buffer | None,
              block_rows: Run, first_row: Expr | None) -> None:
        """All block rows over a band, and its projection."""
        unit, projection = self.unit, self.pair.projection
        if not self.whole:
            self._pad(windows)
        start = 0 if first_row is None else first_row
        target = Destination.of_output(self.buffers, self.depthwise, image)
        if projection and between is not None:
            target = projection.takes(self.buffers, self.pair.dw_epilogue, between, self.window.rows, unit)

        def emit_run(run: Channels) -> None:
            self._hidden_rows(source, row_stride, run, windows, first_row)
            with T.serial(0, run.count) as index:
                place, channel = self.begin + index * self.window.size, run.start + index
                sum_channel(self.window, windows, place, channel, target.buffers, target.first(channel, start), unit)

        self.rows.each_row(group, emit_run, block_rows)
        if projection and between is not None:
            projection.sum_rows(self.buffers, between, self.window.rows, image, start, self.window.rows, unit)

    def _hidden_rows(self, source: Source, row_stride: int, run: Channels, windows: Buffer,
                     first_row: Expr | None) -> None:
        """A run's hidden rows, those that the window takes, each channel written to its own window."""
        start = written_out_bias(self.rows, run, self.cut, windows, 0)
        first, last, above = _taken_rows(self.window, first_row)
        with T.serial(first, last) as index:
            row = first + last - 1 - index if start else index  # downwards: see written_out_bias
            line = replace(source, base=source.base + row * row_stride)
            sum_run(self.rows, line, run, self.cut, self._row_target(windows, row + above), start)

    def _row_target(self, windows: Buffer, row: Expr) -> StoreSums:
        """Writes the pixels of a row; `row` counts padded rows."""
        window, (down, right), left = self.window, self.depthwise.stride, self.depthwise.padding[1]

        def row_start(column_phase: int) -> Expr:
            start: Expr = window.phases[0, column_phase].base
            for row_phase in range(1, down):
                start = tirx.Select(tirx.truncmod(row, down) == row_phase, window.phases[row_phase, column_phase].base,
                                    start)
            return self.begin + start + tirx.truncdiv(row, down) * window.row_stride

        starts = [row_start(column_phase) for column_phase in range(right)]

        def write(channel: int, pixel: Expr, value: Expr, lanes: int) -> None:
            finished = Register(self.pair.finish(value, lanes), lanes).value
            if lanes < right:  # a single pixel has a place in one phase alone
                assert isinstance(pixel, int), "its place is known here"
                phase, place = (pixel + left) % right, (pixel + left) // right
                store(windows, channel * window.size + starts[phase] + place, finished, 1)
                return
            for first in range(right):
                lane_count, padded = lanes // right, first + left
                place = starts[padded % right] + tirx.truncdiv(pixel, right) + padded // right
                part = finished if right == 1 else shuffle([finished], list(range(first, lanes, right)))
                store(windows, channel * window.size + place, part, lane_count)

        return write

    def _new_windows(self) -> Buffer:
        windows = T.alloc_buffer((self.begin + self.channels * self.window.size,), "float32", scope="global")
        if self.whole:
            self._pad(windows)
        return windows

    def _pad(self, windows: Buffer) -> None:
        fill(windows, self.begin, self.channels * self.window.size, 0.0, self.unit.lanes)


def _rows(pair: Pair, sharing: Sharing) -> int:
    """Output rows of a band: all of them, unless the cache holds fewer or threads take bands."""
    bands = band_rows(pair.depthwise, pair.unit) if sharing.axis == BANDS else pair.depthwise.out_height
    return _cached_rows(pair) or bands


def _cached_rows(pair: Pair) -> int | None:
    """Output rows of a band whose windows the first cache holds, or whose output for a projection the second; None
    where bands do not pay."""
    depthwise, encoded, unit = pair.depthwise, pair.encoded, pair.unit
    macs = encoded.density * encoded.pattern.in_channels * encoded.taps
    if unit.measured.cached_bands and macs <= _FEW_MACS:
        budget = _WINDOWS_BUDGET // channels_at_once(encoded.block_size, unit)
        rows = window_for(depthwise, 1, budget, unit.lanes).rows
    elif pair.projection:
        most = max(1, _PROJECTED_BUDGET // (4 * depthwise.out_channels * depthwise.out_width))
        rows = -(-depthwise.out_height // -(-depthwise.out_height // most))
    else:
        return None
    return min(rows, band_rows(depthwise, unit))


def _taken_rows(window: Window, first_row: Expr | None) -> tuple[Expr, Expr, Expr]:
    """The first and last hidden row that a window takes, and how many rows lie above row 0 in it."""
    depthwise = window.problem
    top, down, kernel = depthwise.padding[0], depthwise.stride[0], depthwise.kernel[0]
    if first_row is None:
        return 0, depthwise.height, top
    above = top - first_row * down
    taken = (window.rows - 1) * down + kernel
    return tirx.max(0 - above, 0), tirx.min(taken - above, depthwise.height), above
