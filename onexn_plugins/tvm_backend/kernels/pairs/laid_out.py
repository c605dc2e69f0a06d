"""A 1×1 convolution whose pixels are laid out first as the depthwise convolution after it reads them.

What is summed at a place of the input's windows belongs at the same place of the hidden channels': tiles run on from
row to row, without a rest at the end of each, and under a stride no vector is split into phases. What they leave
between rows is overwritten with padding. An input channel is laid out once and read by all hidden ones.
"""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import sum_channel
from onexn_plugins.tvm_backend.kernels.channelwise.sliding import anchors
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, channel_stride, fill_between, store
from onexn_plugins.tvm_backend.kernels.pairs.geometry import why_not_in_place
from onexn_plugins.tvm_backend.kernels.pairs.pair import Pair, why_not_pair
from onexn_plugins.tvm_backend.kernels.pairs.projection import Destination
from onexn_plugins.tvm_backend.kernels.parts.bands import band_rows, each_band, sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import BANDS, JOBS, Run, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Image, Window, pack, pad, window_for
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request

# Multiply-adds of a hidden pixel, or bytes of the input image, from which on this was measured to be faster on AVX2:
# MobileNetV2's 16→96 at 112×112 by 8 to 44 % (10 to 100 % of the blocks), 24→144 at 56×56 by 6 to 12 % (75 to 100 %).
_LEAST_MACS, _LEAST_IMAGE = 16, 512 * 1024
# Bytes of a band's windows, of the channels summed at once and of the inputs: beside a first cache of 32 KiB and in
# half of a second one of 512 KiB.
_WINDOWS_BUDGET, _INPUTS_BUDGET = 40 * 1024, 256 * 1024


def why_not_laid_out(request: Request) -> str | None:
    """None where vectors would have to be split, and laying pixels out costs less."""
    first, second = request.stages[:2]
    problem, depthwise = first.conv, second.conv
    refused = why_not_pair(request) or why_not_in_place(depthwise, request.unit)
    if refused:
        return refused
    if not request.unit.measured.lays_out:
        return "laying pixels out was not measured to gain on this core"
    if not problem.is_pointwise or depthwise.stride != (2, 2):
        return "no vector has to be split: not 1×1 before a stride of 2"
    if depthwise.kernel[0] > 3:
        return "bands of larger kernels share more rows"
    inputs = problem.in_channels // problem.groups
    if first.blocks.density * inputs >= _LEAST_MACS or 4 * inputs * problem.height * problem.width >= _LEAST_IMAGE:
        return None
    return "too few multiply-adds a pixel to pay for laying it out"


def laid_out(request: Request) -> Kernel:
    """The kernel of a pair."""
    emitter = _Emitter(Pair(request))
    return emitter.pair.kernel(f"{emitter.pair.name}_laid", emitter.emit, anchors(emitter.window, request.unit))


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.unit, self.depthwise = pair, pair.unit, pair.depthwise
        height = _band_height(pair)
        # A thread lays out all inputs, so none takes block rows.
        self.sharing = pair.sharing((-(-self.depthwise.out_height // height), height), by_rows=False)
        self.window = Window(self.depthwise, height)
        self.channels = channels_at_once(pair.encoded.block_size, self.unit)
        self.stride = channel_stride(self.window.size, self.unit.lanes)
        self.cut = cut_pixels(self.window.size, pair.tile, self.unit, padded=True)

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel."""
        self.buffers, self.rows = buffers, self.pair.rows(buffers)
        sizes = (self.pair.problem.batch, self.pair.problem.groups)
        self.sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), self._job))

    def _job(self, image: Expr, group: Expr) -> None:
        """A group of an image."""
        self.sharing.along((BANDS,), lambda runs: self._bands(image, group, runs.get(BANDS)))

    def _bands(self, image: Expr, group: Expr, run: Run) -> None:
        """A thread's bands."""
        inputs = T.alloc_buffer((self.pair.group_inputs * self.stride,), "float32", scope="global")
        windows = T.alloc_buffer((self.channels * self.stride,), "float32", scope="global")
        fill_between(inputs, self.pair.group_inputs, self.stride, self.window.size, self.unit.lanes)
        each_band(self.window, lambda first_row: self._band(
            image, group, inputs, windows, 0 if first_row is None else first_row), run)

    def _band(self, image: Expr, group: Expr, inputs: Buffer, windows: Buffer, start: Expr) -> None:
        """Lay a band's pixels out, then all block rows."""
        problem, pixels = self.pair.problem, self.pair.problem.height * self.pair.problem.width
        target = Destination.of_output(self.buffers, self.depthwise, image)
        with T.serial(0, self.pair.group_inputs) as channel:
            plane = self.pair.inputs(image, group) + channel
            image_channel = Image(self.buffers.x, plane * pixels, problem.width)
            pack(self.window, image_channel, inputs, channel * self.stride, start, self.unit)

        def write(index: Expr, value: Expr, lanes: int) -> None:
            store(windows, index, self.pair.finish(value, lanes), lanes)

        def emit_run(run: Channels) -> None:
            sum_run(self.rows, Source(inputs, 0, self.stride), run, self.cut, planes(write, 0, self.stride))
            with T.serial(0, run.count) as index:
                place, channel = index * self.stride, run.start + index
                pad(self.window, windows, place, start, self.unit)
                sum_channel(self.window, windows, place, channel, target.buffers, target.first(channel, start),
                            self.unit)

        self.rows.each_row(group, emit_run)


def _band_height(pair: Pair) -> int:
    """Output rows of a band."""
    depthwise, unit = pair.depthwise, pair.unit
    channels = channels_at_once(pair.encoded.block_size, unit)
    most = min(window_for(depthwise, channels, _WINDOWS_BUDGET).rows,
               window_for(depthwise, pair.group_inputs, _INPUTS_BUDGET).rows, band_rows(depthwise, unit))
    whole = [rows for rows in range(-(-most // 2), most + 1) if depthwise.out_height % rows == 0]
    return max(whole, default=most)  # bands that overlap would sum some rows twice
