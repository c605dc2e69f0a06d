"""k×k (and strided 1×1) convolutions of many input channels, in slices that the first cache holds.

As spatial's, but the pixels of a tile under all taps stay in the first cache while all block rows are summed over the
slice's channels; the sums of a band wait in scratch.
"""

from __future__ import annotations

from dataclasses import replace

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr
from onexn_plugins.tvm_backend.kernels.encode import Encoded, in_slices
from onexn_plugins.tvm_backend.kernels.parts.bands import (
    packed_source,
    padded_stride,
    share_windows,
    store_rows,
    upright,
    writer,
)
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, listed_taps, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, Run, each_job
from onexn_plugins.tvm_backend.kernels.parts.slices import Slice, adding, best_slices, each_slice, sum_slice, uses
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile, planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import band_start
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request


def why_not_sliced(request: Request) -> str | None:
    """None where slices pay."""
    stage, unit = request.first, request.unit
    if stage.conv.is_pointwise:
        return "1×1 of stride 1"
    if not unit.measured.slices:
        return "slices were not measured to gain on this core"
    found = uses(stage.blocks, unit)
    if found < unit.measured.least_uses:
        return f"a channel's pixels are used {found:.3g} times, slices pay from {unit.measured.least_uses}"
    return None if best_slices(stage.blocks, stage.tile, unit) > 1 else "the first cache holds all channels of a tile"


def sliced(request: Request, slices: int | None = None) -> Kernel:
    """A k×k kernel: per band of output rows and slice of input channels all tiles, for each of them all block rows."""
    stage, unit = request.first, request.unit
    problem = stage.conv
    blocks = in_slices(stage.encoded, slices or best_slices(stage.blocks, stage.tile, unit))
    emitter = _Emitter(request, blocks)
    name = f"conv_{problem.kernel[0]}x{problem.kernel[1]}_sliced"
    constants = weight_constants(blocks, stage.bias) | listed_taps(emitter.window.taps)
    return build(name, problem.input_shape, problem.output_shape, constants, emitter.emit, unit, stage.epilogue)


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, request: Request, blocks: Encoded) -> None:
        stage, self.unit, self.blocks = request.first, request.unit, blocks
        self.problem = upright(stage.conv)
        self.group_inputs, self.group_outputs = blocks.pattern.in_channels, blocks.pattern.group_channels
        self.window, self.sharing = share_windows(self.problem, stage.encoded, self.unit)
        self.cut = cut_pixels(self.window.positions, stage.tile, self.unit, padded=True)
        self.stride = padded_stride(self.window, self.unit)

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel."""
        self.buffers, self.rows = buffers, BlockRows(self.blocks, buffers.constants, self.unit)
        sizes = (self.problem.batch, self.problem.groups, band_start(self.window, 0)[0])
        self.sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), self._job))

    def _job(self, image: Expr, group: Expr, band: Expr) -> None:
        """A band of a group of an image."""
        first_row = band_start(self.window, band)[1]
        sums = T.alloc_buffer((self.group_outputs * self.stride,), "float32", scope="global")
        inputs = image * self.problem.in_channels + group * self.group_inputs
        source = packed_source(self.window, self.buffers.x, inputs, self.group_inputs, self.unit,
                               self.sharing.axis == ROWS, first_row, self.buffers.constants.get("taps"))

        def emit_rows(runs: dict[str, Run]) -> None:
            each_slice(self.blocks, lambda part: self._slice(group, source, sums, part, runs.get(ROWS)))
            self.rows.each_row(group, lambda run: self._store(image, group, first_row, sums, run), runs.get(ROWS))

        self.sharing.along((ROWS,), emit_rows)

    def _slice(self, group: Expr, band: Source, sums: Buffer, part: Slice, rows: Run) -> None:
        """All block rows over a slice's channels, tile by tile."""
        source = replace(band, base=part.number * (self.blocks.slice_channels * self.window.size))
        write = adding(sums, part, writer(sums))

        def emit_tile(shape: PixelTile, start: Expr) -> None:
            def emit_run(run: Channels) -> None:
                target = planes(write, (run.start - group * self.group_outputs) * self.stride, self.stride)
                sum_slice(self.rows, part, source, run, shape, start, target)

            self.rows.each_row(group, emit_run, rows)

        each_tile(self.cut, emit_tile)

    def _store(self, image: Expr, group: Expr, first_row: Expr, sums: Buffer, run: Channels) -> None:
        """A run's sums, finished."""
        problem = self.problem
        with T.serial(0, run.count) as channel:
            plane = (image * problem.out_channels + run.start + channel) * problem.out_height + first_row
            base = (run.start + channel - group * self.group_outputs) * self.stride
            store_rows(self.window, sums, base, self.buffers.output, plane * problem.out_width, self.unit)
