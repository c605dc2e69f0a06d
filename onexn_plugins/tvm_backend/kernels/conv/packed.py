"""1×1 convolutions that copy each tile's pixels first: side by side, aligned, and no more than the first cache holds.

In place, a tile's channels lie height × width apart: vectors straddle cache lines, channels share sets of the cache.
All channels of a wide layer would not fit into it; they are summed in slices: all tiles over some input channels, then
over the next ones. Between slices the sums wait in y.
"""

from __future__ import annotations

from dataclasses import replace

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, load, store
from onexn_plugins.tvm_backend.kernels.conv.pointwise import share_pixels
from onexn_plugins.tvm_backend.kernels.encode import Encoded, in_slices
from onexn_plugins.tvm_backend.kernels.parts.bands import is_aligned, packed_source
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, TILES, Run, Sharing, each_job
from onexn_plugins.tvm_backend.kernels.parts.slices import Slice, adding, best_slices, each_slice, sum_slice, uses
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile, planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Window
from onexn_plugins.tvm_backend.kernels.problem import Conv, Kernel
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import Packing, VectorUnit


def why_not_packed(request: Request) -> str | None:
    """None for a 1×1 convolution whose pixels are used often enough to copy them."""
    stage, unit = request.first, request.unit
    problem = stage.conv
    if problem.taps > 1 or any(problem.padding):
        return "not 1×1 without padding"
    if unit.measured.packing is None:
        return "copying pixels was measured to gain nothing on this core"
    found = uses(stage.blocks, unit)
    least = _least_uses(problem, unit.measured.packing, best_slices(stage.blocks, stage.tile, unit) > 1, unit)
    return None if found >= least else f"a channel's pixels are used {found:.3g} times, copying them pays from {least}"


def _least_uses(problem: Conv, packing: Packing, many: bool, unit: VectorUnit) -> float:
    """Uses of an input channel from which on packing pays; `many` channels do not fit into the first cache."""
    pixels = problem.out_height * problem.out_width
    if not is_aligned(pixels, unit) or 4 * problem.in_channels // problem.groups * pixels >= unit.second_cache:
        return packing.many if many else packing.few
    return packing.aligned_many if many else packing.aligned_few


def packed(request: Request, slices: int | None = None) -> Kernel:
    """A 1×1 kernel of any stride without padding: for each slice of the input channels and tile all block rows."""
    stage, unit = request.first, request.unit
    slices = slices or best_slices(stage.blocks, stage.tile, unit)
    emitter = _Emitter(request, in_slices(stage.encoded, slices))
    return build("conv_1x1_packed", stage.conv.input_shape, stage.conv.output_shape,
                 weight_constants(emitter.blocks, stage.bias), emitter.emit, unit, stage.epilogue, over_residual=True)


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, request: Request, blocks: Encoded) -> None:
        stage, self.unit, self.blocks = request.first, request.unit, blocks
        self.problem = stage.conv
        self.pixels = self.problem.out_height * self.problem.out_width
        self.cut = cut_pixels(self.pixels, stage.tile, self.unit)
        launches = self.problem.batch * self.problem.groups
        self.sharing: Sharing = share_pixels(self.problem, stage.encoded, self.cut, self.unit, launches)
        # Then the residual waits in y as sums do.
        self.in_place = stage.epilogue.residual and stage.epilogue.in_place

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel."""
        self.x, self.rows = buffers.x, BlockRows(self.blocks, buffers.constants, self.unit)
        self.output = replace(buffers.output, residual=None) if self.in_place else buffers.output
        sizes = (self.problem.batch, self.problem.groups)
        self.sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), self._job))

    def _job(self, image: Expr, group: Expr) -> None:
        """A group of an image."""
        channels = self.blocks.pattern.in_channels
        seen = self._seen(image * self.problem.in_channels + group * channels, channels)
        self.sharing.along((TILES, ROWS), lambda runs: self._share(image, group, seen, runs))

    def _share(self, image: Expr, group: Expr, seen: Source, runs: dict[str, Run]) -> None:
        """A thread's tiles or block rows."""
        strides = [self._stride(shape) for shape in (self.cut.tile, self.cut.rest or self.cut.tile)]
        copied = T.alloc_buffer((self.blocks.slice_channels * max(strides),), "float32", scope="global")
        each_slice(self.blocks, lambda part: each_tile(
            self.cut, lambda shape, start: self._tile(image, group, seen, runs, copied, part, shape, start),
            runs.get(TILES)))

    def _tile(self, image: Expr, group: Expr, seen: Source, runs: dict[str, Run], copied: Buffer, part: Slice,
              shape: PixelTile, start: Expr) -> None:
        """All block rows over a tile's pixels in a slice of the channels."""
        base = seen.base + part.number * (self.blocks.slice_channels * self.pixels)
        source = Source(copied, 0, self._stride(shape))
        _copy(replace(seen, base=base + start), part.channels, shape, source)
        write = adding(self.output.y, part, self.output.store, begun=self.in_place)

        def emit_run(run: Channels) -> None:
            first = (image * self.problem.out_channels + run.start) * self.pixels + start
            if part.ends:
                for channel in range(run.count):
                    self.output.prefetch(first + channel * self.pixels, sum(shape.widths))
            sum_slice(self.rows, part, source, run, shape, 0, planes(write, first, self.pixels))

        self.rows.each_row(group, emit_run, runs.get(ROWS))

    def _seen(self, inputs: Expr, channels: int) -> Source:
        """The pixels of a group's input channels that the outputs see, side by side: x itself but under a stride."""
        if self.problem.is_pointwise:
            return Source(self.x, inputs * self.pixels, self.pixels)
        window = Window(self.problem, self.problem.out_height)
        return packed_source(window, self.x, inputs, channels, self.unit, self.sharing.axis in (TILES, ROWS))

    def _stride(self, shape: PixelTile) -> int:
        """Values from one channel's pixels to the next one's: whole vectors, so that all are aligned."""
        return -(-(sum(shape.widths) + shape.columns) // self.unit.lanes) * self.unit.lanes


def _copy(seen: Source, channels: int, shape: PixelTile, copied: Source) -> None:
    """Copy a tile's pixels of some channels; `seen` begins with the first of them."""
    singles = [(position, 1) for position in shape.column_starts]
    with T.serial(0, channels) as channel:
        for position, lanes in [*zip(shape.starts, shape.widths, strict=True), *singles]:
            value = load(seen.buffer, seen.base + channel * seen.channel_stride + position, lanes)
            store(copied.buffer, channel * copied.channel_stride + position, value, lanes)
