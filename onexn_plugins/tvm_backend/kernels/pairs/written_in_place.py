"""A 1×N convolution that writes each hidden row straight into the window its depthwise convolution reads.

Nothing is packed: padding is written once and the hidden rows of one block row after another go between it. Under a
horizontal stride of 2 a vector of pixels is split into its even and odd ones, each for its own phase.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import sum_channel
from onexn_plugins.tvm_backend.kernels.channelwise.sliding import row_alignment
from onexn_plugins.tvm_backend.kernels.code.activation import activate
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, fill, shuffle, store
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.pairs.projection import Destination, Projection
from onexn_plugins.tvm_backend.kernels.parts.bands import pixels_of, sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import BANDS, JOBS, ROWS, Run, Sharing, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import Start, Target, bias_pixels, written_out_bias
from onexn_plugins.tvm_backend.kernels.parts.tiling import Cut, channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Window, band_start
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Share of the lanes of its vectors that a row must fill: sums that cross rows leave no lane idle.
_FILL = 0.85


def is_direct(depthwise: Conv, unit: VectorUnit) -> bool:
    """Whether hidden rows fill vectors, and every hidden pixel has a place in the window."""
    (rows, columns), (down, right) = depthwise.kernel, depthwise.stride
    top, left, _, _ = depthwise.padding
    vectors = -(-depthwise.width // unit.lanes)
    return (
        right <= 2 and down <= rows and right <= columns and depthwise.dilation == (1, 1)
        and depthwise.width % 4 == 0 and depthwise.width >= _FILL * vectors * unit.lanes
        and depthwise.height + top <= (depthwise.out_height - 1) * down + rows
        and depthwise.width + left <= (depthwise.out_width - 1) * right + columns
    )


def band_rows(depthwise: Conv, unit: VectorUnit) -> int:
    """Output rows of a band where threads take one each."""
    return -(-depthwise.out_height // unit.threads)


def cut_row(depthwise: Conv, tile: Tile, unit: VectorUnit) -> Cut:
    """A hidden row as tiles; where its pixels are to be split, two vectors become two with two shuffles."""
    cut = cut_pixels(depthwise.width, tile, unit)
    return cut.paired() if depthwise.stride[1] == 2 else cut


def direct(problem: Conv, encoded: Encoded, epilogue: Epilogue, window: Window, unit: VectorUnit, tile: Tile,
           sharing: Sharing, dw_epilogue: Epilogue, projection: Projection | None) -> Callable[[Buffers], None]:
    """Hidden rows go straight into the depthwise convolution's windows."""
    group_inputs = problem.in_channels // problem.groups
    channels = channels_at_once(encoded.block_size, unit)
    hidden_window = Window(problem, problem.out_height, row_alignment(unit))
    row_stride = problem.width if problem.is_pointwise else hidden_window.row_stride
    cut = cut_row(window.problem, tile, unit)
    begin = channels * bias_pixels(cut, unit)
    whole = window.rows == window.problem.out_height  # then rows overwrite rows and leave the padding as it is

    def finish(value: Expr, lanes: int) -> Expr:
        return Register(activate(value, epilogue.activation, lanes, unit), lanes).value

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def pad(windows: Buffer) -> None:
            fill(windows, begin, channels * window.size, 0.0, unit.lanes)

        def new_windows() -> Buffer:
            windows = T.alloc_buffer((begin + channels * window.size,), "float32", scope="global")
            if whole:
                pad(windows)
            return windows

        def emit_jobs(job_runs: dict[str, Run]) -> None:
            shared = sharing.axis in (ROWS, BANDS)  # then every thread has windows of its own
            job_windows = None if shared else new_windows()

            def emit_job(image: Expr, group: Expr) -> None:
                inputs = image * problem.in_channels + group * group_inputs
                source = pixels_of(hidden_window, buffers.x, inputs, group_inputs, unit, shared)

                def emit_rows(runs: dict[str, Run]) -> None:
                    windows = new_windows() if job_windows is None else job_windows
                    between = projection.scratch(window.rows, unit) if projection else None

                    def emit_band(first_row: Expr | None) -> None:
                        if not whole:
                            pad(windows)
                        start = 0 if first_row is None else first_row
                        target = Destination.of_output(buffers, window.problem, image)
                        if projection:
                            target = projection.takes(buffers, dw_epilogue, between, window.rows, unit)

                        def emit_run(run: Channels) -> None:
                            biases = written_out_bias(rows, run, cut, windows, 0)
                            sum_rows(rows, source, row_stride, run, window, cut, windows, begin, finish, biases,
                                     first_row)
                            with T.serial(0, run.count) as index:
                                place, channel = begin + index * window.size, run.start + index
                                sum_channel(window, windows, place, channel, target.buffers,
                                            target.first(channel, start), unit)

                        rows.each_row(group, emit_run, runs.get(ROWS))
                        if projection:
                            projection.sum_rows(buffers, between, window.rows, image, start, window.rows, unit)

                    each_band(window, emit_band, runs.get(BANDS))

                sharing.along((ROWS, BANDS), emit_rows)

            each_job((problem.batch, problem.groups), job_runs.get(JOBS), emit_job)

        sharing.along((JOBS,), emit_jobs)

    return emit


