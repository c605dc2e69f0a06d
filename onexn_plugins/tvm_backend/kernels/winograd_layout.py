"""How Winograd's tiles of an image lie in scratch and are cut into bands, and for which convolutions they pay."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from onexn_plugins.tvm_backend.kernels.problem import Conv, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.tiling import Cut, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Expr
from onexn_plugins.tvm_backend.kernels.window import TileWindow
from onexn_plugins.tvm_backend.kernels.winograd_filtering import Filtering, filterings

# Bytes of transformed input a band may take: what a second-level cache of 1 MiB holds beside a row of weights.
BAND_BUDGET = 900 * 1024


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

    def places(self, row: int) -> list[tuple[int, int, int]]:
        """What lies side by side in a row of points: (phase row, phase column, column)."""
        return [(down, right, column) for down, phase in enumerate(self.vertical) if row < phase.points
                for right, across in enumerate(self.horizontal) for column in range(across.points)]

    def points_before(self, row: int) -> int:
        """Points of a tile in the rows before."""
        return sum(len(self.places(above)) for above in range(row))

    @property
    def points(self) -> int:
        """All points of a tile."""
        return self.points_before(self.side[0])

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

    def half(self, row: int, column: int) -> int:
        """Where the first tile's value in this row of points and column of pixels lies in them."""
        return (row * self.outputs + column) * self.vectors * self.lanes

    @property
    def row_length(self) -> int:
        """Output pixels in one pixel row of a band's tiles, whole vectors."""
        return self.outputs * self.vectors * self.lanes

    def point(self, tile: Expr, channel: Expr, row: int, place: int) -> Expr:
        """Where a point lies; `tile` is the first of a vector."""
        above = (tile * self.points + self.points_before(row) * self.lanes) * self.channels
        return above + (channel * len(self.places(row)) + place) * self.lanes


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
    cut = _cut(window, unit)
    rest = sum(cut.rest.widths) if cut.rest else 0
    return -(-rows // window.rows) * (cut.repeats * sum(cut.tile.widths) + rest)
