"""3-d depthwise convolutions: as depthwise, frame by frame of the output."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import depthwise_constants, sum_channel
from onexn_plugins.tvm_backend.kernels.channelwise.sliding import anchors, channel_budget, row_alignment
from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Expr
from onexn_plugins.tvm_backend.kernels.parts.frames import frame_window_for, pack_frames
from onexn_plugins.tvm_backend.kernels.parts.sharing import each_shared_job, window_cost
from onexn_plugins.tvm_backend.kernels.parts.window import band_start
from onexn_plugins.tvm_backend.kernels.problem import Conv3d, Kernel
from onexn_plugins.tvm_backend.kernels.request import Request


def why_not_depthwise_frames(_request: Request) -> str | None:
    """None: it takes every 3-d depthwise convolution."""
    return None


def depthwise_frames(request: Request) -> Kernel:
    """A depthwise kernel: per channel and output frame, what it reads is packed band by band, then summed."""
    stage, unit = request.first, request.unit
    problem = stage.conv
    assert isinstance(problem, Conv3d)
    window = frame_window_for(problem, 1, channel_budget(unit), row_alignment(unit))

    def emit(buffers: Buffers) -> None:
        def emit_channel(image: Expr, channel: Expr) -> None:
            plane = image * problem.out_channels + channel
            scratch = T.alloc_buffer((window.size,), "float32", scope="global")
            bands, _ = band_start(window, 0)
            with T.serial(0, problem.out_depth) as frame, T.serial(0, bands) as band:
                first_row = band_start(window, band)[1]
                pack_frames(window, buffers.x, plane, scratch, 0, frame, first_row, unit)
                first = ((plane * problem.out_depth + frame) * problem.out_height + first_row) * problem.out_width
                sum_channel(window, scratch, 0, channel, buffers, first, unit)

        cost = problem.out_depth * window_cost(problem)
        each_shared_job((problem.batch, problem.out_channels), cost, unit.threads, emit_channel)

    constants = depthwise_constants(stage) | anchors(window, unit)
    return build("depthwise_3d", problem.input_shape, problem.output_shape, constants, emit, unit, stage.epilogue)
