"""How Winograd's tiles of an image lie in scratch and are cut into bands."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product

from onexn_plugins.tvm_backend.kernels.code.vector import Expr, channel_stride
from onexn_plugins.tvm_backend.kernels.parts.tiling import Cut, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import TileWindow, band_start
from onexn_plugins.tvm_backend.kernels.problem import Conv, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd.filtering import Filtering, filterings

# Bytes of transformed input a band may take: what a second-level cache of 1 MiB holds beside a row of weights.
BAND_BUDGET = 900 * 1024
# Bytes that a band's input and sums may take where sums go point by point and weights are few: measured best with
# ResNet-50's stem on a second-level cache of 512 KiB, where half leaves more lanes empty.
_BAND_AND_SUMS = 850 * 1024

# Vectors of tiles of an image up to which rows of points are faster on AVX-512, by up to 1.1 times; with more of them
# points one by one are up to 1.25 times faster (ResNet-50's layers at 25 to 100 % of the blocks).
_FEW_VECTORS = 2


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
class Points:
    """How the points of a vector of tiles lie in scratch.

    They are stored as they are summed, [vector of tiles, row of points, channel, place, tile]: one sum reads on and on,
    where a constant distance between channels would use few sets of the cache. Places are the points of a row, for each
    phase of the image that has this row: every stride-th row and column from a first one on.
    """

    problem: Conv
    outputs: int  # of a tile per side
    lanes: int  # tiles of a vector

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
    def reading(self) -> list[list[tuple[int, int, int, int]]]:
        """The order in which weights are read: runs of (row, phase row, phase column, column); here rows of points."""
        return [[(row, *place) for place in rows.places] for rows in self.rows for row in range(rows.first, rows.last)]

    @property
    def method(self) -> str:
        """The algorithm in the notation of the paper: F(outputs, taps)."""
        (rows, columns), (down, right) = self.problem.kernel, self.problem.stride
        phases = f", the sum of {len(self.phases)} phases for stride {down}×{right}" if len(self.phases) > 1 else ""
        return f"by Winograd's algorithm, F({self.outputs}×{self.outputs}, {rows}×{columns}){phases}"

    def point(self, tile: Expr, channel: Expr, rows: Rows, row: Expr, place: int) -> Expr:
        """Where a point lies; `tile` is the first of a vector."""
        above = (tile * self.points + rows.before(row) * self.lanes) * self.channels
        return above + (channel * len(rows.places) + place) * self.lanes


@dataclass(frozen=True)
class Layout(Points):
    """How a band of tile rows lies in scratch."""

    window: TileWindow
    cut: Cut

    def pixels(self, down: int, right: int) -> list[int]:
        """Where the pixels of a phase lie for tile 0 in the window's scratch, row by row."""
        (row_step, column_step), width = self.problem.stride, self.window.problem.kernel[1]
        return [self.window.taps[(down + row * row_step) * width + right + column * column_step]
                for row in range(self.vertical[down].points) for column in range(self.horizontal[right].points)]

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
        size = self.half(self.side[0], 0)
        assert isinstance(size, int)
        return size

    def half(self, row: Expr, column: int) -> Expr:
        """Where the first tile's value in this row of points and column of pixels lies in them."""
        return (row * self.outputs + column) * self.vectors * self.lanes

    @property
    def row_length(self) -> int:
        """Output pixels in one pixel row of a band's tiles, whole vectors."""
        return self.outputs * self.vectors * self.lanes

    @property
    def lanes_computed(self) -> int:
        """Tiles computed for an image: also lanes left empty, and rows that the last band has computed before."""
        return band_start(self.window, 0)[0] * self.vectors * self.lanes


