"""A 1×1 convolution and the depthwise convolution after it on small images and those whose rows do not fill vectors.

A hidden channel stays one flat run of pixels, whose sums cross rows and leave no lane idle; the depthwise sums read its
rows where they are.
"""

from __future__ import annotations

from itertools import pairwise

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.unpadded import Strips, sum_masked
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, fill, fill_between, load, store
from onexn_plugins.tvm_backend.kernels.pairs.geometry import why_not_unpadded
from onexn_plugins.tvm_backend.kernels.pairs.pair import Pair, why_not_pair
from onexn_plugins.tvm_backend.kernels.parts.bands import aligned, is_aligned, sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import BANDS, JOBS, ROWS, Run, Sharing, each_job, pick, turn
from onexn_plugins.tvm_backend.kernels.parts.slices import uses
from onexn_plugins.tvm_backend.kernels.parts.sums import planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import cut_pixels
from onexn_plugins.tvm_backend.kernels.problem import Kernel
from onexn_plugins.tvm_backend.kernels.request import Request

# Vectors stored before the first is read: a load of pixels that several stores left waits for them to reach the cache
# (on Intel's cores with AVX-512 about 20 cycles each, which makes pairs of 7×7 pixels three times as slow).
_STORES = 64


def why_not_read_unpadded(request: Request) -> str | None:
    """None for a pair whose hidden rows are best read where they are."""
    first, second = request.stages[:2]
    return why_not_pair(request) or why_not_unpadded(first.conv, second.conv, request.unit)


def read_unpadded(request: Request) -> Kernel:
    """The kernel of a pair."""
    pair = Pair(request)
    return pair.kernel(f"{pair.name}_flat", _Emitter(pair).emit)


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, pair: Pair) -> None:
        self.pair, unit, encoded = pair, pair.unit, pair.encoded
        self.unit, self.pixels = unit, pair.problem.height * pair.problem.width
        blocks = Strips(pair.depthwise, unit, unit.threads).blocks
        self.sharing = pair.sharing((len(blocks), max(map(len, blocks))))
        self.strips = Strips(pair.depthwise, unit, unit.threads if self.sharing.axis == BANDS else 1)
        self.count, self.origins = _hidden(self.strips, self.sharing)
        self.cut = cut_pixels(self.count, pair.tile, unit)
        # Stores are aligned.
        self.lead, self.stride = (-(-values // unit.lanes) * unit.lanes for values in (self.strips.lead, self.count))
        often = uses(encoded, unit) >= unit.measured.least_uses
        self.copies = unit.measured.copies_unaligned and often and not is_aligned(self.pixels, unit)
        few = -(-_STORES // (self.stride // unit.lanes * encoded.block_size))
        self.at_once = min(encoded.pattern.rows_per_group, few)

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel."""
        self.buffers, self.rows = buffers, self.pair.rows(buffers)
        sizes = (self.pair.problem.batch, self.pair.problem.groups)
        self.sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), self._job))

    def _job(self, image: Expr, group: Expr) -> None:
        """A group of an image."""
        self.sharing.along((ROWS, BANDS), lambda runs: self._share(image, group, runs))

    def _share(self, image: Expr, group: Expr, runs: dict[str, Run]) -> None:
        """A thread's block rows or bands, a few block rows at a time."""
        beyond = max(0, self.count + self.strips.overrun - self.stride)
        size = self.lead + self.at_once * self.pair.encoded.block_size * self.stride + beyond
        hidden = T.alloc_buffer((size,), "float32", scope="global")
        self._fill_gaps(hidden, beyond)
        bands = runs.get(BANDS)
        origin = 0 if bands is None else pick(self.origins, bands[0])
        first = self.pair.inputs(image, group) * self.pixels + origin
        source = Source(self.buffers.x, first, self.pixels, constant=True)
        if self.copies:
            source = aligned(source, self.pair.group_inputs, self.count, self.unit)
        self.rows.each_few_rows(self.at_once, lambda few: self._few(image, group, source, hidden, origin, bands, few),
                                runs.get(ROWS))

    def _fill_gaps(self, hidden: Buffer, beyond: int) -> None:
        """Zeros behind every channel and behind the last."""
        channels, lanes = self.at_once * self.pair.encoded.block_size, self.unit.lanes
        fill_between(hidden, channels, self.stride, self.count, lanes, self.lead)
        fill(hidden, self.lead + channels * self.stride, beyond, 0.0, lanes)

    def _few(self, image: Expr, group: Expr, source: Source, hidden: Buffer, origin: Expr, bands: Run,
             few: tuple[Expr, Expr]) -> None:
        """The hidden channels of a few block rows, then their depthwise sums."""
        pattern = self.pair.encoded.pattern
        before = group * pattern.group_channels + few[0] * pattern.block_size

        def write(index: Expr, value: Expr, lanes: int) -> None:
            store(hidden, index, self.pair.finish(value, lanes), lanes)

        def emit_run(run: Channels) -> None:
            place = self.lead + (run.start - before) * self.stride
            sum_run(self.rows, source, run, self.cut, planes(write, place, self.stride))

        def emit_depthwise(run: Channels) -> None:
            with T.serial(0, run.count) as index:
                channel = run.start + index
                place = self.lead + (channel - before) * self.stride - origin
                plane = image * self.pair.depthwise.out_channels + channel
                self._sum_channel(hidden, place, plane, channel, bands)

        self.rows.each_row(group, emit_run, few)
        self.rows.each_row(group, emit_depthwise, few)

    def _sum_channel(self, hidden: Buffer, base: Expr, plane: Expr, channel: Expr, bands: Run) -> None:
        """The depthwise sums of the hidden channel whose image begins at `base`, in all or some rows."""
        depthwise, constants = self.pair.depthwise, self.buffers.constants
        values, bias = constants["dw_values"], constants["dw_bias"][channel]
        weights = [values[channel * depthwise.taps + tap] for tap in range(depthwise.taps)]
        first = plane * (depthwise.out_height * depthwise.out_width)

        def read(index: Expr, lanes: int) -> Expr:
            return load(hidden, base + index, lanes)

        def write(index: Expr, value: Expr, lanes: int) -> None:
            self.buffers.output.store(first + index, value, lanes)

        for index, rows in enumerate(self.strips.blocks):
            with turn(index, bands):
                sum_masked(self.strips, rows, read, weights, bias, write)


def _hidden(strips: Strips, sharing: Sharing) -> tuple[int, list[int]]:
    """How many hidden pixels each thread sums, and by its first block of output rows where they begin.

    All sum as many, so that one code does for all.
    """
    pixels, width = strips.depthwise.height * strips.depthwise.width, strips.depthwise.width
    if sharing.axis != BANDS:
        return pixels, [0]
    under = [strips.rows_under(rows) for rows in strips.blocks]
    count = max(under[last - 1].stop - under[first].start for first, last in pairwise(sharing.starts)) * width
    return count, [min(rows.start * width, pixels - count) for rows in under]
