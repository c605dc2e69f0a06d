"""The sums of a band at Winograd's points, one point at a time: a product of matrices, as a 1×1 convolution is.

Sums of a whole row of points take six registers for each channel. Where registers are few they leave room for two
channels, and a vector of the input is fetched for two multiply-adds only.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, load, store
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import Run
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile, planes, sum_tile, zero_start
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.problem import Tile
from onexn_plugins.tvm_backend.kernels.winograd.layout import Alike, ProductLayout
from onexn_plugins.tvm_backend.kernels.winograd.transform import transform


@dataclass(frozen=True)
class ProductSums:
    """See Sums.

    Attributes:
        layout: of the band.
        rows: the transformed weight.
        group: which conv group.
        tile: block size and vectors of tiles that are summed at once.
        values: the sums, [output channel, point, tile].
    """

    layout: ProductLayout
    rows: BlockRows
    group: Expr
    tile: Tile
    values: Buffer

    @classmethod
    def allocate(cls, layout: ProductLayout, rows: BlockRows, group: Expr, tile: Tile) -> ProductSums:
        size = rows.pattern.group_channels * len(layout.numbers) * layout.vectors * layout.lanes
        return cls(layout, rows, group, tile, T.alloc_buffer((size,), "float32", scope="global"))

    def place(self, channel: Expr, point: Expr) -> Expr:
        """Where an output channel's sums at a point lie."""
        within = channel - self.group * self.rows.pattern.group_channels
        return within * self.channel_stride + point * (self.layout.vectors * self.layout.lanes)

    @property
    def channel_stride(self) -> int:
        """Sums of an output channel."""
        return len(self.layout.numbers) * self.layout.vectors * self.layout.lanes

    def add(self, points: Buffer, run: Run) -> None:
        """All block rows for one tile after the other: its values of a point stay in the first cache."""
        for alike in self.layout.alike:
            with T.serial(0, len(alike.points)) as index:
                self._add_point(alike, index, points, run)

    def _add_point(self, alike: Alike, index: Expr, points: Buffer, run: Run) -> None:
        layout, unit, phases = self.layout, self.rows.unit, len(alike.phases)
        before = alike.before + index * phases
        rows = self.rows.behind(before, phases)
        source = Source(points, before * (layout.channels * layout.stride), phases * layout.stride,
                        tuple(phase * layout.stride for phase in range(phases)))

        def write(at: Expr, value: Expr, lanes: int) -> None:
            store(self.values, at, value, lanes)

        def emit_tile(shape: PixelTile, start: Expr) -> None:
            def emit_run(channels: Channels) -> None:
                first = self.place(channels.start, alike.first + index)
                target = planes(write, first, self.channel_stride)
                sum_tile(rows, source, channels, shape, start, target, zero_start(channels, unit))

            rows.each_row(self.group, emit_run, run)

        each_tile(cut_pixels(layout.window.positions, self.tile, unit, padded=True), emit_tile)

    def pixels(self, channel: Expr, tile: Expr, lanes: int) -> list[list[Register]]:
        layout = self.layout
        points = product(range(layout.side[0]), range(layout.side[1]))
        places = [self.place(channel, layout.numbers[row, column]) for row, column in points]
        found = [Register(load(self.values, place + tile, lanes), lanes) for place in places]
        return transform(layout.vertical[0].output, layout.horizontal[0].output, found)
