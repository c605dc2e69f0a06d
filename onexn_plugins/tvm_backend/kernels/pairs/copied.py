"""Whole hidden channels, copied row by row into the depthwise convolution's window: the way that fits every pair."""

from __future__ import annotations

from collections.abc import Callable

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import sum_channel
from onexn_plugins.tvm_backend.kernels.code.activation import activate
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, store
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.pairs.projection import Destination
from onexn_plugins.tvm_backend.kernels.parts.bands import padded_stride, pixels_of, sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, Run, Sharing, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import bias_pixels, planes, written_out_bias
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Image, Window, band_start, pack
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


def copied(problem: Conv, encoded: Encoded, epilogue: Epilogue, window: Window, unit: VectorUnit,
            tile: Tile, sharing: Sharing) -> Callable[[Buffers], None]:
    """Whole hidden channels, then packed into the depthwise convolution's window."""
    group_inputs = problem.in_channels // problem.groups
    hidden_window = Window(problem, problem.out_height)
    cut = cut_pixels(hidden_window.positions, tile, unit, padded=not problem.is_pointwise)
    stride = padded_stride(hidden_window, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def emit_job(image: Expr, group: Expr) -> None:
            inputs = image * problem.in_channels + group * group_inputs
            source = pixels_of(hidden_window, buffers.x, inputs, group_inputs, unit, sharing.axis == ROWS)

            def emit_rows(runs: dict[str, Run]) -> None:
                channels = channels_at_once(encoded.block_size, unit)
                hidden = T.alloc_buffer((channels * (stride + bias_pixels(cut, unit)),), "float32", scope="global")
                scratch = T.alloc_buffer((window.size,), "float32", scope="global")
                target = Destination.of_output(buffers, window.problem, image)

                def write(index: Expr, value: Expr, lanes: int) -> None:
                    store(hidden, index, activate(value, epilogue.activation, lanes, unit), lanes)

                def emit_run(run: Channels) -> None:
                    biases = written_out_bias(rows, run, cut, hidden, channels * stride)
                    sum_run(rows, source, run, cut, planes(write, 0, stride), biases)
                    with T.serial(0, run.count) as channel:
                        plane = Image(hidden, channel * stride, hidden_window.row_stride)
                        _consume(window, plane, scratch, run.start + channel, target, unit)

                rows.each_row(group, emit_run, runs.get(ROWS))

            sharing.along((ROWS,), emit_rows)

        sizes = (problem.batch, problem.groups)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    return emit


def _consume(window: Window, plane: Image, scratch: Buffer, channel: Expr, target: Destination,
             unit: VectorUnit) -> None:
    """The depthwise convolution of one hidden channel."""
    with T.serial(0, band_start(window, 0)[0]) as band:
        first_row = band_start(window, band)[1]
        pack(window, plane, scratch, 0, first_row, unit)
        sum_channel(window, scratch, 0, channel, target.buffers, target.first(channel, first_row), unit)
