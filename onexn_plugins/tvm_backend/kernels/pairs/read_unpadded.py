"""A 1×1 convolution and the depthwise convolution after it on small images and those whose rows do not fill vectors.

A hidden channel stays one flat run of pixels, whose sums cross rows and leave no lane idle; the depthwise sums read its
rows where they are.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.channelwise.unpadded import Strips, sum_masked
from onexn_plugins.tvm_backend.kernels.code.activation import activate
from onexn_plugins.tvm_backend.kernels.code.function import Buffers
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, load, store
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.pairs.written_in_place import is_direct
from onexn_plugins.tvm_backend.kernels.parts.bands import aligned, is_aligned, sum_run
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.parts.sharing import BANDS, JOBS, ROWS, Run, Sharing, each_job, pick, turn
from onexn_plugins.tvm_backend.kernels.parts.slices import uses
from onexn_plugins.tvm_backend.kernels.parts.sums import planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import cut_pixels
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Multiply-adds of a channel's sums, all of which are written out: more take long to compile.
_MOST_INSTRUCTIONS = 3000
# Hidden pixels of a channel up to which rows that fill vectors are better flat, too.
_MOST_PIXELS = 28 * 28
# Vectors stored before the first is read: a load of pixels that several stores left waits for them to reach the cache
# (on Intel's cores with AVX-512 about 20 cycles each, which makes pairs of 7×7 pixels three times as slow).
_STORES = 64


def is_flat(problem: Conv, depthwise: Conv, unit: VectorUnit) -> bool:
    """Whether the depthwise convolution can read unpadded rows, and its sums are few enough; not measured on ARM.

    Measured on AVX-512: a fifth faster than hidden channels that are copied row by row, from 5×5 to 90×90 pixels. Than
    rows that are written where they are read 13 % (24 % under a stride of 2) at 28×28, but slower at 56×56.
    """
    return (
        unit.measured.reads_unpadded and problem.is_pointwise
        and depthwise.dilation == (1, 1) and depthwise.stride[1] <= 2 and depthwise.out_width > 1
        and (problem.height * problem.width <= _MOST_PIXELS or not is_direct(depthwise, unit))
        and Strips(depthwise, unit).instructions <= _MOST_INSTRUCTIONS
    )


def flat(problem: Conv, encoded: Encoded, epilogue: Epilogue, depthwise: Conv, unit: VectorUnit,
         tile: Tile, sharing: Sharing) -> Callable[[Buffers], None]:
    """The body of the fused kernel."""
    group_inputs, pixels = problem.in_channels // problem.groups, problem.height * problem.width
    strips = Strips(depthwise, unit, unit.threads if sharing.axis == BANDS else 1)
    count, origins = _hidden(strips, sharing)
    cut = cut_pixels(count, tile, unit)
    lead, stride = (-(-values // unit.lanes) * unit.lanes for values in (strips.lead, count))  # aligned stores
    often = uses(encoded, unit) >= unit.measured.least_uses
    packs = unit.measured.copies_unaligned and often and not is_aligned(pixels, unit)
    at_once = min(encoded.pattern.rows_per_group, _rows_at_once(stride // unit.lanes, encoded.block_size))
    size = lead + at_once * encoded.block_size * stride + max(0, count + strips.overrun - stride)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def emit_job(image: Expr, group: Expr) -> None:
            inputs = image * problem.in_channels + group * group_inputs

            def emit_rows(runs: dict[str, Run]) -> None:
                hidden = T.alloc_buffer((size,), "float32", scope="global")
                bands = runs.get(BANDS)
                origin = 0 if bands is None else pick(origins, bands[0])
                source = Source(buffers.x, inputs * pixels + origin, pixels, constant=True)
                if packs:
                    source = aligned(source, group_inputs, count, unit)

                def write(index: Expr, value: Expr, lanes: int) -> None:
                    store(hidden, index, activate(value, epilogue.activation, lanes, unit), lanes)

                def emit_few(few: tuple[Expr, Expr]) -> None:
                    before = group * encoded.pattern.group_channels + few[0] * encoded.block_size

                    def emit_run(run: Channels) -> None:
                        place = lead + (run.start - before) * stride
                        sum_run(rows, source, run, cut, planes(write, place, stride))

                    def emit_depthwise(run: Channels) -> None:
                        with T.serial(0, run.count) as index:
                            channel = run.start + index
                            place = lead + (channel - before) * stride - origin
                            plane = image * depthwise.out_channels + channel
                            _sum_channel(strips, hidden, place, plane, channel, buffers, bands)

                    rows.each_row(group, emit_run, few)
                    rows.each_row(group, emit_depthwise, few)

                rows.each_few_rows(at_once, emit_few, runs.get(ROWS))

            sharing.along((ROWS, BANDS), emit_rows)

        sizes = (problem.batch, problem.groups)
        sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), emit_job))

    return emit


def _rows_at_once(vectors: int, block_size: int) -> int:
    """Block rows whose hidden channels, of so many vectors, are summed before the first of them is read."""
    return -(-_STORES // (vectors * block_size))


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


def _sum_channel(strips: Strips, hidden: Buffer, base: Expr, plane: Expr, channel: Expr, buffers: Buffers,
                 bands: Run) -> None:
    """The depthwise sums of the hidden channel whose image begins at `base`, in all blocks of rows or a thread's."""
    depthwise = strips.depthwise
    values, bias = buffers.constants["dw_values"], buffers.constants["dw_bias"][channel]
    weights = [values[channel * depthwise.taps + tap] for tap in range(depthwise.taps)]
    first = plane * (depthwise.out_height * depthwise.out_width)

    def read(index: Expr, lanes: int) -> Expr:
        return load(hidden, base + index, lanes)

    def write(index: Expr, value: Expr, lanes: int) -> None:
        buffers.output.store(first + index, value, lanes)

    for index, rows in enumerate(strips.blocks):
        with turn(index, bands):
            sum_masked(strips, rows, read, weights, bias, write)
