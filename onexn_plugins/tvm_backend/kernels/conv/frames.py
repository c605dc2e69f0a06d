"""3-d convolutions: frame by frame of the output, bands of rows over padded scratch of the frames that they read."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr, alloc_running_over
from onexn_plugins.tvm_backend.kernels.parts.bands import padded_stride, store_rows, sum_run, writer
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, listed_taps, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.frames import frame_window_for, pack_frames
from onexn_plugins.tvm_backend.kernels.parts.sharing import COPY, JOBS, ROWS, Run, each_job, share_bands
from onexn_plugins.tvm_backend.kernels.parts.sums import planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import band_start
from onexn_plugins.tvm_backend.kernels.problem import Conv3d, Kernel
from onexn_plugins.tvm_backend.kernels.request import Request


def why_not_frames(_request: Request) -> str | None:
    """None: it takes every 3-d convolution."""
    return None


def conv_frames(request: Request) -> Kernel:
    """A k×k×k kernel: per band of an output frame, pack what it reads once, then all block rows over its pixels."""
    stage, unit = request.first, request.unit
    problem, encoded = stage.conv, stage.encoded
    assert isinstance(problem, Conv3d)
    group_inputs = problem.in_channels // problem.groups
    frame_pixels = problem.out_height * problem.out_width
    out_pixels = problem.out_depth * frame_pixels
    window = frame_window_for(problem, group_inputs, unit.second_cache // 2)
    bands, _ = band_start(window, 0)
    packing = float(group_inputs * window.size * COPY)
    sharing = share_bands(problem, encoded, window.positions, problem.out_depth * bands, packing, unit.threads)
    cut = cut_pixels(window.positions, stage.tile, unit, padded=not window.is_compact)
    sums_stride = padded_stride(window, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def emit_job(image: Expr, group: Expr, frame: Expr, band: Expr) -> None:
            first_row = band_start(window, band)[1]
            scratch = alloc_running_over(group_inputs * window.size, unit.lanes)
            inputs = image * problem.in_channels + group * group_inputs
            with (T.parallel if sharing.axis == ROWS else T.serial)(0, group_inputs) as channel:
                pack_frames(window, buffers.x, inputs + channel, scratch, channel * window.size, frame, first_row, unit)
            source = Source(scratch, 0, window.size, window.taps, listed=buffers.constants.get("taps"))

            def emit_rows(runs: dict[str, Run]) -> None:
                sums = T.alloc_buffer((channels_at_once(encoded.block_size, unit) * sums_stride,), "float32",
                                      scope="global")

                def emit_run(run: Channels) -> None:
                    first = ((image * problem.out_channels + run.start) * out_pixels + frame * frame_pixels
                             + first_row * problem.out_width)
                    if window.is_compact:
                        sum_run(rows, source, run, cut, planes(buffers.output.store, first, out_pixels))
                        return
                    sum_run(rows, source, run, cut, planes(writer(sums), 0, sums_stride))
                    with T.serial(0, run.count) as channel:
                        store_rows(window, sums, channel * sums_stride, buffers.output, first + channel * out_pixels,
                                   unit)

                rows.each_row(group, emit_run, runs.get(ROWS))

            sharing.along((ROWS,), emit_rows)

        sizes = (problem.batch, problem.groups, problem.out_depth, bands)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    name = f"conv_{problem.frames}x{problem.kernel[0]}x{problem.kernel[1]}"
    constants = weight_constants(encoded, stage.bias) | listed_taps(window.taps)
    return build(name, problem.input_shape, problem.output_shape, constants, emit, unit, stage.epilogue)
