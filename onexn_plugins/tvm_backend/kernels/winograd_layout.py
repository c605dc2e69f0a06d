"""How Winograd's tiles of an image lie in scratch and are cut into bands, and for which convolutions they pay."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onexn_plugins.tvm_backend.kernels.problem import Conv, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.tiling import Cut, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Expr
from onexn_plugins.tvm_backend.kernels.window import TileWindow

OUT = 2  # outputs of a tile per side
SIDE = 4  # inputs of a tile per side
POINTS = SIDE * SIDE

# Bytes of transformed input a band may take: what a second-level cache of 1 MiB holds beside a row of weights.
BAND_BUDGET = 900 * 1024

# Transforming the input channels and the sums of a tile costs about as much as so many multiply-adds per channel, and
# sums of single vectors reach this share of what a direct kernel reaches (measured on AVX-512, ResNet-50's layers at
# 10 to 100 % of the blocks). On 64-bit ARM transforming is cheaper beside multiply-adds of four lanes: instructions of
# ResNet-18's layers and small ones at 3 to 100 % of the blocks (benchmarks/arm).
_TRANSFORM_COST, _ARM64_TRANSFORM_COST, _EFFICIENCY = 130, 70, 0.85
# Bytes of points that a sum reads again for each block row: from where on it waits for the second-level cache.
_POINTS_BUDGET = 64 * 1024


def pays(problem: Conv, kept: float, unit: VectorUnit) -> bool:
    """Whether a convolution with this share of its blocks kept is faster this way than directly."""
    if problem.kernel != (3, 3) or problem.stride != (1, 1) or problem.dilation != (1, 1):
        return False
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    if inputs * SIDE * unit.lanes * 4 > _POINTS_BUDGET:
        return False
    window = layout_for(problem, unit).window
    tiles = _lanes(window, -(-problem.out_height // OUT), unit)
    transform_cost = _ARM64_TRANSFORM_COST if unit.is_arm64 else _TRANSFORM_COST
    transformed = tiles * (kept * POINTS * inputs * outputs / _EFFICIENCY + transform_cost * (inputs + outputs))
    return transformed < problem.out_height * problem.out_width * kept * problem.taps * inputs * outputs


@dataclass(frozen=True)
class Layout:
    """How a band of tile rows lies in scratch.

    Points are stored as they are summed, [vector of tiles, row of points, channel, point of the row, tile]: one sum
    reads on and on, where a constant distance between channels would use few sets of the cache.
    """

    problem: Conv
    window: TileWindow
    cut: Cut
    lanes: int

    @property
    def channels(self) -> int:
        """Input channels of a group."""
        return self.problem.in_channels // self.problem.groups

    @property
    def vectors(self) -> int:
        return -(-self.window.positions // self.lanes)

    @property
    def size(self) -> int:
        """Values of all points of a band."""
        return self.vectors * self.lanes * self.channels * POINTS

    @property
    def row_length(self) -> int:
        """Output pixels in one pixel row of a band's tiles, whole vectors."""
        return OUT * self.vectors * self.lanes

    def point(self, tile: Expr, channel: Expr, row: int, column: int) -> Expr:
        """Where a point lies; `tile` is the first of a vector."""
        return ((tile * SIDE + row * self.lanes) * self.channels + channel * self.lanes) * SIDE + column * self.lanes


def layout_for(problem: Conv, unit: VectorUnit) -> Layout:
    """Bands within the budget that leave the fewest lanes empty, the tallest of those."""
    rows, columns = -(-problem.out_height // OUT), -(-problem.out_width // OUT)
    top, left, _, _ = problem.padding
    tiles = replace(problem, kernel=(SIDE, SIDE), stride=(OUT, OUT), padding=(
        top, left, OUT * rows + 2 - problem.height - top, OUT * columns + 2 - problem.width - left))
    window = min((TileWindow(tiles, count) for count in _band_rows(problem, rows, columns)),
                 key=lambda window: (_lanes(window, rows, unit), -window.rows))
    return Layout(problem, window, _cut(window, unit), unit.lanes)


def _band_rows(problem: Conv, rows: int, columns: int) -> range:
    """How many tile rows a band may have."""
    row_bytes = 4 * POINTS * (problem.in_channels // problem.groups) * columns
    return range(1, max(1, min(rows, BAND_BUDGET // row_bytes)) + 1)


def _cut(window: TileWindow, unit: VectorUnit) -> Cut:
    return cut_pixels(window.positions, Tile(1, 1), unit, padded=True)


def _lanes(window: TileWindow, rows: int, unit: VectorUnit) -> int:
    """Tiles computed for the whole image, with lanes left empty and rows that the last band has computed before."""
    cut = _cut(window, unit)
    rest = sum(cut.rest.widths) if cut.rest else 0
    return -(-rows // window.rows) * (cut.repeats * sum(cut.tile.widths) + rest)
