"""A 1×N convolution and the depthwise convolution after it, one block row at a time.

The hidden tensor between them (the widest of an inverted residual, MobileNetV2 section 3.3) never exists: N channels
of it are summed, activated, padded and consumed while they are in the cache.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded
from onexn_plugins.tvm_backend.kernels.activation import activate
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.depthwise import check_depthwise, depthwise_constants, sum_channel
from onexn_plugins.tvm_backend.kernels.direct import cut_row, is_direct, sum_rows
from onexn_plugins.tvm_backend.kernels.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Kernel, Tile, Unsupported, VectorUnit
from onexn_plugins.tvm_backend.kernels.sliding import CHANNEL_BUDGET, row_alignment
from onexn_plugins.tvm_backend.kernels.spatial import padded_stride, sum_run
from onexn_plugins.tvm_backend.kernels.sums import bias_pixels, planes, written_out_bias
from onexn_plugins.tvm_backend.kernels.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, Register, fill, store
from onexn_plugins.tvm_backend.kernels.window import Image, Window, band_start, pack, pack_channels, window_for


def check_fusible(problem: Conv, epilogue: Epilogue, depthwise: Conv) -> None:
    """Raise Unsupported unless `depthwise` is one and takes exactly what the convolution gives."""
    check_depthwise(depthwise)
    if depthwise.input_shape != problem.output_shape:
        raise Unsupported(f"the convolution gives {problem.output_shape}, the depthwise one takes "
                          f"{depthwise.input_shape}")
    if epilogue.residual:
        raise Unsupported("a residual between the convolution and the depthwise one")


def fused_kernel(
    problem: Conv, encoded: Encoded, bias: np.ndarray, epilogue: Epilogue,
    depthwise: Conv, dw_weight: np.ndarray, dw_bias: np.ndarray, dw_epilogue: Epilogue,
    unit: VectorUnit, tile: Tile,
) -> Kernel:
    """The fused kernel; x is the convolution's input, residual and y are the depthwise one's."""
    emit = (_direct if is_direct(depthwise, unit) else _packed)(problem, encoded, epilogue, depthwise, unit, tile)
    constants = weight_constants(encoded, bias) | depthwise_constants(dw_weight, dw_bias, "dw_")
    name = f"conv_{problem.kernel[0]}x{problem.kernel[1]}_depthwise"
    return build(name, problem.input_shape, depthwise.output_shape, constants, emit, dw_epilogue)


def _direct(problem: Conv, encoded: Encoded, epilogue: Epilogue, depthwise: Conv, unit: VectorUnit,
            tile: Tile) -> Callable[[Buffers], None]:
    """Hidden rows go straight into the depthwise convolution's windows."""
    group_inputs = problem.in_channels // problem.groups
    channels = channels_at_once(encoded.block_size, unit)
    hidden_window = Window(problem, problem.out_height, row_alignment(unit))
    window = Window(depthwise, depthwise.out_height, row_alignment(unit))
    row_stride = problem.width if problem.is_pointwise else hidden_window.row_stride
    cut = cut_row(depthwise, tile, unit)
    begin = channels * bias_pixels(cut, unit)

    def finish(value: Expr, lanes: int) -> Expr:
        return Register(activate(value, epilogue.activation, lanes), lanes).value

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)
        windows = T.alloc_buffer((begin + channels * window.size,), "float32", scope="global")
        fill(windows, begin, channels * window.size, 0.0, unit.lanes)
        with T.serial(0, problem.batch) as image, T.serial(0, problem.groups) as group:
            inputs = image * problem.in_channels + group * group_inputs
            source = _source(hidden_window, buffers.x, inputs, group_inputs, unit)

            def emit_run(run: Channels) -> None:
                start = written_out_bias(rows, run, cut, windows, 0)
                sum_rows(rows, source, row_stride, run, window, cut, windows, begin, finish, start)
                with T.serial(0, run.count) as channel:
                    first = begin + channel * window.size
                    _sum_band(window, windows, first, image, run.start + channel, 0, buffers, unit)

            rows.each_row(group, emit_run)

    return emit


def _packed(problem: Conv, encoded: Encoded, epilogue: Epilogue, depthwise: Conv, unit: VectorUnit,
            tile: Tile) -> Callable[[Buffers], None]:
    """Whole hidden channels, then packed into the depthwise convolution's window."""
    group_inputs = problem.in_channels // problem.groups
    hidden_window = Window(problem, problem.out_height)
    window = window_for(depthwise, 1, CHANNEL_BUDGET, row_alignment(unit))
    cut = cut_pixels(hidden_window.positions, tile, unit, padded=not problem.is_pointwise)
    channels, stride = channels_at_once(encoded.block_size, unit), padded_stride(hidden_window, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)
        with T.serial(0, problem.batch) as image, T.serial(0, problem.groups) as group:
            inputs = image * problem.in_channels + group * group_inputs
            source = _source(hidden_window, buffers.x, inputs, group_inputs, unit)
            hidden = T.alloc_buffer((channels * (stride + bias_pixels(cut, unit)),), "float32", scope="global")
            scratch = T.alloc_buffer((window.size,), "float32", scope="global")

            def write(index: Expr, value: Expr, lanes: int) -> None:
                store(hidden, index, activate(value, epilogue.activation, lanes), lanes)

            def emit_run(run: Channels) -> None:
                start = written_out_bias(rows, run, cut, hidden, channels * stride)
                sum_run(rows, source, run, cut, planes(write, 0, stride), start)
                with T.serial(0, run.count) as channel:
                    plane = Image(hidden, channel * stride, hidden_window.row_stride)
                    _consume(window, plane, scratch, image, run.start + channel, buffers, unit)

            rows.each_row(group, emit_run)

    return emit


def _source(window: Window, x: Buffer, inputs: Expr, count: int, unit: VectorUnit) -> Source:
    """A group's input channels: x itself where pixels map one to one, else packed scratch."""
    problem = window.problem
    if problem.is_pointwise:
        pixels = problem.height * problem.width
        return Source(x, inputs * pixels, pixels)
    scratch = T.alloc_buffer((count * window.size + unit.lanes,), "float32", scope="global")
    pack_channels(window, x, inputs, count, scratch, 0, unit)
    return Source(scratch, 0, window.size, window.taps)


def _consume(window: Window, plane: Image, scratch: Buffer, image: Expr, channel: Expr, buffers: Buffers,
             unit: VectorUnit) -> None:
    """The depthwise convolution of one hidden channel."""
    with T.serial(0, band_start(window, 0)[0]) as band:
        first_row = band_start(window, band)[1]
        pack(window, plane, scratch, 0, first_row, unit)
        _sum_band(window, scratch, 0, image, channel, first_row, buffers, unit)


def _sum_band(window: Window, scratch: Buffer, base: Expr, image: Expr, channel: Expr, first_row: Expr,
              buffers: Buffers, unit: VectorUnit) -> None:
    """The depthwise sums of a band of one channel, from its window at `base`."""
    depthwise = window.problem
    values, biases = buffers.constants["dw_values"], buffers.constants["dw_bias"]
    out_plane = image * depthwise.out_channels + channel
    first = (out_plane * depthwise.out_height + first_row) * depthwise.out_width
    sum_channel(window, scratch, base, values, channel, biases[channel], buffers.output, first, unit)
