"""A 1×1 convolution and the depthwise convolution after it on images too narrow to fill vectors row by row.

A hidden channel stays one flat run of pixels, and so do the depthwise sums: a tap is a constant distance. What a tap
would wrongly take from the neighbouring row is left out by copies of the channel, one for each column of the kernel,
in which the image columns that this kernel column never reads are zero.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.encode import Encoded
from onexn_plugins.tvm_backend.kernels.activation import activate
from onexn_plugins.tvm_backend.kernels.blocks import BlockRows, Channels, Source
from onexn_plugins.tvm_backend.kernels.function import Buffers
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile, VectorUnit
from onexn_plugins.tvm_backend.kernels.sharing import JOBS, ROWS, Run, Sharing, each_job
from onexn_plugins.tvm_backend.kernels.spatial import sum_run
from onexn_plugins.tvm_backend.kernels.sums import Target
from onexn_plugins.tvm_backend.kernels.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.vector import (
    Buffer,
    Expr,
    Register,
    constant,
    each_strip,
    fill,
    load,
    splat,
    store,
)

# Bytes that the copies of a run of channels may take: a first-level cache of 32 KiB.
_COPIES_BUDGET = 32 * 1024


@dataclass(frozen=True)
class Copies:
    """Where the copies of a hidden channel lie in scratch, with zeros for the rows above and below the image."""

    depthwise: Conv

    @property
    def pixels(self) -> int:
        return self.depthwise.height * self.depthwise.width

    @property
    def lead(self) -> int:
        """Zeros before the first pixel."""
        return self.depthwise.padding[0] * self.depthwise.width + self.depthwise.padding[1]

    @property
    def stride(self) -> int:
        """Values of one copy."""
        _, _, bottom, right = self.depthwise.padding
        return self.lead + self.pixels + bottom * self.depthwise.width + right

    @property
    def size(self) -> int:
        """Values of all copies of a channel."""
        return self.depthwise.kernel[1] * self.stride

    @property
    def taps(self) -> list[int]:
        """Where each tap's value for output pixel 0 lies."""
        rows, columns = self.depthwise.kernel
        return [column * self.stride + row * self.depthwise.width + column
                for row in range(rows) for column in range(columns)]

    @property
    def masks(self) -> np.ndarray:
        """1 where a kernel column reads a pixel of its own row, else 0: float32 [kernel columns, pixels]."""
        width, left = self.depthwise.width, self.depthwise.padding[1]
        reader = np.arange(width)[None, :] - np.arange(self.depthwise.kernel[1])[:, None] + left
        inside = (reader >= 0) & (reader < width)
        return np.tile(inside[:, None, :], (1, self.depthwise.height, 1)).reshape(len(inside), -1).astype(np.float32)


def is_flat(problem: Conv, depthwise: Conv, encoded: Encoded, unit: VectorUnit) -> bool:
    """Whether rows fill less than half a vector, output pixels are the hidden ones, and the copies fit.

    Measured on AVX-512: 9 % (3×3) and 29 % (5×5) faster at 7×7, but slower at 14×14, where rows fill most of a vector
    and taps at any distance cross cache lines.
    """
    copied = 4 * Copies(depthwise).size * channels_at_once(encoded.block_size, unit)
    return (
        2 * depthwise.width < unit.lanes and problem.is_pointwise
        and depthwise.stride == (1, 1) and depthwise.dilation == (1, 1)
        and depthwise.output_shape == depthwise.input_shape and copied <= _COPIES_BUDGET
    )


def flat(problem: Conv, encoded: Encoded, epilogue: Epilogue, depthwise: Conv, unit: VectorUnit,
         tile: Tile, sharing: Sharing) -> Callable[[Buffers], None]:
    """The body of the fused kernel; constants are those of every fused kernel and "masks", Copies.masks."""
    copies = Copies(depthwise)
    group_inputs = problem.in_channels // problem.groups
    cut = cut_pixels(copies.pixels, tile, unit)

    def emit(buffers: Buffers) -> None:
        rows = BlockRows(encoded, buffers.constants, unit)

        def padded_copies() -> Buffer:
            size = channels_at_once(encoded.block_size, unit) * copies.size
            scratch = T.alloc_buffer((size,), "float32", scope="global")
            fill(scratch, 0, size, 0.0, unit.lanes)
            return scratch

        def emit_jobs(job_runs: dict[str, Run]) -> None:
            # Threads that share block rows have copies of their own.
            job_copies = None if sharing.axis == ROWS else padded_copies()

            def emit_job(image: Expr, group: Expr) -> None:
                first = (image * problem.in_channels + group * group_inputs) * copies.pixels
                source = Source(buffers.x, first, copies.pixels, constant=True)

                def emit_rows(runs: dict[str, Run]) -> None:
                    scratch = padded_copies() if job_copies is None else job_copies
                    write = _copier(copies, scratch, epilogue, buffers)

                    def emit_run(run: Channels) -> None:
                        sum_run(rows, source, run, cut, write)
                        with T.serial(0, run.count) as channel:
                            place, plane = channel * copies.size, run.start + channel
                            _sum_channel(copies, scratch, place, image, plane, buffers, unit)

                    rows.each_row(group, emit_run, runs.get(ROWS))

                sharing.along((ROWS,), emit_rows)

            each_job((problem.batch, problem.groups), job_runs.get(JOBS), emit_job)

        sharing.along((JOBS,), emit_jobs)

    return emit


def _copier(copies: Copies, scratch: Buffer, epilogue: Epilogue, buffers: Buffers) -> Target:
    """Writes activated sums into every copy of their channel."""

    def write(channel: int, pixel: Expr, value: Expr, lanes: int) -> None:
        hidden = Register(activate(value, epilogue.activation, lanes), lanes)
        for column, mask in enumerate(copies.masks):
            place = channel * copies.size + column * copies.stride + copies.lead + pixel
            store(scratch, place, _masked(buffers, hidden, column * copies.pixels + pixel, mask), lanes)

    return write


def _masked(buffers: Buffers, value: Register, index: Expr, mask: np.ndarray) -> Expr:
    """The value where the mask is 1; a product would carry infinities over."""
    if mask.all():
        return value.value
    zero = constant(0, value.lanes)
    return tirx.Select(load(buffers.constants["masks"], index, value.lanes) > zero, value.value, zero)


def _sum_channel(copies: Copies, scratch: Buffer, base: Expr, image: Expr, channel: Expr, buffers: Buffers,
                 unit: VectorUnit) -> None:
    """The depthwise sums of one hidden channel."""
    depthwise, taps = copies.depthwise, copies.taps
    values, biases = buffers.constants["dw_values"], buffers.constants["dw_bias"]
    first = (image * depthwise.out_channels + channel) * copies.pixels
    weights = [values[channel * len(taps) + tap] for tap in range(len(taps))]
    lanes = unit.lanes
    kept = [Register(splat(weight, lanes), lanes) for weight in weights] if len(taps) < unit.registers - 4 else None

    def emit(pixel: Expr, width: int) -> None:
        total = Register(splat(biases[channel], width), width)
        for tap, offset in enumerate(taps):
            weight = kept[tap].value if kept and width == lanes else splat(weights[tap], width)
            total.multiply_add(load(scratch, base + offset + pixel, width), weight)
        buffers.output.store(first + pixel, total.value, width)

    each_strip(copies.pixels, lanes, emit)
