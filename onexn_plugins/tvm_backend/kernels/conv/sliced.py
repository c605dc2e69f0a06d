"""k×k (and strided 1×1) convolutions of many input channels, in slices that the first cache holds.

As spatial's, but the pixels of a tile under all taps stay in the first cache while all block rows are summed over the
slice's channels; the sums of a band wait in scratch.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr
from onexn_plugins.tvm_backend.kernels.encode import Encoded, in_slices
from onexn_plugins.tvm_backend.kernels.parts.bands import (
    packed_source,
    padded_stride,
    share_windows,
    store_rows,
    writer,
)
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, Run, each_job
from onexn_plugins.tvm_backend.kernels.parts.slices import (
    Slice,
    adding,
    best_slices,
    each_slice,
    sum_slice,
    uses,
)
from onexn_plugins.tvm_backend.kernels.parts.sums import each_tile, planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import band_start
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


def is_sliced(encoded: Encoded, tile: Tile, unit: VectorUnit) -> bool:
    """Whether slices pay."""
    measured = unit.measured
    return measured.slices and uses(encoded, unit) >= measured.least_uses and best_slices(encoded, tile, unit) > 1


def sliced(
    problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue, unit: VectorUnit, tile: Tile,
    slices: int | None = None,
) -> Kernel:
    """A k×k kernel: per band of output rows and slice of input channels all tiles, for each of them all block rows."""
    group_inputs, group_outputs = encoded.pattern.in_channels, encoded.pattern.group_channels
    window, sharing = share_windows(problem, encoded, unit)
    cut = cut_pixels(window.positions, tile, unit, padded=True)
    stride, blocks = padded_stride(window, unit), in_slices(encoded, slices or best_slices(encoded, tile, unit))

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(blocks, buffers.constants, unit)
        bands, _ = band_start(window, 0)

        def emit_job(image: Expr, group: Expr, band: Expr) -> None:
            first_row = band_start(window, band)[1]
            sums = T.alloc_buffer((group_outputs * stride,), "float32", scope="global")
            inputs = image * problem.in_channels + group * group_inputs
            band_source = packed_source(window, buffers.x, inputs, group_inputs, unit, sharing.axis == ROWS, first_row)

            def emit_rows(runs: dict[str, Run]) -> None:
                def emit_slice(part: Slice) -> None:
                    source = replace(band_source, base=part.number * (blocks.slice_channels * window.size))
                    write = adding(sums, part, writer(sums))

                    def emit_tile(shape: PixelTile, start: Expr) -> None:
                        def emit_run(run: Channels) -> None:
                            target = planes(write, (run.start - group * group_outputs) * stride, stride)
                            sum_slice(rows, part, source, run, shape, start, target)

                        rows.each_row(group, emit_run, runs.get(ROWS))

                    each_tile(cut, emit_tile)

                each_slice(blocks, emit_slice)

                def emit_stores(run: Channels) -> None:
                    with T.serial(0, run.count) as channel:
                        plane = (image * problem.out_channels + run.start + channel) * problem.out_height + first_row
                        base = (run.start + channel - group * group_outputs) * stride
                        store_rows(window, sums, base, buffers.output, plane * problem.out_width, unit)

                rows.each_row(group, emit_stores, runs.get(ROWS))

            sharing.along((ROWS,), emit_rows)

        sizes = (problem.batch, problem.groups, bands)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    name = f"conv_{problem.kernel[0]}x{problem.kernel[1]}_sliced"
    return build(name, problem.input_shape, problem.output_shape, weight_constants(blocks, bias), emit, unit, epilogue)
