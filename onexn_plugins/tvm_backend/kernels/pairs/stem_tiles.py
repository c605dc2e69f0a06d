"""The input of a stem (a 3×3 convolution of stride 2 over few channels) as Winograd's points of 2×2 tiles.

Tiles come in *strips* as wide as a vector has pixels and two vectors of tiles high: a vector holds tiles of two tile
rows, two of one and two of the other by turns. So laid, the two pixel columns of its tiles interleave to whole pixel
rows within 128-bit lanes, and shuffles within lanes cost nothing beside multiply-adds (AVX-512).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, load, shuffle, store
from onexn_plugins.tvm_backend.kernels.parts.window import Image, Window, pack
from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd.layout import Points
from onexn_plugins.tvm_backend.kernels.winograd.transform import transform

OUTPUTS = 2  # of a tile per side
VECTORS = 2  # of a strip, one above the other
STRIP_ROWS = VECTORS * 2 * OUTPUTS  # pixel rows of a strip
STRIDE = 2
_STEP = OUTPUTS * STRIDE  # input rows and columns from one tile to the next
_SIDE = _STEP + 1  # of the input that a tile reads: the last column of the tile before, and its own four
_LANE = 4  # values of a 128-bit lane


def strip_points(problem: Conv, unit: VectorUnit) -> Points:
    """How the points of strips lie in scratch."""
    return Points(problem, OUTPUTS, VECTORS * unit.lanes)


def strips(problem: Conv, unit: VectorUnit) -> int:
    """Strips side by side."""
    return problem.out_width // unit.lanes


def transform_band(points: Points, x: Buffer, image: Expr, first_row: Expr, target: Buffer, unit: VectorUnit) -> None:
    """Write the points of the strips whose first output row is `first_row`."""
    problem = points.problem
    window = Window(replace(problem, stride=(1, 1)), (STRIP_ROWS - 1) * STRIDE + 1, unit.lanes)
    first_tile = window.phases[0, 0].base + problem.padding[1]  # in whole vectors
    scratch = T.alloc_buffer((window.size,), "float32", scope="global")
    with T.serial(0, problem.in_channels) as channel:
        plane = (image * problem.in_channels + channel) * (problem.height * problem.width)
        pack(window, Image(x, plane, problem.width), scratch, 0, first_row * STRIDE, unit)
        with T.serial(0, strips(problem, unit)) as strip:
            for vector in range(VECTORS):
                first = first_tile + vector * 2 * _STEP * window.row_stride + strip * (STRIDE * unit.lanes)

                def pixels(row: int, first: Expr = first) -> list[Register]:
                    return _columns(scratch, first + row * window.row_stride, _STEP * window.row_stride, unit)

                _transform(points, pixels, target, strip, vector, channel, unit)


def rows_of(left: Expr, right: Expr, lanes: int) -> tuple[Expr, Expr]:
    """A pixel row of either tile row of a vector, from what is in the left and in the right columns of its tiles."""
    return _zipped(left, right, 0, 1, lanes), _zipped(left, right, 1, 1, lanes)


def _transform(points: Points, pixels: Callable[[int], list[Register]], target: Buffer, strip: Expr, vector: int,
               channel: Expr, unit: VectorUnit) -> None:
    """Write all points of a vector of tiles, given the pixels of each row that the tiles read, column by column."""
    for down, vertical in enumerate(points.vertical):
        found = [pixels(row) for row in range(down, _SIDE, STRIDE)]
        for right, horizontal in enumerate(points.horizontal):
            signal = [pixel for row in found for pixel in row[right::STRIDE]]
            values = transform(vertical.input, horizontal.input, signal)
            for rows in points.rows:
                for row in range(rows.first, min(rows.last, len(values))):
                    for column, value in enumerate(values[row]):
                        place = rows.places.index((down, right, column))
                        index = points.point(strip * points.lanes, channel, rows, row, place) + vector * unit.lanes
                        store(target, index, value.value, unit.lanes)


def _columns(scratch: Buffer, first: Expr, to_second: int, unit: VectorUnit) -> list[Register]:
    """One input row of a vector of tiles: the first column that each of them reads, the second ...

    Args:
        scratch: the input.
        first: where the first tile's own columns begin in the first tile row.
        to_second: from there to the second tile row.
        unit: vector registers.
    """
    lanes = unit.lanes
    before, even, odd = zip(*(_tiles(scratch, first + row * to_second, lanes) for row in range(2)), strict=True)

    def columns(left: tuple[Expr, ...], right: tuple[Expr, ...], half: int) -> list[Expr]:
        upper, lower = (Register(_zipped(*pair, half, 1, lanes), lanes).value for pair in zip(left, right, strict=True))
        return [_zipped(upper, lower, side, 2, lanes) for side in range(2)]

    values = [columns(before, even, 1)[1], *columns(even, odd, 0), *columns(even, odd, 1)]
    return [Register(value, lanes) for value in values]


def _tiles(scratch: Buffer, first: Expr, lanes: int) -> tuple[Expr, Expr, Expr]:
    """An input row of a tile row, four columns a tile: its tiles -1, 1, 3 ..., then 0, 2, 4 ..., then 1, 3, 5 ..."""
    left, right = (load(scratch, first + half * lanes, lanes) for half in range(2))

    def every_other(start: int) -> Expr:
        picked = [tile + value for tile in range(start * _LANE, 2 * lanes, 2 * _LANE) for value in range(_LANE)]
        return Register(shuffle([left, right], picked), lanes).value

    even, odd = every_other(0), every_other(1)
    shifted = range(lanes - _LANE, 2 * lanes - _LANE)
    before = Register(shuffle([load(scratch, first - lanes, lanes), odd], list(shifted)), lanes).value
    return before, even, odd


def _zipped(left: Expr, right: Expr, half: int, size: int, lanes: int) -> Expr:
    """In each 128-bit lane `size` values of the left's half and as many of the right's by turns."""
    picked = [
        side * lanes + lane + half * 2 + start + value
        for lane in range(0, lanes, _LANE) for start in range(0, 2, size) for side in range(2) for value in range(size)
    ]
    return shuffle([left, right], picked)
