"""The sums of a band at Winograd's points, one point at a time: a product of matrices, as a 1×1 convolution is.

Sums of a whole row of points take six registers for each channel. Where registers are few they leave room for two
channels, and a vector of the input is fetched for two multiply-adds only.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.problem import Tile
from onexn_plugins.tvm_backend.kernels.sharing import Run
from onexn_plugins.tvm_backend.kernels.sums import each_tile, planes, sum_tile, zero_start
from onexn_plugins.tvm_backend.kernels.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, Register, load, store
from onexn_plugins.tvm_backend.kernels.winograd_layout import ProductLayout
from onexn_plugins.tvm_backend.kernels.winograd_transform import transform


@dataclass(frozen=True)
class ProductSums:
    """See Sums.

    Attributes:
        layout: of the band.
        rows: the transformed weight; its blocks have one value a channel at each point.
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
        size = rows.pattern.group_channels * layout.points * layout.vectors * layout.lanes
        return cls(layout, rows, group, tile, T.alloc_buffer((size,), "float32", scope="global"))

    def place(self, channel: Expr, point: Expr) -> Expr:
        """Where an output channel's sums at a point lie."""
        within = channel - self.group * self.rows.pattern.group_channels
        return (within * self.layout.points + point) * (self.layout.vectors * self.layout.lanes)

    def add(self, points: Buffer, run: Run) -> None:
        """All block rows for one tile after the other: its values of a point stay in the first cache."""
        layout, unit = self.layout, self.rows.unit
        cut = cut_pixels(layout.window.positions, self.tile, unit, padded=True)

        def write(index: Expr, value: Expr, lanes: int) -> None:
            store(self.values, index, value, lanes)

        with T.serial(0, layout.points) as point:
            rows = self.rows.behind(point * (self.rows.encoded.num_blocks * self.rows.encoded.block_size))
            source = Source(points, point * layout.plane, layout.stride)

            def emit_tile(shape: PixelTile, start: Expr) -> None:
                def emit_run(channels: Channels) -> None:
                    target = planes(write, self.place(channels.start, point), self.place(1, 0) - self.place(0, 0))
                    sum_tile(rows, source, channels, shape, start, target, zero_start(channels, unit))

                rows.each_row(self.group, emit_run, run)

            each_tile(cut, emit_tile)

    def pixels(self, channel: Expr, tile: Expr, lanes: int) -> list[list[Register]]:
        layout = self.layout
        found = [Register(load(self.values, self.place(channel, point) + tile, lanes), lanes)
                 for point in range(layout.points)]
        return transform(layout.vertical[0].output, layout.horizontal[0].output, found)
