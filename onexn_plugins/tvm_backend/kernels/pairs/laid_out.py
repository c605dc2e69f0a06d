"""A 1×1 convolution whose pixels are laid out first as the depthwise convolution after it reads them.

What is summed at a place of the input's windows belongs at the same place of the hidden channels': tiles run on from
row to row, without a rest at the end of each, and under a stride no vector is split into phases. What they leave
between rows is overwritten with padding. An input channel is laid out once and read by all hidden ones.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import sum_channel
from onexn_plugins.tvm_backend.kernels.code.activation import activate
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Expr, channel_stride, store
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.pairs.projection import Destination
from onexn_plugins.tvm_backend.kernels.pairs.written_in_place import band_rows, each_band
from onexn_plugins.tvm_backend.kernels.parts.bands import sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import BANDS, JOBS, Run, Sharing, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Image, Window, pack, pad, window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Multiply-adds of a hidden pixel, or bytes of the input image, from which on this was measured to be faster on AVX2:
# MobileNetV2's 16→96 at 112×112 by 8 to 44 % (10 to 100 % of the blocks), 24→144 at 56×56 by 6 to 12 % (75 to 100 %).
_LEAST_MACS, _LEAST_IMAGE = 16, 512 * 1024
# Bytes of a band's windows, of the channels summed at once and of the inputs: beside a first cache of 32 KiB and in
# half of a second one of 512 KiB.
_WINDOWS_BUDGET, _INPUTS_BUDGET = 40 * 1024, 256 * 1024


def is_laid(problem: Conv, encoded: Encoded, depthwise: Conv, unit: VectorUnit) -> bool:
    """Whether vectors would have to be split, and laying pixels out costs less.

    Not with larger kernels, whose bands share more rows.
    """
    splits = problem.is_pointwise and depthwise.stride == (2, 2)
    if not (unit.measured.lays_out and splits and depthwise.kernel[0] <= 3):
        return False
    inputs = problem.in_channels // problem.groups
    return encoded.density * inputs >= _LEAST_MACS or 4 * inputs * problem.height * problem.width >= _LEAST_IMAGE


def laid_rows(problem: Conv, encoded: Encoded, depthwise: Conv, unit: VectorUnit) -> int:
    """Output rows of a band."""
    channels, inputs = channels_at_once(encoded.block_size, unit), problem.in_channels // problem.groups
    most = min(window_for(depthwise, channels, _WINDOWS_BUDGET).rows,
               window_for(depthwise, inputs, _INPUTS_BUDGET).rows, band_rows(depthwise, unit))
    whole = [rows for rows in range(-(-most // 2), most + 1) if depthwise.out_height % rows == 0]
    return max(whole, default=most)  # bands that overlap would sum some rows twice


def laid(problem: Conv, encoded: Encoded, epilogue: Epilogue, window: Window, unit: VectorUnit, tile: Tile,
         sharing: Sharing) -> Callable[[Buffers], None]:
    """The body of the fused kernel; `window` is that of the depthwise convolution, for a band."""
    group_inputs, pixels = problem.in_channels // problem.groups, problem.height * problem.width
    channels = channels_at_once(encoded.block_size, unit)
    stride = channel_stride(window.size, unit.lanes)
    cut = cut_pixels(window.size, tile, unit, padded=True)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def emit_bands(image: Expr, group: Expr, run: Run) -> None:
            inputs = T.alloc_buffer((group_inputs * stride,), "float32", scope="global")
            windows = T.alloc_buffer((channels * stride,), "float32", scope="global")

            def write(index: Expr, value: Expr, lanes: int) -> None:
                store(windows, index, activate(value, epilogue.activation, lanes, unit), lanes)

            def emit_band(first_row: Expr | None) -> None:
                start = 0 if first_row is None else first_row
                target = Destination.of_output(buffers, window.problem, image)
                with T.serial(0, group_inputs) as channel:
                    plane = image * problem.in_channels + group * group_inputs + channel
                    pack(window, Image(buffers.x, plane * pixels, problem.width), inputs, channel * stride, start, unit)

                def emit_run(run: Channels) -> None:
                    sum_run(rows, Source(inputs, 0, stride), run, cut, planes(write, 0, stride))
                    with T.serial(0, run.count) as index:
                        place, channel = index * stride, run.start + index
                        pad(window, windows, place, start, unit)
                        sum_channel(window, windows, place, channel, target.buffers, target.first(channel, start),
                                    unit)

                rows.each_row(group, emit_run)

            each_band(window, emit_band, run)

        def emit_jobs(runs: dict[str, Run]) -> None:
            each_job((problem.batch, problem.groups), runs.get(JOBS), lambda image, group: sharing.along(
                (BANDS,), lambda bands: emit_bands(image, group, bands.get(BANDS))))

        sharing.along((JOBS,), emit_jobs)

    return emit
