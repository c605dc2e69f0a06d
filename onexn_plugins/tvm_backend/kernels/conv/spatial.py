"""k×k convolutions (and strided or padded 1×1 ones): bands of output rows over padded scratch images."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr
from onexn_plugins.tvm_backend.kernels.parts.bands import (
    packed_source,
    padded_stride,
    share_windows,
    store_rows,
    sum_run,
    upright,
    writer,
)
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, listed_taps, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, Run, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import band_start
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request


def why_not_spatial(_request: Request) -> str | None:
    """None: it takes every convolution."""
    return None


def spatial(request: Request) -> Kernel:
    """A k×k kernel: per band of output rows, pack the input once, then all block rows over all its pixels."""
    stage, unit = request.first, request.unit
    problem, encoded = upright(stage.conv), stage.encoded
    group_inputs, out_pixels = problem.in_channels // problem.groups, problem.out_height * problem.out_width
    window, sharing = share_windows(problem, encoded, unit)
    cut = cut_pixels(window.positions, stage.tile, unit, padded=not window.is_compact)
    sums_stride = padded_stride(window, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)
        bands, _ = band_start(window, 0)

        def emit_job(image: Expr, group: Expr, band: Expr) -> None:
            first_row = band_start(window, band)[1]
            inputs = image * problem.in_channels + group * group_inputs
            source = packed_source(window, buffers.x, inputs, group_inputs, unit, sharing.axis == ROWS, first_row,
                                   buffers.constants.get("taps"))

            def emit_rows(runs: dict[str, Run]) -> None:
                channels = channels_at_once(encoded.block_size, unit)
                sums = T.alloc_buffer((channels * sums_stride,), "float32", scope="global")

                def emit_run(run: Channels) -> None:
                    first = (image * problem.out_channels + run.start) * out_pixels + first_row * problem.out_width
                    if window.is_compact:
                        sum_run(rows, source, run, cut, planes(buffers.output.store, first, out_pixels))
                        return
                    sum_run(rows, source, run, cut, planes(writer(sums), 0, sums_stride))
                    with T.serial(0, run.count) as channel:
                        plane = first + channel * out_pixels
                        store_rows(window, sums, channel * sums_stride, buffers.output, plane, unit)

                rows.each_row(group, emit_run, runs.get(ROWS))

            sharing.along((ROWS,), emit_rows)

        sizes = (problem.batch, problem.groups, bands)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    name = f"conv_{stage.conv.kernel[0]}x{stage.conv.kernel[1]}"
    constants = weight_constants(encoded, stage.bias) | listed_taps(window.taps)
    return build(name, stage.conv.input_shape, stage.conv.output_shape, constants, emit, unit, stage.epilogue)
