"""The 1×1 convolution after a depthwise one, of what that has just computed: a band of rows, side by side in scratch.

The tensor between them (MobileNetV2 section 3.3: as wide as the hidden one) is neither written to memory nor read.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, Output
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, channel_stride
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import row_costs
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile, planes, sum_tile
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from onexn_plugins.tvm_backend.kernels.request import Stage
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

_PREFIX = "projection_"


@dataclass(frozen=True)
class Destination:
    """Where a depthwise convolution's output goes.

    Attributes:
        buffers: of the kernel; their output takes it.
        base: where channel 0 begins.
        channel_stride: values from one channel to the next.
        width: values from one row to the next.
        of_band: channels begin with the band's first row, not with the image's.
    """

    buffers: Buffers
    base: Expr
    channel_stride: int
    width: int
    of_band: bool = False

    @classmethod
    def of_output(cls, buffers: Buffers, depthwise: Conv, image: Expr) -> Destination:
        """The kernel's own output."""
        pixels = depthwise.out_height * depthwise.out_width
        return cls(buffers, image * (depthwise.out_channels * pixels), pixels, depthwise.out_width)

    def first(self, channel: Expr, row: Expr, in_band: Expr = 0) -> Expr:
        """Where row `row` of the image, which is row `in_band` of the band, begins."""
        return self.base + channel * self.channel_stride + (in_band if self.of_band else row) * self.width


@dataclass(frozen=True, eq=False)
class Projection:
    """A 1×1 convolution of stride 1 and one group, the last stage of its kernel.

    The kernel's residual and output are its own.
    """

    stage: Stage

    @property
    def problem(self) -> Conv:
        return self.stage.conv

    @property
    def encoded(self) -> Encoded:
        return self.stage.encoded

    @property
    def constants(self) -> dict[str, np.ndarray]:
        return weight_constants(self.encoded, self.stage.bias, _PREFIX)

    @property
    def macs(self) -> float:
        """Multiply-adds for an image, and those that storing its sums is worth."""
        pixels = self.problem.out_height * self.problem.out_width
        return float(row_costs(self.encoded, pixels).sum())

    def stride(self, rows: int, unit: VectorUnit) -> int:
        """Values between two channels of scratch for so many rows."""
        return channel_stride(rows * self.problem.width, unit.lanes)

    def scratch(self, rows: int, unit: VectorUnit) -> Buffer:
        """For so many rows of all input channels."""
        return T.alloc_buffer((self.problem.in_channels * self.stride(rows, unit),), "float32", scope="global")

    def takes(self, buffers: Buffers, epilogue: Epilogue, scratch: Buffer, rows: int, unit: VectorUnit) -> Destination:
        """Where the depthwise convolution, of this epilogue, leaves the rows of a band."""
        taken = replace(buffers, output=Output(scratch, None, epilogue, unit))
        return Destination(taken, 0, self.stride(rows, unit), self.problem.width, of_band=True)

    def sum_rows(self, buffers: Buffers, scratch: Buffer, band_rows: int, image: Expr, first_row: Expr, rows: int,
                 unit: VectorUnit, in_band: int = 0) -> None:
        """Emit the sums of `rows` rows from `first_row` on, which is row `in_band` of a band of band_rows."""
        problem, width = self.problem, self.problem.width
        own = {name.removeprefix(_PREFIX): constant for name, constant in buffers.constants.items()
               if name.startswith(_PREFIX)}
        blocks = BlockRows(self.encoded, own, unit)
        source = Source(scratch, in_band * width, self.stride(band_rows, unit))
        pixels = problem.height * width

        def emit_tile(shape: PixelTile, start: Expr) -> None:
            def emit_run(run: Channels) -> None:
                first = (image * problem.out_channels + run.start) * pixels + first_row * width
                sum_tile(blocks, source, run, shape, start, planes(buffers.output.store, first, pixels))

            blocks.each_row(0, emit_run)

        each_tile(cut_pixels(rows * width, self.stage.tile, unit), emit_tile)
