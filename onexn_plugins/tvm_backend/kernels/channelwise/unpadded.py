"""Depthwise sums over a channel that lies unpadded in memory: row after row, with nothing between them.

What a tap reads beyond the end of a row belongs to its neighbour: those lanes are zeroed, by selection, so that
infinities stay where they are. Rows above and below the image are left out. All this is known when the kernel is built:
a mask is part of an instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Expr, Register, constant, shuffle, splat
from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Half of an AVX-512 register: fewer lanes of a narrow row are idle, fewer loads cross cache lines, stores are cheaper.
# Two of 8 lanes take as long as one of 16 where halves are worked on in turn (Zen 4); elsewhere as long as two of 16,
# so that whole ones are 1.3 to 1.6 times faster, but under a stride of 2, which drops half of what is loaded.
_LANES = 8


@dataclass(frozen=True)
class Strips:
    """How the output pixels of a depthwise convolution are cut into vectors: blocks of rows, strips of columns.

    There are at least `least` blocks where there are as many rows.
    """

    depthwise: Conv
    unit: VectorUnit
    least: int = 1

    @cached_property
    def lanes(self) -> int:
        """Lanes of a strip: a row shorter than a vector is summed with some of what follows it in memory."""
        widest = self.unit.lanes if self.unit.measured.whole_strips and self.depthwise.stride[1] == 1 else _LANES
        return min(widest, self.unit.lanes, 1 << (self.depthwise.out_width - 1).bit_length())

    @cached_property
    def order(self) -> list[int]:
        """Which output column of a strip each lane sums.

        Every other one of 16 pixels is picked by one x86 instruction in this order, in that of columns by two.
        """
        picked = self.depthwise.stride[1] == 2 and self.lanes == 8
        return [0, 1, 4, 5, 2, 3, 6, 7] if picked else list(range(self.lanes))

    @property
    def starts(self) -> list[int]:
        """First output column of each strip; the last one overlaps the one before."""
        last = max(0, self.depthwise.out_width - self.lanes)
        return [min(start, last) for start in range(0, self.depthwise.out_width, self.lanes)]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Strips side by side that have the same masks: (first output column, how many strips)."""
        runs: list[tuple[int, int]] = []
        for start in self.starts:
            first, count = runs[-1] if runs else (start, 0)
            if start == first + count * self.lanes and self.masks(start) == self.masks(first):
                runs = [*runs[:-1], (first, count + 1)]
            else:
                runs.append((start, 1))
        return runs

    @cached_property
    def blocks(self) -> list[range]:
        """Output rows that are summed together, so that they share the loads of the rows they have in common."""
        height = self.depthwise.out_height
        count = max(-(-height // (self.unit.registers // 2)), min(self.least, height))
        return [range(height * index // count, height * (index + 1) // count) for index in range(count)]

    def rows_under(self, rows: range) -> range:
        """The image rows that some output rows read."""
        top, down, kernel = self.depthwise.padding[0], self.depthwise.stride[0], self.depthwise.kernel[0]
        first, last = rows[0] * down - top, rows[-1] * down - top + kernel
        return range(max(0, first), min(last, self.depthwise.height))

    @property
    def instructions(self) -> int:
        """Multiply-adds that are written out."""
        return len(self.runs) * self.depthwise.out_height * self.depthwise.taps

    @property
    def column_groups(self) -> list[range]:
        """Columns of the kernel that share loads: under a stride of 2 a vector's even pixels and its odd ones."""
        columns, right = self.depthwise.kernel[1], self.depthwise.stride[1]
        return [range(first, min(first + right, columns)) for first in range(0, columns, right)]

    @property
    def lead(self) -> int:
        """Values before the first pixel that are loaded (and zeroed)."""
        return self.depthwise.padding[1]

    @property
    def overrun(self) -> int:
        """Values behind an image's (or a block's) last pixel that are loaded; negative where not even that one is."""
        columns, right = self.depthwise.kernel[1], self.depthwise.stride[1]
        return (self.starts[-1] + self.lanes) * right + columns - 1 - self.lead - self.depthwise.width

    def masks(self, start: int) -> list[list[bool]]:
        """For each column of the kernel and lane of a strip whether the pixel there is one of the same row.

        Lanes beyond the end of an output row may take anything.
        """
        depthwise = self.depthwise
        right, left = depthwise.stride[1], depthwise.padding[1]
        outputs = [start + place for place in self.order]
        return [[output >= depthwise.out_width or 0 <= output * right + column - left < depthwise.width
                 for output in outputs] for column in range(depthwise.kernel[1])]

    def taps(self, rows: range, y: int) -> list[tuple[int, int]]:
        """Which of some output rows read image row y and under which row of the kernel: (place in rows, kernel row)."""
        top, down = self.depthwise.padding[0], self.depthwise.stride[0]
        taps = [(place, y + top - row * down) for place, row in enumerate(rows)]
        return [(place, tap) for place, tap in taps if 0 <= tap < self.depthwise.kernel[0]]


# Loads a vector of the channel's pixels (of so many lanes) from a flat index on.
Load = Callable[[Expr, int], Expr]
# Takes (flat index of an output pixel of the channel, vector of sums from there on, lanes).
Store = Callable[[Expr, Expr, int], None]


def sum_masked(strips: Strips, rows: range, load: Load, weights: Sequence[Expr], bias: Expr, store: Store) -> None:
    """Emit a block's sums of one channel; a store may write to the row behind its own, but not beyond the block."""
    for first, count in strips.runs:
        with T.serial(0, count) as index:
            _sum_strip(strips, rows, first + index * strips.lanes, strips.masks(first), load, weights, bias, store)


def _sum_strip(strips: Strips, rows: range, start: Expr, masks: list[list[bool]], load: Load, weights: Sequence[Expr],
               bias: Expr, store: Store) -> None:
    depthwise, lanes = strips.depthwise, strips.lanes
    sums, pixels = [Register(splat(bias, lanes), lanes) for _ in rows], _Pixels(strips, load)
    for columns in strips.column_groups:  # one after the other: 25 weights would not fit into registers
        factors = {(row, column): Register(splat(weights[row * depthwise.kernel[1] + column], lanes), lanes)
                   for row in range(depthwise.kernel[0]) for column in columns}
        for y in strips.rows_under(rows):
            place = start * depthwise.stride[1] + (y * depthwise.width + columns[0] - depthwise.padding[1])
            for column, value in zip(columns, pixels.at(place, masks[columns.start:columns.stop]), strict=True):
                for row, tap in strips.taps(rows, y):
                    sums[row].multiply_add(factors[tap, column].value, value)
    for row, total in zip(rows, sums, strict=True):
        _store(strips, start + row * depthwise.out_width, total, store, exact=row == rows[-1])


class _Pixels:
    """What the columns of a group take of one image row after the other.

    The same registers hold it every time: with as many as there are rows, compiling takes a third longer.
    """

    def __init__(self, strips: Strips, load: Load) -> None:
        self._strips, self._load, self._stride = strips, load, strips.depthwise.stride[1]
        zero = constant(0, strips.lanes)
        self._loaded, self._taken = ([Register(zero, strips.lanes) for _ in range(self._stride)] for _ in range(2))

    def at(self, place: Expr, masks: list[list[bool]]) -> list[Expr]:
        """A vector for each mask: the pixels from `place` on, or every other one from the first, from the second on."""
        lanes, taken = self._strips.lanes, self._taken[:len(masks)]
        if self._stride == 1:
            taken[0].set(_masked(self._load(place, lanes), masks[0]))
        else:
            for part, register in enumerate(self._loaded):
                register.set(self._load(place + part * lanes, lanes))
            for phase, (register, mask) in enumerate(zip(taken, masks, strict=True)):
                picks = [output * self._stride + phase for output in self._strips.order]
                register.set(_masked(shuffle([part.value for part in self._loaded], picks), mask))
        return [register.value for register in taken]


def _masked(value: Expr, mask: list[bool]) -> Expr:
    """0 in the lanes that are not in the mask."""
    if all(mask):
        return value
    lanes = len(mask)
    return shuffle([value, constant(0, lanes)], [lane if own else lanes for lane, own in enumerate(mask)])


def _store(strips: Strips, place: Expr, total: Register, store: Store, *, exact: bool) -> None:
    """Store a row's sums in the order of columns, if need be without those beyond its end."""
    width, lanes = strips.depthwise.out_width, strips.lanes
    by_column = [strips.order.index(column) for column in range(lanes)]
    if width >= lanes or not exact:
        store(place, shuffle([total.value], by_column), lanes)
        return
    half = lanes // 2
    for begin in (0, width - half):
        store(place + begin, shuffle([total.value], by_column[begin:begin + half]), half)
