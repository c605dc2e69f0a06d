"""Transposed convolutions: the input is packed once, every phase of the output is summed from it on the same blocks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Term, each_strip, load, splat, store
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.parts.bands import packed_source, padded_stride, share_windows, sum_run, writer
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import JOBS, ROWS, Run, each_job
from onexn_plugins.tvm_backend.kernels.parts.sums import planes
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import Window, band_start
from onexn_plugins.tvm_backend.kernels.problem import Kernel, Transposed
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.transposed.interleave import row_scratch, store_row
from onexn_plugins.tvm_backend.kernels.transposed.phases import (
    Phase,
    alike,
    as_read,
    is_column,
    is_row,
    phases_of,
    upright,
)

# Weights, as a share of the second cache, that are fetched again for every band as fast as pixels: then bands should be
# lower, a quarter of the cache instead of half of it. Measured on AVX2: dense 2×2 layers of a UNet are 1.3 to 1.5
# times faster in low bands, 4×4 ones of 256 channels up to a third slower.
_FEW_WEIGHTS = 1 / 4


def why_not_transposed(_request: Request) -> str | None:
    """None: it takes every transposed convolution."""
    return None


def transposed(request: Request) -> Kernel:
    """A kernel that, per band of the input, sums all phases of a block row into scratch and interleaves them."""
    emitter, problem = _Emitter(request), request.first.problem
    assert isinstance(problem, Transposed)
    name = f"transposed_{problem.kernel[0]}x{problem.kernel[1]}"
    return build(name, problem.input_shape, problem.output_shape, emitter.constants, emitter.emit, request.unit,
                 request.first.epilogue)


@dataclass(frozen=True)
class _Alike:
    """Phases that read the same pattern of pixels.

    Attributes:
        first: place of the first one among all that have taps.
        count: how many they are.
        before: taps of the phases before them.
        taps: where in the window each tap's pixel lies, from the first one on.
    """

    first: int
    count: int
    before: int
    taps: tuple[int, ...]


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, request: Request) -> None:
        stage, self.unit = request.first, request.unit
        assert isinstance(stage.problem, Transposed)
        self.problem, self.encoded = stage.problem, stage.encoded
        self.group_inputs = self.problem.in_channels // self.problem.groups
        self.count = self.problem.stride[0] * self.problem.stride[1]
        if is_row(self.problem) and 4 * self.group_inputs * self.problem.width > self._budget():
            self.problem = upright(self.problem)
        reads, origin = as_read(self.problem)
        self.window, self.sharing = share_windows(reads, self.encoded, self.unit, self._budget())
        self.cut = cut_pixels(self.window.positions, stage.tile, self.unit, padded=True)
        self.plane = padded_stride(self.window, self.unit)
        phases = phases_of(self.problem)
        groups = alike(phases)
        self.empty = [phase.number for phase in phases if not phase.taps]
        self.phases = self._alike(groups)
        ordered = [phase for group in groups for phase in group]
        starts = [_place(self.window, phase.reads[0], origin) for phase in ordered]
        self.constants = weight_constants(_phase_by_phase(self.encoded, ordered), stage.bias) | {
            "phases": np.array([phase.number for phase in ordered], np.int32), "starts": np.array(starts, np.int32)}

    def _budget(self) -> int:
        """Bytes that a packed band may take of what it shares with the sums of a block row."""
        weights = self.encoded.values.nbytes
        cache = self.unit.second_cache // (4 if weights <= _FEW_WEIGHTS * self.unit.second_cache else 2)
        sums = channels_at_once(self.encoded.block_size, self.unit) * self.count
        return cache * self.group_inputs // (self.group_inputs + sums)

    def _alike(self, groups: list[list[Phase]]) -> list[_Alike]:
        found, first, before = [], 0, 0
        for group in groups:
            offsets = tuple(row * self.window.row_stride + column for row, column in group[0].steps)
            found.append(_Alike(first, len(group), before, offsets))
            first, before = first + len(group), before + len(group) * len(offsets)
        return found

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel."""
        self.buffers, self.rows = buffers, BlockRows(self.encoded, buffers.constants, self.unit)
        sizes = (self.problem.batch, self.problem.groups, band_start(self.window, 0)[0])
        self.sharing.along((JOBS,), lambda runs: each_job(sizes, runs.get(JOBS), self._job))

    def _job(self, image: Expr, group: Expr, band: Expr) -> None:
        """A band of a group of an image."""
        first_row = band_start(self.window, band)[1]
        inputs = image * self.problem.in_channels + group * self.group_inputs
        source = packed_source(self.window, self.buffers.x, inputs, self.group_inputs, self.unit,
                               self.sharing.axis == ROWS, first_row)

        def emit_rows(runs: dict[str, Run]) -> None:
            channels = channels_at_once(self.encoded.block_size, self.unit)
            sums = T.alloc_buffer((channels * self.count * self.plane,), "float32", scope="global")
            scratch = (row_scratch(self.problem.stride[0], self.window.rows * self.problem.stride[0])
                       if is_column(self.problem) else row_scratch(self.problem.stride[1], self.problem.out_width))

            def emit_run(run: Channels) -> None:
                self._sum(source, sums, run)
                store = self._store_column if is_column(self.problem) else self._store
                store(image, first_row, sums, scratch, run)

            self.rows.each_row(group, emit_run, runs.get(ROWS))

        self.sharing.along((ROWS,), emit_rows)

    def _sum(self, source: Source, sums: Buffer, run: Channels) -> None:
        """A run's sums, phase by phase."""
        known = self.buffers.constants
        for group in self.phases:
            with T.serial(0, group.count) as index:
                rows = self.rows.behind(group.before + index * len(group.taps), len(group.taps))
                seen = replace(source, base=known["starts"][group.first + index], taps=group.taps)
                target = planes(writer(sums), known["phases"][group.first + index] * self.plane,
                                self.count * self.plane)
                sum_run(rows, seen, run, self.cut, target)
        for number in self.empty:
            for channel in range(run.count):
                self._fill(sums, (channel * self.count + number) * self.plane, self.rows.bias[run.start + channel])

    def _fill(self, sums: Buffer, base: Expr, bias: Expr) -> None:
        """A phase on which no tap falls."""
        each_strip(self.plane, self.unit.lanes, lambda at, lanes: store(sums, base + at, splat(bias, lanes), lanes))

    def _store(self, image: Expr, first_row: Expr, sums: Buffer, scratch: Buffer | None, run: Channels) -> None:
        """A run's rows, finished."""
        problem, (vertical, horizontal) = self.problem, self.problem.stride
        with T.serial(0, run.count) as channel:
            output = (image * problem.out_channels + run.start + channel) * problem.out_height
            with T.serial(0, self.window.rows) as row, T.serial(0, vertical) as phase:
                base = ((channel * vertical + phase) * horizontal) * self.plane + row * self.window.row_stride
                y = (first_row + row) * vertical + phase
                with _if(y < problem.out_height if problem.out_height % vertical else None):
                    store_row(sums, base, self.plane, horizontal, self.buffers.output,
                              (output + y) * problem.out_width, problem.out_width, scratch, self.unit)

    def _store_column(self, image: Expr, first_row: Expr, sums: Buffer, scratch: Buffer | None, run: Channels) -> None:
        """As _store, of images of one column, whose rows lie side by side."""
        problem, stride = self.problem, self.problem.stride[0]
        cut = self.window.rows - (problem.out_height % stride > 0)  # rows of the phases that are whole in every band
        with T.serial(0, run.count) as channel:
            base = channel * self.count * self.plane
            first = (image * problem.out_channels + run.start + channel) * problem.out_height + first_row * stride
            if cut:
                store_row(sums, base, self.plane, stride, self.buffers.output, first, cut * stride, scratch, self.unit)
            for y in range(cut * stride, self.window.rows * stride):
                with _if(first_row * stride + y < problem.out_height):
                    value = load(sums, base + y % stride * self.plane + y // stride, 1)
                    self.buffers.output.store(first + y, value, 1)


@contextmanager
def _if(condition: Term | bool | None) -> Iterator[None]:
    """What is emitted inside runs where the condition holds; always where there is none."""
    if condition is None:
        yield
        return
    with T.If(condition), T.Then():
        yield


def _place(window: Window, pixel: tuple[int, int], origin: tuple[int, int]) -> int:
    """Where in the window of the first output that pixel lies."""
    return (pixel[0] - origin[0]) * window.row_stride + pixel[1] - origin[1]


def _phase_by_phase(encoded: Encoded, phases: list[Phase]) -> Encoded:
    """The same blocks with their values in the order in which phases ask for them: all those of a phase together."""
    values = encoded.values.reshape(encoded.num_blocks, encoded.taps, encoded.block_size)
    parts = [values[:, list(phase.taps)].reshape(-1) for phase in phases]
    return replace(encoded, values=np.concatenate(parts))