@dataclass(frozen=True)
class Alike:
    """Points that the same phases have.

    Attributes:
        first: points before them.
        before: points before them, each counted once for every phase that has it.
        points: (row, column) of each.
        phases: (phase row, phase column) of those that have them.
    """

    first: int
    before: int
    points: tuple[tuple[int, int], ...]
    phases: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class ProductLayout(Layout):
    """As Layout, but stored [point, channel, phase, tile]: what a point's sums are made of is a matrix."""

    @cached_property
    def alike(self) -> tuple[Alike, ...]:
        found, first, before = [], 0, 0
        by_phases: dict[tuple[tuple[int, int], ...], list[tuple[int, int]]] = {}
        for row, column in product(range(self.side[0]), range(self.side[1])):
            phases = tuple((down, right) for (down, vertical), (right, horizontal) in self.phases
                           if row < vertical.points and column < horizontal.points)
            by_phases.setdefault(phases, []).append((row, column))
        for phases, points in by_phases.items():
            found.append(Alike(first, before, tuple(points), phases))
            first, before = first + len(points), before + len(points) * len(phases)
        return tuple(found)

    @cached_property
    def numbers(self) -> dict[tuple[int, int], int]:
        """The how manyth a point is."""
        points = [point for alike in self.alike for point in alike.points]
        return {point: number for number, point in enumerate(points)}

    @property
    def reading(self) -> list[list[tuple[int, int, int, int]]]:
        return [[(row, down, right, column) for down, right in alike.phases]
                for alike in self.alike for row, column in alike.points]

    @property
    def stride(self) -> int:
        """Values from one phase or channel to the next."""
        return channel_stride(self.window.positions, self.lanes)

    @property
    def size(self) -> int:
        return self.points * self.channels * self.stride

    def point(self, tile: Expr, channel: Expr, rows: Rows, row: Expr, place: int) -> Expr:
        """Where a point lies; `tile` is the first of a vector, `row` is known here."""
        assert isinstance(row, int)
        down, right, column = rows.places[place]
        alike = next(alike for alike in self.alike if (row, column) in alike.points)
        count = len(alike.phases)
        before = alike.before + alike.points.index((row, column)) * count
        within = channel * count + alike.phases.index((down, right))
        return (before * self.channels + within) * self.stride + tile


def layout_for(problem: Conv, outputs: int, unit: VectorUnit) -> Layout:
    """Bands within the budget that leave the fewest lanes empty, the tallest of those."""
    tiles = _tiles(problem, outputs)
    kind = ProductLayout if _by_points(tiles, unit) else Layout

    def layout(rows: int) -> Layout:
        window = TileWindow(tiles, rows)
        return kind(problem, outputs, unit.lanes, window, cut_pixels(window.positions, Tile(1, 1), unit, padded=True))

    lowest = layout(1)
    tallest = _band_bytes(lowest) // (4 * lowest.points * lowest.channels * tiles.out_width)
    bands = [layout(rows) for rows in range(1, max(1, min(tiles.out_height, tallest)) + 1)]
    return min(bands, key=lambda band: (band.lanes_computed, -band.window.rows))


def _by_points(tiles: Conv, unit: VectorUnit) -> bool:
    """Whether sums go point by point, which reads less for each multiply-add but needs vectors of tiles to share it."""
    many = tiles.out_height * tiles.out_width > _FEW_VECTORS * unit.lanes
    return {"never": False, "many": many, "always": True}[unit.measured.by_points]


def _band_bytes(lowest: Layout) -> int:
    """Bytes of transformed input a band may take; `lowest` is of bands of one row.

    Where sums go point by point they take memory as well. Bands are low enough to keep both in the cache if fetching
    all weights for every band takes less than fetching half of both from the next one.
    """
    if not isinstance(lowest, ProductLayout):
        return BAND_BUDGET
    problem, tiles = lowest.problem, lowest.window.problem
    outputs = problem.out_channels // problem.groups
    taken, summed = lowest.points * lowest.channels, len(lowest.numbers) * outputs
    row_bytes = 4 * (taken + summed) * tiles.out_width
    bands = -(-tiles.out_height // max(1, _BAND_AND_SUMS // row_bytes))
    if bands * 4 * taken * outputs > row_bytes * tiles.out_height / 2:
        return BAND_BUDGET
    return _BAND_AND_SUMS * taken // (taken + summed)


def _tiles(problem: Conv, outputs: int) -> Conv:
    """The convolution whose outputs are tiles: its kernel covers all that a tile of outputs reads."""
    def along(axis: int, size: int, out_size: int) -> tuple[int, int, int]:
        """The kernel and stride along an axis, and the padding behind the image."""
        stride, count = problem.stride[axis], -(-out_size // outputs)
        kernel, step = (outputs - 1) * stride + problem.kernel[axis], outputs * stride
        return kernel, step, (count - 1) * step + kernel - size - problem.padding[axis]

    height, down, bottom = along(0, problem.height, problem.out_height)
    width, right, beyond = along(1, problem.width, problem.out_width)
    top, left, _, _ = problem.padding
    return replace(problem, kernel=(height, width), stride=(down, right), padding=(top, left, bottom, beyond))