def each_band(window: Window, emit: Callable[[Expr | None], None], run: Run) -> None:
    """Emit code for every band of an image, or those of a run, given its first output row; None for a whole image."""
    count = band_start(window, 0)[0]
    if count == 1:
        emit(None)
        return
    first, last = (0, count) if run is None else run
    with T.serial(0, last - first) as index:
        emit(band_start(window, first + index)[1])


def sum_rows(rows: BlockRows, source: Source, row_stride: int, run: Channels, window: Window, cut: Cut,
             windows: Buffer, base: int, activate: Callable[[Expr, int], Expr], start: Start | None,
             first_row: Expr | None = None) -> None:
    """Emit a run's hidden rows, those that the window takes, each channel written to its own window.

    Args:
        rows: the convolution's weight.
        source: its input.
        row_stride: values between two rows of the input.
        run: which channels.
        window: of the depthwise convolution.
        cut: tiles of a row.
        windows: from `base` on the windows of a run's channels, one after the other; padding is there already.
        base: see windows.
        activate: finishes a vector of sums of so many lanes.
        start: what sums begin with, as sum_tile's `first`; it stands before `base`.
        first_row: first output row of the window; None where it is for all rows.
    """
    first, last, above = _hidden_rows(window, first_row)
    with T.serial(first, last) as index:
        row = first + last - 1 - index if start else index  # downwards: see written_out_bias
        line = replace(source, base=source.base + row * row_stride)
        target = _row_target(window, windows, base, row + above, activate)
        sum_run(rows, line, run, cut, target, start)


def _hidden_rows(window: Window, first_row: Expr | None) -> tuple[Expr, Expr, Expr]:
    """The first and last hidden row that a window takes, and how many rows lie above row 0 in it."""
    depthwise = window.problem
    top, down, kernel = depthwise.padding[0], depthwise.stride[0], depthwise.kernel[0]
    if first_row is None:
        return 0, depthwise.height, top
    above = top - first_row * down
    taken = (window.rows - 1) * down + kernel
    return tirx.max(0 - above, 0), tirx.min(taken - above, depthwise.height), above


def _row_target(window: Window, windows: Buffer, base: int, row: Expr,
                activate: Callable[[Expr, int], Expr]) -> Target:
    """Writes the pixels of a row; `row` counts padded rows."""
    (down, right), left = window.problem.stride, window.problem.padding[1]

    def row_start(column_phase: int) -> Expr:
        start: Expr = window.phases[0, column_phase].base
        for row_phase in range(1, down):
            start = tirx.Select(tirx.truncmod(row, down) == row_phase, window.phases[row_phase, column_phase].base,
                                start)
        return base + start + tirx.truncdiv(row, down) * window.row_stride

    starts = [row_start(column_phase) for column_phase in range(right)]

    def write(channel: int, pixel: Expr, value: Expr, lanes: int) -> None:
        finished = activate(value, lanes)
        if lanes < right:  # a single pixel, at a place known here, has a place in one phase alone
            phase, place = (pixel + left) % right, (pixel + left) // right
            store(windows, channel * window.size + starts[phase] + place, finished, 1)
            return
        for first in range(right):
            lane_count, padded = lanes // right, first + left
            place = starts[padded % right] + tirx.truncdiv(pixel, right) + padded // right
            part = finished if right == 1 else shuffle([finished], list(range(first, lanes, right)))
            store(windows, channel * window.size + place, part, lane_count)

    return write
