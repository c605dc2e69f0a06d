"""Depthwise convolutions: one kernel per channel, dense by nature."""

from __future__ import annotations

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.sliding import (
    Accumulate,
    anchors,
    channel_budget,
    row_alignment,
    slide,
)
from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, splat
from onexn_plugins.tvm_backend.kernels.parts.blocks import lane_weights
from onexn_plugins.tvm_backend.kernels.parts.sharing import each_shared_job, window_cost
from onexn_plugins.tvm_backend.kernels.parts.window import Image, Window, band_start, pack, window_for
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request, Stage
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Weights of larger kernels do not fit into registers beside the sums; they are read from memory at each use.
_TAPS_IN_REGISTERS = 9


def why_not_depthwise(_request: Request) -> str | None:
    """None: it takes every depthwise convolution."""
    return None


def depthwise(request: Request) -> Kernel:
    """A depthwise kernel: each channel is packed into padded scratch band by band, then summed."""
    stage, unit = request.first, request.unit
    problem = stage.conv
    window = window_for(problem, 1, channel_budget(unit), row_alignment(unit))

    def emit(buffers: Buffers) -> None:
        def emit_channel(image: Expr, channel: Expr) -> None:
            plane = image * problem.out_channels + channel
            source = Image(buffers.x, plane * (problem.height * problem.width), problem.width)
            scratch = T.alloc_buffer((window.size,), "float32", scope="global")
            bands, _ = band_start(window, 0)
            with T.serial(0, bands) as band:
                first_row = band_start(window, band)[1]
                pack(window, source, scratch, 0, first_row, unit)
                first = (plane * problem.out_height + first_row) * problem.out_width
                sum_channel(window, scratch, 0, channel, buffers, first, unit)

        each_shared_job((problem.batch, problem.out_channels), window_cost(problem), unit.threads, emit_channel)

    constants = depthwise_constants(stage) | anchors(window, unit)
    return build("depthwise", problem.input_shape, problem.output_shape, constants, emit, unit, stage.epilogue)


def depthwise_constants(stage: Stage) -> dict[str, np.ndarray]:
    """The arrays that a depthwise stage needs at run time."""
    return {"dw_values": np.ascontiguousarray(stage.array, np.float32).reshape(-1),
            "dw_bias": np.ascontiguousarray(stage.bias, np.float32)}


def sum_channel(window: Window, scratch: Buffer, base: Expr, channel: Expr, buffers: Buffers, first: Expr,
                unit: VectorUnit) -> None:
    """Emit the depthwise sums of one packed channel's band; its output starts at flat index `first`."""
    values, bias = buffers.constants["dw_values"], buffers.constants["dw_bias"][channel]
    taps = window.problem.taps

    def accumulate(lanes: int) -> Accumulate:
        if unit.isa.multiplies_by_lane:
            weights = [weight(lanes) for weight in lane_weights(values, channel * taps, taps)]
        else:
            weights = [splat(values[channel * taps + tap], lanes) for tap in range(taps)]
            if taps <= _TAPS_IN_REGISTERS:
                weights = [Register(weight, lanes).value for weight in weights]
        return lambda total, tap, value: total.multiply_add(weights[tap], value)

    def finish(row: Expr, column: Expr, value: Expr, lanes: int) -> None:
        buffers.output.store(first + row * window.problem.out_width + column, value, lanes)

    slide(window, scratch, base, unit, lambda lanes: splat(bias, lanes), accumulate, finish, buffers.constants)
