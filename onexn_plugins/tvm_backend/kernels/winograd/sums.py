"""The sums of a band at Winograd's points, a row of points at a time, transformed back along rows at once."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, constant, load, store
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels
from onexn_plugins.tvm_backend.kernels.parts.sharing import Run
from onexn_plugins.tvm_backend.kernels.winograd.layout import Layout, Rows
from onexn_plugins.tvm_backend.kernels.winograd.pixels import each_vector
from onexn_plugins.tvm_backend.kernels.winograd.transform import combine


@dataclass(frozen=True)
class RowSums:
    """See Sums.

    Attributes:
        layout: of the band.
        rows: the transformed weight.
        group: which conv group.
        halves: the sums, [output channel, row of points, column of pixels, tile].
    """

    layout: Layout
    rows: BlockRows
    group: Expr
    halves: Buffer

    @classmethod
    def allocate(cls, layout: Layout, rows: BlockRows, group: Expr) -> RowSums:
        size = rows.pattern.group_channels * layout.half_size
        return cls(layout, rows, group, T.alloc_buffer((size,), "float32", scope="global"))

    def half(self, channel: Expr) -> Expr:
        """Where the sums of an output channel lie."""
        return (channel - self.group * self.rows.pattern.group_channels) * self.layout.half_size

    def add(self, points: Buffer, run: Run) -> None:
        """One row of points after the other: weights are read on and on."""
        for alike in self.layout.rows:
            with T.serial(alike.first, alike.last) as row:

                def emit(channels: Channels, alike: Rows = alike, row: Expr = row) -> None:
                    each_vector(self.layout, lambda tile, lanes: _sum_row(
                        self, channels, alike, row, points, tile, lanes))

                self.rows.each_row(self.group, emit, run)

    def pixels(self, channel: Expr, tile: Expr, lanes: int) -> list[list[Register]]:
        """The way back along columns."""
        layout, columns = self.layout, []
        for column in range(layout.outputs):
            places = [self.half(channel) + layout.half(row, column) + tile for row in range(layout.side[0])]
            found = [Register(load(self.halves, place, lanes), lanes) for place in places]
            columns.append(combine(layout.vertical[0].output, found))
        return [list(row) for row in zip(*columns, strict=True)]


def _sum_row(sums: RowSums, run: Channels, alike: Rows, row: Expr, points: Buffer, tile: Expr, lanes: int) -> None:
    """A run's sums at one row of points for a vector of tiles."""
    layout, rows, count = sums.layout, sums.rows, len(alike.places)
    first = alike.before(row) * rows.encoded.num_blocks
    totals = [[Register(constant(0, lanes), lanes) for _ in range(layout.side[1])] for _ in range(run.count)]

    def add(block: Expr, channel: Expr, way: int) -> None:
        rows.prefetch(first + block * count, count, run)
        for place, (_, _, column) in enumerate(alike.places):
            value = Register(load(points, layout.point(tile, channel, alike, row, place), lanes), lanes)
            weights = rows.weights_at(first + block * count + place, run)
            for registers, weight in zip(totals, weights, strict=True):
                registers[column].multiply_add(weight(lanes), value.value)

    rows.each_block(run.row, add)
    for channel, registers in enumerate(totals):
        for column, value in enumerate(combine(layout.horizontal[0].output, registers)):
            place = sums.half(run.start + channel) + layout.half(row, column)
            store(sums.halves, place + tile, value.value, lanes)
