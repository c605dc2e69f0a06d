"""Sums of products of two activations: tiles of rows × vectors of columns in registers, on packed columns.

The right matrix is copied panel by panel, a few vectors of columns wide, so that each step of a sum loads vectors that
lie one behind the other whatever the matrix's layout was; the left one's values are broadcast from where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    Register,
    constant,
    each_vector,
    load,
    pieces,
    splat,
    store,
)
from onexn_plugins.tvm_backend.kernels.matrices import Matrices
from onexn_plugins.tvm_backend.kernels.parts.turning import QUAD, turn_rows
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Loads of a step beside its multiply-adds, of which as many start in a cycle or more.
_LOAD = 0.5
# Vectors of a panel.
_MOST_VECTORS = 4

# Takes (row of the tile, first column of the vector, sums, lanes).
StoreSums = Callable[[int, Expr, Expr, int], None]


@dataclass(frozen=True)
class Panels:
    """How a product's columns are cut, and how many rows are summed at once.

    Attributes:
        columns: of the right matrix.
        widths: lanes of a panel's vectors; the last panel overlaps the one before where they do not divide columns.
        rows: of a tile.
    """

    columns: int
    widths: tuple[int, ...]
    rows: int

    @property
    def width(self) -> int:
        return sum(self.widths)

    @property
    def count(self) -> int:
        return -(-self.columns // self.width)

    @property
    def starts(self) -> list[int]:
        """Of each vector within a panel."""
        return [sum(self.widths[:place]) for place in range(len(self.widths))]

    def first(self, panel: Expr) -> Expr:
        """The first column of a panel."""
        start = panel * self.width
        return start if self.columns % self.width == 0 else tirx.min(start, self.columns - self.width)


@dataclass(frozen=True)
class Operand:
    """A matrix in memory: element (row, column) lies at base + row * row_stride + column * column_stride."""

    buffer: Buffer
    base: Expr
    row_stride: Expr
    column_stride: Expr

    @classmethod
    def of(cls, buffer: Buffer, matrices: Matrices, batch: tuple[Expr, ...]) -> Operand:
        """One of several matrices."""
        base: Expr = matrices.offset
        for index, stride in zip(batch, matrices.strides, strict=False):
            base = base + index * stride
        return cls(buffer, base, matrices.row, matrices.column)

    def at(self, row: Expr, column: Expr) -> Expr:
        return self.base + row * self.row_stride + column * self.column_stride


def panels_for(rows: int, columns: int, unit: VectorUnit) -> Panels:
    """The cheapest cut: sums in all registers, few loads beside them, few columns summed twice."""

    def candidates() -> list[tuple[int, ...]]:
        whole = [(unit.lanes,) * count for count in range(1, _MOST_VECTORS + 1) if count * unit.lanes <= columns]
        exact = tuple(pieces(columns, unit.lanes))
        return [*whole, exact] if len(exact) <= _MOST_VECTORS else whole

    def at_once(widths: tuple[int, ...]) -> int:
        most = min(unit.measured.pointwise_sums, unit.registers - 2 - len(widths))
        return max(1, min(rows, most // len(widths)))

    def cost(widths: tuple[int, ...]) -> float:
        vectors, height = len(widths), at_once(widths)
        tiles = -(-columns // sum(widths)) / height
        # Fewer sums than a multiply-add takes cycles, twice over, would wait for each other.
        return tiles * (max(vectors * height, 8) + _LOAD * (vectors + height))

    best = min(candidates(), key=cost)
    return Panels(columns, best, at_once(best))


def packed_values(panels: Panels, inner: int) -> int:
    """Values that all panels of a matrix take."""
    return panels.count * panels.width * inner


def pack_panel(source: Operand, factors: tuple[float, ...], panels: Panels, panel: Expr, inner: int, packed: Buffer,
               place: Expr) -> None:
    """Copy columns of a matrix, times its factors, so that row k of the panel begins at packed[place + k * width]."""
    first, width = panels.first(panel), panels.width
    lanes = max(panels.widths)
    if _is(source.column_stride, 1):
        with T.serial(0, inner) as row:
            for start, wide in zip(panels.starts, panels.widths, strict=True):
                value = load(source.buffer, source.at(row, first + start), wide)
                store(packed, place + row * width + start, times(value, factors, wide), wide)
    elif _is(source.row_stride, 1) and inner >= QUAD and all(wide % QUAD == 0 for wide in panels.widths):
        for start, wide in zip(panels.starts, panels.widths, strict=True):
            turn_rows(source.buffer, lambda other, start=start: source.at(0, first + start + other),  # type: ignore[misc]
                      inner, packed, place + start, width, wide, tuple(constant(factor, wide) for factor in factors))
    else:
        assert lanes
        with T.serial(0, inner) as row, T.serial(0, width) as column:
            value = source.buffer[source.at(row, first + column)]
            store(packed, place + row * width + column, times(value, factors, 1), 1)


def pack_rows(source: Operand, factors: tuple[float, ...], first: Expr, rows: Expr, inner: int, packed: Buffer,
              unit: VectorUnit) -> Operand:
    """Copies of rows, times their factors, side by side; the rows themselves where there are no factors."""
    if not factors:
        return Operand(source.buffer, source.at(first, 0), source.row_stride, source.column_stride)
    with T.serial(0, rows) as row:
        def copy(column: Expr, lanes: int) -> None:
            value = load(source.buffer, source.at(first + row, column), lanes)
            store(packed, row * inner + column, times(value, factors, lanes), lanes)

        each_vector(inner, unit.lanes if _is(source.column_stride, 1) else 1, copy)
    return Operand(packed, 0, inner, 1)


def sum_rows(left: Operand, rows: int, packed: Buffer, place: Expr, panels: Panels, inner: int,
             target: Callable[[Expr, int, Expr, Expr, int], None]) -> None:
    """Emit the sums of so many rows with a packed panel; `target` takes (first row of the tile, row within it, first
    column within the panel, sums, lanes).
    """
    tiles, rest = divmod(rows, panels.rows)
    if tiles:
        with T.serial(0, tiles) as tile:
            first = tile * panels.rows
            _sum_tile(left, first, panels.rows, packed, place, panels, inner,
                      lambda row, start, value, lanes: target(first, row, start, value, lanes))
    if rest:
        first_left = tiles * panels.rows
        _sum_tile(left, first_left, rest, packed, place, panels, inner,
                  lambda row, start, value, lanes: target(first_left, row, start, value, lanes))


def times(value: Expr, factors: tuple[float, ...], lanes: int) -> Expr:
    """A vector times numbers, one after the other."""
    for factor in factors:
        value = value * constant(factor, lanes)
    return value


def _sum_tile(left: Operand, first: Expr, rows: int, packed: Buffer, place: Expr, panels: Panels, inner: int,
              target: StoreSums) -> None:
    sums = [[Register(constant(0, lanes), lanes) for lanes in panels.widths] for _ in range(rows)]
    with T.serial(0, inner) as step:
        vectors = [Register(load(packed, place + step * panels.width + start, lanes), lanes)
                   for start, lanes in zip(panels.starts, panels.widths, strict=True)]
        for row, totals in enumerate(sums):
            value = Register(left.buffer[left.at(first + row, step)], 1).value
            for total, vector in zip(totals, vectors, strict=True):
                total.multiply_add(splat(value, total.lanes), vector.value)
    for row, totals in enumerate(sums):
        for start, total in zip(panels.starts, totals, strict=True):
            target(row, start, total.value, total.lanes)


def _is(value: Expr, number: int) -> bool:
    return isinstance(value, int) and value == number
