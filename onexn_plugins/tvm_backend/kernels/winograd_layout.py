"""How Winograd's tiles of an image lie in scratch and are cut into bands, and for which convolutions they pay."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from onexn_plugins.tvm_backend.kernels.problem import Conv, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.tiling import Cut, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Expr
from onexn_plugins.tvm_backend.kernels.window import TileWindow
from onexn_plugins.tvm_backend.kernels.winograd_filtering import MOST_POINTS, Filtering, filterings

# Bytes of transformed input a band may take: what a second-level cache of 1 MiB holds beside a row of weights.
BAND_BUDGET = 900 * 1024

# Measured on AVX-512 with ResNet-50's layers at 1 to 100 % of the blocks. Costs in multiply-adds: of transforming a
# point of a tile and input channel (packing included), one of a tile and output channel back, and of a weight that
# comes from beyond the second-level cache.
_THERE, _BACK, _WEIGHT = 21, 5, 4
# Shares of the multiply-adds' rate that direct kernels reach, and sums of several phases; those of one reach it.
_DIRECT, _PHASES = 0.95, 0.7


def best_outputs(problem: Conv, kept: float, unit: VectorUnit) -> int | None:
    """Pixels per side of the tiles that this convolution is fastest with; None where a direct kernel is faster.

    Args:
        problem: the convolution.
        kept: share of its blocks.
        unit: vector registers.
    """
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    pixels = problem.out_height * problem.out_width

    def cost(size: int) -> float:
        layout = layout_for(problem, size, unit)
        tiles = _lanes(layout.window, -(-problem.out_height // size), unit)
        transforms = tiles * (_THERE * layout.points * inputs + _BACK * math.prod(layout.side) * outputs)
        rate = 1 if len(layout.phases) == 1 else _PHASES
        return kept * layout.points * inputs * outputs * (tiles / rate + _WEIGHT) + transforms

    direct = kept * problem.taps * inputs * outputs * (pixels / _DIRECT + _WEIGHT)
    best = min(_sizes(problem, unit), key=cost, default=None)
    return best if best is not None and cost(best) < direct else None


def _sizes(problem: Conv, unit: VectorUnit) -> list[int]:
    """Tiles that may be faster; on ARM only what was measured there."""
    if problem.dilation != (1, 1) or min(problem.kernel) < 2:
        return []
    if unit.fused_weights:
        return [2] if (problem.kernel, problem.stride) == ((3, 3), (1, 1)) else []
    return [size for size in (2, 4) if is_possible(problem, size)]


def is_possible(problem: Conv, size: int) -> bool:
    """Whether there is an algorithm for tiles of this size."""
    return problem.dilation == (1, 1) and all(
        size + -(-taps // stride) - 1 <= MOST_POINTS for taps, stride in zip(problem.kernel, problem.stride, strict=True))


@dataclass(frozen=True)
class Rows:
    """Neighbouring rows of points that the same phases have.

    Attributes:
        first, last: which rows; the last is not one of them.
        places: what lies side by side in each: (phase row, phase column, column).
        start: points of a tile in the rows before.
    """

    first: int
    last: int
    places: tuple[tuple[int, int, int], ...]
    start: int

    @property
    def points(self) -> int:
        """Points of a tile in these rows."""
        return (self.last - self.first) * len(self.places)

    def before(self, row: Expr) -> Expr:
        """Points of a tile in the rows before this one."""
        return self.start + (row - self.first) * len(self.places)


@dataclass(frozen=True)
class Layout:
    """How a band of tile rows lies in scratch.

    Points are stored as they are summed, [vector of tiles, row of points, channel, place, tile]: one sum reads on and
    on, where a constant distance between channels would use few sets of the cache. Places are the points of a row, for
    each phase of the image that has this row: every stride-th row and column from a first one on.
    """

    problem: Conv
    outputs: int  # of a tile per side
    window: TileWindow
    cut: Cut
    lanes: int

    @property
    def vertical(self) -> tuple[Filtering, ...]:
        """The filterings of a column of the image, one for each row of phases."""
        return filterings(self.outputs, self.problem.kernel[0], self.problem.stride[0])

    @property
    def horizontal(self) -> tuple[Filtering, ...]:
        return filterings(self.outputs, self.problem.kernel[1], self.problem.stride[1])

    @property
    def side(self) -> tuple[int, int]:
        """Rows and columns of points."""
        return self.vertical[0].points, self.horizontal[0].points

    @property
    def channels(self) -> int:
        """Input channels of a group."""
        return self.problem.in_channels // self.problem.groups

    @property
    def phases(self) -> list[tuple[tuple[int, Filtering], tuple[int, Filtering]]]:
        """Every phase: its first row and the filtering of its columns, its first column and that of its rows."""
        return list(product(enumerate(self.vertical), enumerate(self.horizontal)))

    def pixels(self, down: int, right: int) -> list[int]:
        """Where the pixels of a phase lie for tile 0 in the window's scratch, row by row."""
        (row_step, column_step), width = self.problem.stride, self.window.problem.kernel[1]
        return [self.window.taps[(down + row * row_step) * width + right + column * column_step]
                for row in range(self.vertical[down].points) for column in range(self.horizontal[right].points)]

    @cached_property
    def rows(self) -> tuple[Rows, ...]:
        """All rows of points; the first ones are those that every phase has."""
        across = [(right, column) for right, phase in enumerate(self.horizontal) for column in range(phase.points)]
        found, first, before = [], 0, 0
        for phases in range(len(self.vertical), 0, -1):
            last = self.vertical[phases - 1].points
            if last > first:
                places = tuple((down, right, column) for down in range(phases) for right, column in across)
                found.append(Rows(first, last, places, before))
                first, before = last, before + (last - first) * len(places)
        return tuple(found)

    @property
    def points(self) -> int:
        """All points of a tile."""
        return sum(rows.points for rows in self.rows)

    @property
    def vectors(self) -> int:
        return -(-self.window.positions // self.lanes)

    @property
    def size(self) -> int:
        """Values of all points of a band."""
        return self.vectors * self.lanes * self.channels * self.points

    @property
    def half_size(self) -> int:
        """Values of an output channel of a band that is transformed back along rows."""
        return self.half(self.side[0], 0)

    def half(self, row: Expr, column: int) -> Expr:
        """Where the first tile's value in this row of points and column of pixels lies in them."""
        return (row * self.outputs + column) * self.vectors * self.lanes

    @property
    def row_length(self) -> int:
        """Output pixels in one pixel row of a band's tiles, whole vectors."""
        return self.outputs * self.vectors * self.lanes

    def point(self, tile: Expr, channel: Expr, rows: Rows, row: Expr, place: int) -> Expr:
        """Where a point lies; `tile` is the first of a vector."""
        above = (tile * self.points + rows.before(row) * self.lanes) * self.channels
        return above + (channel * len(rows.places) + place) * self.lanes


def layout_for(problem: Conv, outputs: int, unit: VectorUnit) -> Layout:
    """Bands within the budget that leave the fewest lanes empty, the tallest of those."""
    rows, columns = -(-problem.out_height // outputs), -(-problem.out_width // outputs)
    (down, right), (top, left, _, _) = problem.stride, problem.padding
    kernel = tuple((outputs - 1) * stride + taps for stride, taps in zip(problem.stride, problem.kernel, strict=True))
    step = outputs * down, outputs * right
    tiles = replace(problem, kernel=kernel, stride=step, padding=(
        top, left, (rows - 1) * step[0] + kernel[0] - problem.height - top,
        (columns - 1) * step[1] + kernel[1] - problem.width - left))
    whole = Layout(problem, outputs, TileWindow(tiles, rows), _cut(TileWindow(tiles, rows), unit), unit.lanes)
    tallest = max(1, min(rows, BAND_BUDGET // (4 * whole.points * whole.channels * columns)))
    window = min((TileWindow(tiles, count) for count in range(1, tallest + 1)),
                 key=lambda window: (_lanes(window, rows, unit), -window.rows))
    return replace(whole, window=window, cut=_cut(window, unit))


def _cut(window: TileWindow, unit: VectorUnit) -> Cut:
    return cut_pixels(window.positions, Tile(1, 1), unit, padded=True)


def _lanes(window: TileWindow, rows: int, unit: VectorUnit) -> int:
    """Tiles computed for the whole image, with lanes left empty and rows that the last band has computed before."""
    return -(-rows // window.rows) * -(-window.positions // unit.lanes) * unit.lanes
