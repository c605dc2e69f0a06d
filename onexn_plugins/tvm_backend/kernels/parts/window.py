"""Padded scratch images: every tap of a k×k kernel becomes a constant offset over flat runs of pixels.

A channel is copied into *phases*: phase (v, h) holds the padded pixels (i * stride_v + v, j * stride_h + h), so that
the output pixels of any stride read consecutive values. Rows of all phases have the same `row_stride`, and output
pixel (y, x) reads, under tap (ky, kx), position y * row_stride + x of its phase plus a constant. Zero columns on the
right of a row double as those on the left of the next, so that at 3×3 a row is only one value longer than the image.
Positions y * row_stride + x with x >= out_width are junk between rows; they are computed with the others and dropped.

A window covers a *band* of output rows, so that scratch stays in the cache and bands can be worked on independently.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    constant,
    each_strip,
    fill,
    load,
    shuffle,
    store,
)
from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


@dataclass(frozen=True)
class Phase:
    """Which pixels a phase holds.

    Attributes:
        row, column: offsets (v, h) of its pixels in the padded image.
        base: where it starts in the scratch of its channel.
        rows: its rows.
        width: values of a row that output pixels read; beyond row_stride they are the next row's zeros.
    """

    row: int
    column: int
    base: int
    rows: int
    width: int


@dataclass(frozen=True)
class Window:
    """Layout of the scratch of one channel for a band of `rows` output rows of a convolution.

    With an `alignment` the first pixel of every row lies at a multiple of so many values.
    """

    problem: Conv
    rows: int
    alignment: int = 1

    @cached_property
    def row_stride(self) -> int:
        return self._aligned(max(width - self._shared_zeros(column, width) for column, width in self._widths.items()))

    @cached_property
    def phases(self) -> dict[tuple[int, int], Phase]:
        """The phases some tap reads, by (row, column)."""
        found, base = {}, 0
        for row, rows in self.heights.items():
            for column, width in self._widths.items():
                base += -self.image_columns(column, width)[0] % self.alignment
                found[row, column] = Phase(row, column, base, rows, width)
                base = self._aligned(base + rows * self.row_stride + max(0, width - self.row_stride))
        return found

    @cached_property
    def size(self) -> int:
        """Values of one channel."""
        last = list(self.phases.values())[-1]
        return self._aligned(last.base + last.rows * self.row_stride + max(0, last.width - self.row_stride))

    def _aligned(self, count: int) -> int:
        return -(-count // self.alignment) * self.alignment

    @cached_property
    def taps(self) -> tuple[int, ...]:
        """Offset of each tap's value for output position 0, row-major."""
        return tuple(
            self.phases[vertical % self.problem.stride[0], horizontal % self.problem.stride[1]].base
            + vertical // self.problem.stride[0] * self.row_stride + horizontal // self.problem.stride[1]
            for vertical in self._tap_rows for horizontal in self._tap_columns
        )

    @property
    def positions(self) -> int:
        """Flat output positions of the band, junk between rows included."""
        return (self.rows - 1) * self.row_stride + self.problem.out_width

    @property
    def is_compact(self) -> bool:
        """No junk between rows: positions are output pixels."""
        return self.row_stride == self.problem.out_width

    @property
    def is_column(self) -> bool:
        """Images are one pixel wide and not padded beside it."""
        _, left, _, right = self.problem.padding
        return (self.problem.width, self.problem.kernel[1], left, right, self.row_stride) == (1, 1, 0, 0, 1)

    @property
    def _tap_rows(self) -> list[int]:
        return [tap * self.problem.dilation[0] for tap in range(self.problem.kernel[0])]

    @property
    def _tap_columns(self) -> list[int]:
        return [tap * self.problem.dilation[1] for tap in range(self.problem.kernel[1])]

    @property
    def heights(self) -> dict[int, int]:
        """Rows of each used row phase."""
        stride = self.problem.stride[0]
        return {row: self.rows + reach for row, reach in _reach(self._tap_rows, stride).items()}

    @property
    def _widths(self) -> dict[int, int]:
        """Values per row of each used column phase."""
        stride = self.problem.stride[1]
        return {column: self.problem.out_width + reach for column, reach in _reach(self._tap_columns, stride).items()}

    def image_columns(self, column: int, width: int) -> tuple[int, int]:
        """Which of a phase row's first `width` values are image pixels: [start, stop); the others are padding."""
        stride, left = self.problem.stride[1], self.problem.padding[1]
        start = max(0, -(-(left - column) // stride))
        stop = (self.problem.width - 1 + left - column) // stride + 1
        return min(start, width), max(min(start, width), min(stop, width))

    def _shared_zeros(self, column: int, width: int) -> int:
        start, stop = self.image_columns(column, width)
        return min(start, width - stop) if start < stop else 0


class TileWindow(Window):
    """The scratch of a band of tiles: columns under every tap are kept apart, so that no row holds junk.

    Taps of a column that others read too are stored twice; a narrow image then fills its vectors across rows.
    """

    @cached_property
    def row_stride(self) -> int:
        return self.problem.out_width

    @property
    def _widths(self) -> dict[int, int]:
        return dict.fromkeys(self._tap_columns, self.problem.out_width)

    @cached_property
    def taps(self) -> tuple[int, ...]:
        stride = self.problem.stride[0]
        return tuple(
            self.phases[vertical % stride, column].base + vertical // stride * self.row_stride
            for vertical in self._tap_rows for column in self._tap_columns
        )


def window_for(problem: Conv, channels: int, budget: int, alignment: int = 1) -> Window:
    """The tallest band whose scratch for all channels stays within `budget` bytes; bands are about equal."""
    rows = problem.out_height
    while rows > 1 and 4 * channels * Window(problem, rows, alignment).size > budget:
        bands = -(-problem.out_height // rows) + 1
        rows = min(rows - 1, -(-problem.out_height // bands))
    return Window(problem, rows, alignment)


def band_start(window: Window, band: Expr) -> tuple[int, Expr]:
    """(number of bands, first output row of one); the last band is moved up to end with the image."""
    bands = -(-window.problem.out_height // window.rows)
    last = window.problem.out_height - window.rows
    return bands, tirx.min(band * window.rows, last) if last % window.rows else band * window.rows


@dataclass(frozen=True)
class Image:
    """A channel in memory: pixel (y, x) is buffer[base + y * row_stride + x]."""

    buffer: Buffer
    base: Expr
    row_stride: int


def pack(window: Window, image: Image, scratch: Buffer, base: Expr, first_row: Expr, unit: VectorUnit,
         padding: float = 0.0) -> None:
    """Copy what the band from output row `first_row` on reads of a channel into its scratch at `base`."""

    def emit_row(phase: Phase, y: Expr, target: Expr) -> None:
        _pad_row(window, phase, scratch, target, unit, padding)
        _copy_row(window, phase, image, y, scratch, target, unit)

    _each_row(window, scratch, base, first_row, unit, padding, emit_row)


def pad(window: Window, scratch: Buffer, base: Expr, first_row: Expr, unit: VectorUnit) -> None:
    """Write the zeros that pack writes beside pixels, and nothing else."""

    def emit_row(phase: Phase, _: Expr, target: Expr) -> None:
        _pad_row(window, phase, scratch, target, unit, 0.0)

    _each_row(window, scratch, base, first_row, unit, 0.0, emit_row)


def _each_row(window: Window, scratch: Buffer, base: Expr, first_row: Expr, unit: VectorUnit, padding: float,
              emit: Callable[[Phase, Expr, Expr], None]) -> None:
    """Emit code for the image rows of a band: emit(phase, row of the image, where it belongs in the scratch); rows
    above and below the image, and what follows the last row, are padded.
    """
    problem = window.problem
    for row_phase, rows in window.heights.items():
        phases = [phase for phase in window.phases.values() if phase.row == row_phase]
        with T.serial(0, rows) as row:
            y = (first_row + row) * problem.stride[0] + (row_phase - problem.padding[0])
            targets = [base + phase.base + row * window.row_stride for phase in phases]
            with T.If(tirx.all(y >= 0, y < problem.height)):
                with T.Then():
                    for phase, target in zip(phases, targets, strict=True):
                        emit(phase, y, target)
                with T.Else():
                    for target in targets:
                        fill(scratch, target, window.row_stride, padding, unit.lanes)
        for phase in phases:
            beyond = phase.width - window.row_stride
            if beyond > 0:
                fill(scratch, base + phase.base + rows * window.row_stride, beyond, padding, unit.lanes)


def pack_channels(window: Window, x: Buffer, first: Expr, channels: int, scratch: Buffer, first_row: Expr,
                  unit: VectorUnit, *, shared: bool = False) -> None:
    """Pack `channels` channels of x ([channels, height, width], flat) from channel `first` on, one after the other.

    `shared`: threads share them.
    """
    height, width = window.problem.height, window.problem.width
    with (T.parallel if shared else T.serial)(0, channels) as channel:
        image = Image(x, (first + channel) * (height * width), width)
        (pack_column if window.is_column else pack)(window, image, scratch, channel * window.size, first_row, unit)


def pack_column(window: Window, image: Image, scratch: Buffer, base: Expr, first_row: Expr, unit: VectorUnit) -> None:
    """As pack, for images of one column, whose rows lie side by side: in vectors over rows, with zeros around them."""
    problem = window.problem
    top, (stride, _) = problem.padding[0], problem.stride
    last = (problem.out_height - 1) * stride + (problem.kernel[0] - 1) * problem.dilation[0]
    is_padded = top > 0 or last - top >= problem.height

    def emit_strip(first: Expr, target: Expr, lanes: int) -> None:
        """Values from row `first` on, every stride-th."""
        if not is_padded:
            store(scratch, target, load_strided(image.buffer, image.base + first, lanes, stride, unit), lanes)
            return
        with T.If(tirx.all(first >= 0, first + (lanes - 1) * stride < problem.height)):
            with T.Then():
                store(scratch, target, load_strided(image.buffer, image.base + first, lanes, stride, unit), lanes)
            with T.Else(), T.serial(0, lanes) as lane:
                row = first + lane * stride
                with T.If(tirx.all(row >= 0, row < problem.height)):
                    with T.Then():
                        store(scratch, target + lane, image.buffer[image.base + row], 1)
                    with T.Else():
                        store(scratch, target + lane, constant(0), 1)

    for phase, count in _alike(list(window.phases.values())):
        with T.serial(0, count) as number:
            row, target = phase.row + number - top, base + phase.base + number * phase.rows

            def emit(position: Expr, lanes: int, row: Expr = row, target: Expr = target) -> None:
                emit_strip((first_row + position) * stride + row, target + position, lanes)

            each_strip(phase.rows, unit.lanes, emit)


def _alike(phases: list[Phase]) -> list[tuple[Phase, int]]:
    """Runs of neighbouring phases of as many rows: (the first one, how many). A stride of 160 has as many phases, which
    code of its own for each would make long."""
    runs: list[tuple[Phase, int]] = []
    for phase in phases:
        first, count = runs[-1] if runs else (phase, 0)
        if (phase.row, phase.rows, phase.base) == (first.row + count, first.rows, first.base + count * first.rows):
            runs[-1:] = [(first, count + 1)]
        else:
            runs.append((phase, 1))
    return runs


def _pad_row(window: Window, phase: Phase, scratch: Buffer, target: Expr, unit: VectorUnit, padding: float) -> None:
    """What stands left and right of the pixels of one image row in one phase."""
    start, stop = window.image_columns(phase.column, min(phase.width, window.row_stride))
    fill(scratch, target, start, padding, unit.lanes)
    fill(scratch, target + stop, window.row_stride - stop, padding, unit.lanes)


def _copy_row(window: Window, phase: Phase, image: Image, y: Expr, scratch: Buffer, target: Expr,
              unit: VectorUnit) -> None:
    """The pixels of one image row in one phase."""
    stride, left = window.problem.stride[1], window.problem.padding[1]
    start, stop = window.image_columns(phase.column, min(phase.width, window.row_stride))
    first = image.base + y * image.row_stride + (start * stride + phase.column - left)

    def copy(position: Expr, width: int) -> None:
        value = load_strided(image.buffer, first + position * stride, width, stride, unit)
        store(scratch, target + start + position, value, width)

    if stop > start:
        each_strip(stop - start, unit.lanes, copy)


def load_strided(buffer: Buffer, index: Expr, width: int, stride: int, unit: VectorUnit) -> Expr:
    """Every stride-th value; loads that end with the last value wanted, and shuffles."""
    if stride not in unit.isa.shuffled_strides or width < stride:
        return load(buffer, index, width, stride)
    starts = [part * width for part in range(stride - 1)] + [(stride - 1) * (width - 1)]
    vectors = [load(buffer, index + start, width) for start in starts]
    picks = [range(part * width - start, width, stride) for part, start in enumerate(starts)]
    lanes = width
    while len(vectors) > 1:
        vectors = [shuffle(vectors[pair:pair + 2], [*picks[pair], *(lanes + lane for lane in picks[pair + 1])])
                   for pair in range(0, len(vectors), 2)]
        lanes = len(picks[0]) + len(picks[1])
        picks = [range(lanes)] * len(vectors)
    return vectors[0]


def _reach(offsets: list[int], stride: int) -> dict[int, int]:
    """For each phase some tap falls into, how many steps beyond an output's own position its taps go."""
    reach: dict[int, int] = {}
    for offset in offsets:
        reach[offset % stride] = max(reach.get(offset % stride, 0), offset // stride)
    return reach
