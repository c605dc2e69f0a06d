"""Max and average pooling, and the mean over whole channels."""

from __future__ import annotations

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.sliding import (
    Accumulate,
    anchors,
    channel_budget,
    row_alignment,
    slide,
)
from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    Register,
    constant,
    has_own_maximum,
    load,
    maximum,
    pieces,
    sum_lanes,
)
from onexn_plugins.tvm_backend.kernels.parts.sharing import COPY, each_shared_job, window_cost
from onexn_plugins.tvm_backend.kernels.parts.window import Image, band_start, pack, window_for
from onexn_plugins.tvm_backend.kernels.problem import GlobalPool, Kernel, Pool
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

_MEAN_REGISTERS = 4  # independent sums hide the latency of the addition


def why_not_pool(request: Request) -> str | None:
    """None for the maximum or the average."""
    problem = request.first.problem
    assert isinstance(problem, Pool)
    return None if problem.kind in ("max", "average") else f"{problem.kind} pooling"


def pool(request: Request) -> Kernel:
    """Max or average pooling, channel by channel in padded scratch."""
    problem, unit = request.first.problem, request.unit
    assert isinstance(problem, Pool)
    is_max = problem.kind == "max"
    conv = problem.as_conv
    window = window_for(conv, 1, channel_budget(unit), row_alignment(unit))
    padding, pixels = float("-inf") if is_max else 0.0, problem.height * problem.width

    def emit(buffers: Buffers) -> None:
        def emit_windows(plane: Expr, keeps_nan: bool) -> None:
            source = Image(buffers.x, plane * pixels, problem.width)
            scratch = T.alloc_buffer((window.size,), "float32", scope="global")
            with T.serial(0, band_start(window, 0)[0]) as band:
                first_row = band_start(window, band)[1]
                pack(window, source, scratch, 0, first_row, unit, padding)

                def finish(row: Expr, column: Expr, value: Expr, lanes: int) -> None:
                    pixel = (first_row + row) * conv.out_width + column
                    if not is_max:
                        value = value * load(buffers.constants["shares"], pixel, lanes)
                    buffers.output.store(plane * (conv.out_height * conv.out_width) + pixel, value, lanes)

                slide(window, scratch, 0, unit, lambda lanes: constant(padding, lanes),
                      lambda lanes: _take_maximum(lanes, unit, keeps_nan) if is_max else _add, finish,
                      buffers.constants)

        def emit_plane(plane: Expr) -> None:
            if not is_max or unit.isa.keeps_nan:
                emit_windows(plane, keeps_nan=True)
                return
            # Their sum tells whether one is NaN, where each maximum takes three instructions instead of one (5×5 of
            # stride 1: 1.9 times as long).
            with T.If(tirx.isnan(_sum(buffers.x, plane * pixels, pixels, unit.lanes))):
                with T.Then():
                    emit_windows(plane, keeps_nan=True)
                with T.Else():
                    emit_windows(plane, keeps_nan=False)

        each_shared_job((problem.batch * problem.channels,), window_cost(conv), unit.threads, emit_plane)

    constants = anchors(window, unit) | ({} if is_max else {"shares": _shares(problem)})
    return build(f"{problem.kind}_pool", problem.input_shape, problem.output_shape, constants, emit, unit)


def why_not_mean(_request: Request) -> str | None:
    """None: it takes every image."""
    return None


def global_average_pool(request: Request) -> Kernel:
    """The mean of each channel."""
    problem, unit = request.first.problem, request.unit
    assert isinstance(problem, GlobalPool)
    pixels = problem.height * problem.width

    def emit(buffers: Buffers) -> None:
        def emit_plane(plane: Expr) -> None:
            total = _sum(buffers.x, plane * pixels, pixels, unit.lanes)
            buffers.output.store(plane, total * constant(1 / pixels), 1)

        each_shared_job((problem.batch * problem.channels,), float(pixels * COPY), unit.threads, emit_plane)

    return build("global_average_pool", problem.input_shape, problem.output_shape, {}, emit, unit)


def _sum(buffer: Buffer, first: Expr, count: int, lanes: int) -> Expr:
    """The sum of `count` consecutive values."""
    step = _MEAN_REGISTERS * lanes
    totals = [Register(constant(0, lanes), lanes) for _ in range(_MEAN_REGISTERS)]
    with T.serial(0, count // step) as index:
        for position, total in enumerate(totals):
            total.set(total.value + load(buffer, first + index * step + position * lanes, lanes))
    position = count - count % step
    for index, width in enumerate(pieces(count % step, lanes)):
        if width == lanes:
            totals[index].set(totals[index].value + load(buffer, first + position, width))
        else:
            totals.append(Register(load(buffer, first + position, width), width))
        position += width
    result = constant(0)
    for total in totals:
        result = result + sum_lanes(total)
    return result


def _take_maximum(lanes: int, unit: VectorUnit, keeps_nan: bool) -> Accumulate:
    """With NaN as the maximum of what has one, as in torch, where that is asked for."""
    def larger(total: Register, value: Expr) -> Expr:
        found = maximum(total.value, value, lanes, unit)
        return found if has_own_maximum(lanes, unit) or not keeps_nan else tirx.Select(tirx.isnan(value), value, found)

    return lambda total, tap, value: total.set(larger(total, value))


def _add(total: Register, tap: int, value: Expr) -> None:
    total.set(total.value + value)


def _shares(problem: Pool) -> np.ndarray:
    """One over the number of values each output pixel averages, float32 [out_height * out_width]."""
    conv = problem.as_conv
    top, left, bottom, right = conv.padding
    below, behind = problem.beyond

    def counts(size: int, out_size: int, axis: int, before: int, after: int) -> np.ndarray:
        """How many taps of each window count: those in the image, or in its padding as well."""
        taps = np.arange(conv.kernel[axis]) * conv.dilation[axis]
        positions = np.arange(out_size)[:, None] * conv.stride[axis] + taps - before
        around = (before, after) if problem.count_include_pad else (0, 0)
        return ((positions >= -around[0]) & (positions < size + around[1])).sum(1)

    rows = counts(conv.height, conv.out_height, 0, top, bottom - below)
    columns = counts(conv.width, conv.out_width, 1, left, right - behind)
    return (1.0 / np.maximum(1, rows[:, None] * columns)).astype(np.float32).reshape(-1)
