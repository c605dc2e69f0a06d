"""Depthwise sums over a channel that lies unpadded in memory: row after row, with nothing between them.

What a tap reads beyond the end of a row belongs to its neighbour: those lanes are zeroed, by selection, so that
infinities stay where they are. Rows above and below the image are left out. All is known when the kernel is built, so
a mask is part of an instruction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from onexn_plugins.tvm_backend.kernels.function import Output
from onexn_plugins.tvm_backend.kernels.problem import Conv, VectorUnit
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, Register, constant, load, shuffle, splat

# Two vectors of 8 do as many multiply-adds a cycle as one of 16 where that counts as one instruction in two halves,
# leave fewer lanes idle on narrow rows, and cross fewer cache lines.
_LANES = 8


@dataclass(frozen=True)
class Strips:
    """How the output pixels of a depthwise convolution are cut into vectors: blocks of rows, strips of columns."""

    depthwise: Conv
    unit: VectorUnit

    @cached_property
    def lanes(self) -> int:
        """A row shorter than a vector is summed with what follows it in memory."""
        return min(_LANES, self.unit.lanes, 1 << (self.depthwise.out_width - 1).bit_length())

    @property
    def starts(self) -> list[int]:
        """First output column of each strip; the last one overlaps the one before."""
        last = max(0, self.depthwise.out_width - self.lanes)
        return [min(start, last) for start in range(0, self.depthwise.out_width, self.lanes)]

    @property
    def blocks(self) -> list[range]:
        """Output rows summed together, which share the loads of the hidden rows that they have in common."""
        height = self.depthwise.out_height
        count = -(-height // (self.unit.registers // 2))
        return [range(height * index // count, height * (index + 1) // count) for index in range(count)]

    @property
    def lead(self) -> int:
        """Values that are read (and zeroed) before the first pixel."""
        return self.depthwise.padding[1]

    @property
    def reach(self) -> int:
        """Values from the first pixel on that are read."""
        (_, columns), (_, right) = self.depthwise.kernel, self.depthwise.stride
        last_row = (self.depthwise.height - 1) * self.depthwise.width
        return last_row + (self.starts[-1] + self.lanes) * right + columns - 1 - self.lead

    def taps(self, rows: range, y: int) -> list[tuple[int, int]]:
        """Which of the output rows read image row y, under which row of the kernel: (place in rows, kernel row)."""
        top, down = self.depthwise.padding[0], self.depthwise.stride[0]
        taps = [(place, y + top - row * down) for place, row in enumerate(rows)]
        return [(place, tap) for place, tap in taps if 0 <= tap < self.depthwise.kernel[0]]

    def inside(self, start: int, column: int) -> list[bool]:
        """For each lane of a strip whether its pixel under a kernel column is one of its own row."""
        right, left = self.depthwise.stride[1], self.depthwise.padding[1]
        return [0 <= lane * right + column - left < self.depthwise.width for lane in range(start, start + self.lanes)]


def sum_masked(strips: Strips, hidden: Buffer, base: Expr, values: Buffer, bias: Expr, first_weight: Expr,
               output: Output, first: Expr) -> None:
    """Emit the sums of one channel.

    Args:
        strips: the depthwise convolution.
        hidden: holds the channel from `base` on.
        base: see hidden.
        values: holds the channel's weights from `first_weight` on.
        bias: what sums begin with.
        first_weight: see values.
        output: takes the sums.
        first: the channel's first output pixel there.
    """
    for rows in strips.blocks:
        for start in strips.starts:
            sums = [Register(splat(bias, strips.lanes), strips.lanes) for _ in rows]
            for column in range(strips.depthwise.kernel[1]):
                _add_column(strips, rows, start, column, sums, hidden, base, values, first_weight)
            for row, total in zip(rows, sums, strict=True):
                _store(strips, row, start, total, output, first)


def _add_column(strips: Strips, rows: range, start: int, column: int, sums: list[Register], hidden: Buffer,
                base: Expr, values: Buffer, first_weight: Expr) -> None:
    """Add what one column of the kernel reads; its weights alone are in registers then."""
    depthwise, lanes = strips.depthwise, strips.lanes
    inside = strips.inside(start, column)
    if not any(inside):
        return
    kernel_rows, kernel_columns = depthwise.kernel
    weights = [Register(splat(values[first_weight + row * kernel_columns + column], lanes), lanes)
               for row in range(kernel_rows)]
    for y in range(depthwise.height):
        taps = strips.taps(rows, y)
        if taps:
            place = y * depthwise.width + start * depthwise.stride[1] + column - depthwise.padding[1]
            pixels = _strided(hidden, base + place, lanes, depthwise.stride[1])
            value = Register(_zeroed(pixels, inside), lanes).value
            for row, tap in taps:
                sums[row].multiply_add(weights[tap].value, value)


def _strided(buffer: Buffer, index: Expr, lanes: int, stride: int) -> Expr:
    """Every value or every other one."""
    if stride == 1 or lanes == 1:
        return load(buffer, index, lanes)
    vectors = [load(buffer, index + part * lanes, lanes) for part in range(stride)]
    return shuffle(vectors, list(range(0, stride * lanes, stride)))


def _zeroed(value: Expr, inside: list[bool]) -> Expr:
    """The lanes that are inside, 0 in the others."""
    if all(inside):
        return value
    lanes = len(inside)
    return shuffle([value, constant(0, lanes)], [lane if own else lanes for lane, own in enumerate(inside)])


def _store(strips: Strips, row: int, start: int, total: Register, output: Output, first: Expr) -> None:
    """Store a vector of sums; lanes beyond a row's end are overwritten by the next row, so that the last has none."""
    depthwise, lanes = strips.depthwise, strips.lanes
    place, width = first + row * depthwise.out_width + start, depthwise.out_width
    if width >= lanes or row < depthwise.out_height - 1:
        output.store(place, total.value, lanes)
        return
    half = lanes // 2
    for begin in (0, width - half):
        output.store(place + begin, shuffle([total.value], list(range(begin, begin + half))), half)
