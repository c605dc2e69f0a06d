"""Whole hidden channels, copied row by row into the depthwise convolution's window: the way that fits every pair."""

from __future__ import annotations

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.depthwise import sum_channel
from onexn_plugins.tvm_backend.kernels.channelwise.sliding import anchors, channel_budget, row_alignment
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, store
from onexn_plugins.tvm_backend.kernels.pairs.pair import Pair, why_not_pair
from onexn_plugins.tvm_backend.kernels.pairs.projection import Destination
from onexn_plugins.tvm_backend.kernels.parts.bands import padded_stride, pixels_of, sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, Run, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import bias_pixels, planes, written_out_bias
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Image, Window, band_start, pack, window_for
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request


def why_not_copied(request: Request) -> str | None:
    """None where the two are a pair."""
    return why_not_pair(request)


def copied(request: Request) -> Kernel:
    """The kernel of a pair."""
    emitter = _Emitter(Pair(request))
    return emitter.pair.kernel(emitter.pair.name, emitter.emit, anchors(emitter.window, request.unit))


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, pair: Pair) -> None:
        self.pair, self.unit = pair, pair.unit
        self.sharing = pair.sharing(None)
        self.window = window_for(pair.depthwise, 1, channel_budget(self.unit), row_alignment(self.unit))
        self.hidden = Window(pair.problem, pair.problem.out_height)
        self.cut = cut_pixels(self.hidden.positions, pair.tile, self.unit, padded=not pair.problem.is_pointwise)
        self.stride = padded_stride(self.hidden, self.unit)

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel."""
        self.buffers, self.rows = buffers, self.pair.rows(buffers)
        sizes = (self.pair.problem.batch, self.pair.problem.groups)
        self.sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), self._job))

    def _job(self, image: Expr, group: Expr) -> None:
        """A group of an image."""
        pair = self.pair
        source = pixels_of(self.hidden, self.buffers.x, pair.inputs(image, group), pair.group_inputs, self.unit,
                           self.sharing.axis == ROWS)
        self.sharing.along((ROWS,), lambda runs: self._rows(image, group, source, runs))

    def _rows(self, image: Expr, group: Expr, source: Source, runs: dict[str, Run]) -> None:
        """A thread's block rows."""
        channels = channels_at_once(self.pair.encoded.block_size, self.unit)
        size = channels * (self.stride + bias_pixels(self.cut, self.unit))
        hidden = T.alloc_buffer((size,), "float32", scope="global")
        scratch = T.alloc_buffer((self.window.size,), "float32", scope="global")
        target = Destination.of_output(self.buffers, self.pair.depthwise, image)

        def write(index: Expr, value: Expr, lanes: int) -> None:
            store(hidden, index, self.pair.finish(value, lanes), lanes)

        def emit_run(run: Channels) -> None:
            biases = written_out_bias(self.rows, run, self.cut, hidden, channels * self.stride)
            sum_run(self.rows, source, run, self.cut, planes(write, 0, self.stride), biases)
            with T.serial(0, run.count) as channel:
                plane = Image(hidden, channel * self.stride, self.hidden.row_stride)
                self._consume(plane, scratch, run.start + channel, target)

        self.rows.each_row(group, emit_run, runs.get(ROWS))

    def _consume(self, plane: Image, scratch: Buffer, channel: Expr, target: Destination) -> None:
        """The depthwise convolution of one hidden channel."""
        with T.serial(0, band_start(self.window, 0)[0]) as band:
            first_row = band_start(self.window, band)[1]
            pack(self.window, plane, scratch, 0, first_row, self.unit)
            sum_channel(self.window, scratch, 0, channel, target.buffers, target.first(channel, first_row), self.unit)
