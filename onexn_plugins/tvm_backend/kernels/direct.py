"""A 1×N convolution that writes each hidden row straight into the window its depthwise convolution reads.

Nothing is packed: padding is written once and the hidden rows of one block row after another go between it. Under a
horizontal stride of 2 a vector of pixels is split into its even and odd ones, each for its own phase.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.problem import Conv, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.spatial import sum_run
from onexn_plugins.tvm_backend.kernels.sums import Start, Target
from onexn_plugins.tvm_backend.kernels.tiling import Cut, channels_at_once, cut_pixels, tile_pixels
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, pieces, shuffle, store
from onexn_plugins.tvm_backend.kernels.window import Window

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


def cut_rows(depthwise: Conv, tile: Tile, unit: VectorUnit) -> Cut:
    """As cut_row; but two rows, where they follow each other in the input and are one tile that costs less than two.

    Not on ARM: where rows fill its vectors, which are short, two cost as much as one and one.
    """
    row, both = cut_row(depthwise, tile, unit), cut_pixels(2 * depthwise.width, tile, unit)
    if unit.fused_weights or depthwise.stride[1] > 1 or depthwise.height % 2 or both.repeats:
        return row
    channels = channels_at_once(tile.block_size, unit)
    cheaper = sum(tile_pixels(both, channels, unit)) < 2 * sum(tile_pixels(row, channels, unit))
    return both if cheaper else row


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
        cut: tiles of a row, or of two, which the input then has one after the other.
        windows: from `base` on the windows of a run's channels, one after the other; padding is there already.
        base: see windows.
        activate: finishes a vector of sums of so many lanes.
        start: what sums begin with, as sum_tile's `first`; it stands before `base`.
        first_row: first output row of the window; None where it is for all rows.
    """
    first, last, above = _hidden_rows(window, first_row)
    together = cut.pixels // window.problem.width
    with T.serial(first, last if together == 1 else last // together) as index:
        row = first + last - 1 - index if start else index * together  # downwards: see written_out_bias
        line = replace(source, base=source.base + row * row_stride)
        target = _rows_target(window, windows, base, row + above, together, activate)
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


def _rows_target(window: Window, windows: Buffer, base: int, row: Expr, count: int,
                 activate: Callable[[Expr, int], Expr]) -> Target:
    """Writes the pixels of rows that follow each other, those of a vector that spans two in parts."""
    width = window.problem.width
    targets = [_row_target(window, windows, base, row + index, activate) for index in range(count)]

    def write(channel: int, pixel: int, value: Expr, lanes: int) -> None:
        index, column = divmod(pixel, width)
        inside = min(lanes, width - column)
        if inside == lanes:
            targets[index](channel, column, value, lanes)
            return
        first = 0
        for part in [*pieces(inside, lanes), *pieces(lanes - inside, lanes)]:
            index, column = divmod(pixel + first, width)
            targets[index](channel, column, shuffle([value], list(range(first, first + part))), part)
            first += part

    return targets[0] if count == 1 else write


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
