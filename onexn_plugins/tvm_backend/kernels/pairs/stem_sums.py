"""The sums of a stem's strips at Winograd's points, and the way back to pixels without leaving registers.

The points of a side are infinity, 0 and 1. The products at the last one belong to both pixels of a tile's side, those
at the others to one each, the second and the first. So sums at the last one come first, and both pixels go on from
them: along a row in registers, and from row to row in scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, constant, load, splat, store
from onexn_plugins.tvm_backend.kernels.pairs.stem_tiles import OUTPUTS, VECTORS, rows_of
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels
from onexn_plugins.tvm_backend.kernels.winograd.layout import Points, Rows

# Takes (channel of the run, pixel row of the strip, vector of pixels).
StorePixels = Callable[[int, int, Expr], None]
# Of a sum: its channel of the run, vector of the strip and pixel along the row of a tile.
Place = tuple[int, int, int]
_COMMON = 2  # which point belongs to both pixels


@dataclass(frozen=True)
class StripSums:
    """A kernel's sums in strips.

    Attributes:
        points: how strips lie in scratch.
        source: that scratch.
        rows: the transformed weight.
        common: scratch for what the pixels of a run of channels have in common.
    """

    points: Points
    source: Buffer
    rows: BlockRows
    common: Buffer

    @classmethod
    def allocate(cls, points: Points, rows: BlockRows, channels: int, strips: int) -> StripSums:
        """For runs of up to so many channels and for a band of strips."""
        source = T.alloc_buffer((strips * points.lanes * points.channels * points.points,), "float32", scope="global")
        common = T.alloc_buffer((channels * VECTORS * OUTPUTS * rows.unit.lanes,), "float32", scope="global")
        return cls(points, source, rows, common)

    def emit(self, run: Channels, strip: Expr, activate: Callable[[Expr, int], Expr], target: StorePixels) -> None:
        """Emit all pixels of a run of channels in a strip: activated, then given to the target."""
        lanes = self.rows.unit.lanes
        own, last = self.points.rows

        def place(channel: int, vector: int, pixel: int) -> int:
            return ((channel * VECTORS + vector) * OUTPUTS + pixel) * lanes

        def bias(channel: int, vector: int, pixel: int) -> Expr:
            return splat(self.rows.bias[run.start + channel], lanes)

        for where, value in self._sum_row(run, strip, last, last.first, bias).items():
            store(self.common, place(*where), value.value, lanes)
        for row in range(own.first, own.last):
            found = self._sum_row(run, strip, own, row, lambda *where: load(self.common, place(*where), lanes))
            pixels = {where: Register(activate(value.value, lanes), lanes).value for where, value in found.items()}
            for channel in range(run.count):
                for vector in range(VECTORS):
                    both = rows_of(pixels[channel, vector, 0], pixels[channel, vector, 1], lanes)
                    for tile_row, both_pixels in enumerate(both):
                        target(channel, (vector * 2 + tile_row) * OUTPUTS + _pixel(row), both_pixels)

    def _sum_row(self, run: Channels, strip: Expr, alike: Rows, row: int,
                 start: Callable[[int, int, int], Expr]) -> dict[Place, Register]:
        """The sums of one row of points, in pixels along it; `start` is added to each."""
        lanes = self.rows.unit.lanes
        vectors = [(channel, vector) for channel in range(run.count) for vector in range(VECTORS)]
        common = {where: Register(constant(0, lanes), lanes) for where in vectors}
        self._add(run, strip, alike, row, {_COMMON: common})
        pixels = {
            point: {where: Register(common[where].value + start(*where, _pixel(point)), lanes) for where in vectors}
            for point in range(_COMMON)
        }
        self._add(run, strip, alike, row, pixels)
        return {(*where, _pixel(point)): value for point, found in pixels.items() for where, value in found.items()}

    def _add(self, run: Channels, strip: Expr, alike: Rows, row: int,
             totals: dict[int, dict[tuple[int, int], Register]]) -> None:
        """Add the products at some points of a row to their sums."""
        rows, points, lanes = self.rows, self.points, self.rows.unit.lanes
        first, count = alike.before(row) * rows.encoded.num_blocks, len(alike.places)

        def add(block: Expr, channel: Expr, way: int) -> None:
            for place, (_, _, column) in enumerate(alike.places):
                if column not in totals:
                    continue
                index = points.point(strip * points.lanes, channel, alike, row, place)
                values = [Register(load(self.source, index + vector * lanes, lanes), lanes)
                          for vector in range(VECTORS)]
                weights = rows.weights_at(first + block * count + place, run)
                for (output, vector), total in totals[column].items():
                    total.multiply_add(weights[output](lanes), values[vector].value)

        rows.each_block(run.row, add)


def _pixel(point: int) -> int:
    """Which pixel the products at infinity (point 0) and at 0 (point 1) belong to."""
    return OUTPUTS - 1 - point
