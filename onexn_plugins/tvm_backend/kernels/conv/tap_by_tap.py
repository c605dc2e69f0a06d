"""Dilated k×k convolutions whose taps lie in the padding for many outputs: each tap sums the outputs that it serves.

A tap alone is a 1×1 convolution of a rectangle of pixels. Where that is as wide as the image it is read in place, else
copied, some rows at a time; sums wait in y. What a tap would multiply by zeros is neither packed nor multiplied.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

import numpy as np
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.function import Buffers, build
from onexn_plugins.tvm_backend.kernels.code.vector import (
    Buffer,
    Expr,
    channel_stride,
    each_strip,
    fill_between,
    load,
    pieces,
    splat,
    store,
)
from onexn_plugins.tvm_backend.kernels.conv.pointwise import GROUP_SHARE
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.parts.bands import upright, writer
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, Channels, Source, weight_constants
from onexn_plugins.tvm_backend.kernels.parts.sharing import (
    COPY,
    JOBS,
    ROWS,
    Run,
    each_job,
    job_costs,
    pick,
    row_costs,
    share,
)
from onexn_plugins.tvm_backend.kernels.parts.sums import each_group, each_tile, planes, sum_tile, zero_start
from onexn_plugins.tvm_backend.kernels.parts.taps import Rectangle, rectangles
from onexn_plugins.tvm_backend.kernels.parts.tiling import PixelTile, channels_at_once, cut_pixels
from onexn_plugins.tvm_backend.kernels.parts.window import load_strided, window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv, Kernel
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Multiply-adds that adding a copied tap's sum to those that wait costs.
_ADD = 6
# Share of a banded kernel's multiply-adds that this one has to stay below.
_WORTH = 0.75


def why_not_tap_by_tap(request: Request) -> str | None:
    """None where that saves enough of what a banded kernel computes."""
    stage, unit = request.first, request.unit
    problem = upright(stage.conv)
    if problem.dilation == (1, 1):
        return "not dilated"
    share_left = _cost(problem, stage.blocks.density, unit) / _banded_cost(problem, stage.blocks.density, unit)
    return None if share_left <= _WORTH else f"summed tap by tap it would be {share_left:.0%} of the work in bands"


def _cost(problem: Conv, kept: float, unit: VectorUnit) -> float:
    """About how many multiply-adds a group takes."""
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    cost = 0.0
    for rectangle in rectangles(problem):
        pixels = -(-rectangle.pixels // unit.lanes) * unit.lanes
        copied = 0 if _is_read_in_place(problem, rectangle) else COPY * inputs + _ADD * outputs
        cost += pixels * (kept * inputs * outputs + copied)
    return cost


def _banded_cost(problem: Conv, kept: float, unit: VectorUnit) -> float:
    """The same for spatial's kernel, with what it computes between rows."""
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    window = window_for(problem, inputs, unit.second_cache // 2)
    bands = -(-problem.out_height // window.rows)
    return bands * inputs * (kept * outputs * problem.taps * window.positions + COPY * window.size)


def _is_read_in_place(problem: Conv, rectangle: Rectangle) -> bool:
    """Whether its rows are whole rows of the image, so that they lie one after the other in x and y."""
    return problem.stride == (1, 1) and rectangle.columns == problem.width == problem.out_width


def tap_by_tap(request: Request) -> Kernel:
    """A k×k kernel: one tap after the other, all block rows over the pixels that it serves."""
    stage, unit = request.first, request.unit
    emitter = _Emitter(request)
    name = f"conv_{stage.conv.kernel[0]}x{stage.conv.kernel[1]}_by_taps"
    return build(name, stage.conv.input_shape, stage.conv.output_shape, weight_constants(emitter.blocks, stage.bias),
                 emitter.emit, unit, stage.epilogue)


class _Emitter:
    """Writes the kernel, from the outermost loop inwards."""

    def __init__(self, request: Request) -> None:
        stage, self.unit = request.first, request.unit
        self.problem, self.tile, encoded = upright(stage.conv), stage.tile, stage.encoded
        self.group_inputs = self.problem.in_channels // self.problem.groups
        self.pixels = self.problem.out_height * self.problem.out_width
        found = rectangles(self.problem)
        self.first = next((item for item in found if item.pixels == self.pixels
                           and _is_read_in_place(self.problem, item)), None)
        found.sort(key=lambda item: (item is not self.first, item.rows, item.columns))
        self.rectangles = found
        self.blocks = _tap_after_tap(encoded, [item.tap for item in found])
        self.is_finished = not stage.epilogue.residual and stage.epilogue.activation is None
        seen = sum(item.pixels for item in found) / self.problem.taps
        self.sharing = share(self.unit.threads, {
            JOBS: job_costs(encoded, seen, self.problem.batch), ROWS: row_costs(encoded, seen) * self.problem.batch})

    def emit(self, buffers: Buffers) -> None:
        """The whole kernel; threads take images and groups, or block rows, whose pixels each copies for itself."""
        self.buffers, self.rows = buffers, BlockRows(self.blocks, buffers.constants, self.unit)
        self.y = buffers.output.y
        sizes = (self.problem.batch, self.problem.groups)
        self.sharing.along((JOBS, ROWS), lambda runs: each_job(
            sizes, runs.get(JOBS), lambda image, group: self._job(image, group, runs.get(ROWS))))

    def _job(self, image: Expr, group: Expr, share: Run) -> None:
        """A group of an image, or a thread's block rows of it."""
        self.image, self.group, self.share = image, group, share
        self.source = (image * self.problem.in_channels + group * self.group_inputs) * (
            self.problem.height * self.problem.width)
        if self.first is None:  # no tap that begins sums
            self.rows.each_row(group, self._begin, share)
        number = 0
        for _, same in groupby(self.rectangles, key=lambda item: (item is self.first, item.rows, item.columns)):
            alike = list(same)
            self._taps(number, alike)
            number += len(alike)
        if not self.is_finished:
            self.rows.each_row(group, self._finish, share)

    def _taps(self, number: Expr, alike: list[Rectangle]) -> None:
        """Taps that serve rectangles of one size; `number` is that of the first."""
        with T.serial(0, len(alike)) as index:
            def place(name: str) -> Expr:
                return pick([getattr(item, name) for item in alike], index)

            rows, target = self.rows.behind(number + index, 1), place("top") * self.problem.out_width + place("left")
            origin = place("y") * self.problem.width + place("x")
            if _is_read_in_place(self.problem, alike[0]):
                self._in_place(rows, alike[0], origin, target)
            else:
                self._copied(rows, alike[0], origin, target)

    def _plane(self, run: Channels) -> Expr:
        """Where a run's first channel begins in y."""
        return (self.image * self.problem.out_channels + run.start) * self.pixels

    def _in_place(self, rows: BlockRows, rectangle: Rectangle, origin: Expr, target: Expr) -> None:
        """A tap whose pixels are read where they are."""
        in_pixels = self.problem.height * self.problem.width
        source = Source(self.buffers.x, self.source + origin, in_pixels, constant=True)
        cut = cut_pixels(rectangle.pixels, self.tile, self.unit)
        size = max(1, int(GROUP_SHARE * self.unit.second_cache) // (4 * self.group_inputs * sum(cut.tile.widths)))
        begins = rectangle is self.first
        write = writer(self.y) if begins else self._add

        def emit_group(shape: PixelTile, start: Expr, count: Expr) -> None:
            def emit_run(run: Channels) -> None:
                with T.serial(0, count) as index:
                    sum_tile(rows, source, run, shape, start + index * sum(shape.widths),
                             planes(write, self._plane(run) + target, self.pixels),
                             None if begins else zero_start(run, self.unit))

            rows.each_row(self.group, emit_run, self.share)

        each_group(cut, size, emit_group)

    def _copied(self, rows: BlockRows, rectangle: Rectangle, origin: Expr, target: Expr) -> None:
        """A tap whose pixels are copied, as many rows at a time as the second cache holds of all channels."""
        budget = self.unit.second_cache // 2 // (4 * self.group_inputs)
        at_once = min(rectangle.rows, max(1, budget // rectangle.columns))
        at_once = -(-rectangle.rows // -(-rectangle.rows // at_once))
        whole, rest = divmod(rectangle.rows, at_once)
        copied = T.alloc_buffer((self.group_inputs * channel_stride(at_once * rectangle.columns, self.unit.lanes),),
                                "float32", scope="global")
        with T.serial(0, whole) as part:
            self._some_rows(rows, copied, rectangle, part * at_once, at_once, origin, target)
        if rest:
            self._some_rows(rows, copied, rectangle, whole * at_once, rest, origin, target)

    def _some_rows(self, rows: BlockRows, copied: Buffer, rectangle: Rectangle, first: Expr, count: int, origin: Expr,
                   target: Expr) -> None:
        """`count` rows of a rectangle from row `first` on: copied, summed, and added to y."""
        problem, columns = self.problem, rectangle.columns
        stride = channel_stride(count * columns, self.unit.lanes)
        self._copy(copied, stride, columns, count, origin + first * (problem.stride[0] * problem.width))
        fill_between(copied, self.group_inputs, stride, count * columns, self.unit.lanes)
        cut = cut_pixels(count * columns, self.tile, self.unit, padded=True)
        channels = channels_at_once(self.blocks.block_size, self.unit)
        sums = T.alloc_buffer((channels * stride,), "float32", scope="global")

        def emit_run(run: Channels) -> None:
            each_tile(cut, lambda shape, start: sum_tile(
                rows, Source(copied, 0, stride), run, shape, start, planes(writer(sums), 0, stride),
                zero_start(run, self.unit)))
            plane = self._plane(run) + target + first * problem.out_width
            with T.serial(0, run.count) as channel, T.serial(0, count) as row:
                position = 0
                for lanes in pieces(columns, self.unit.lanes):
                    value = load(sums, channel * stride + row * columns + position, lanes)
                    self._add(plane + channel * self.pixels + row * problem.out_width + position, value, lanes)
                    position += lanes

        rows.each_row(self.group, emit_run, self.share)

    def _copy(self, copied: Buffer, stride: int, columns: int, count: int, origin: Expr) -> None:
        """The pixels of some rows, side by side in every channel."""
        problem = self.problem
        with T.serial(0, self.group_inputs) as channel, T.serial(0, count) as row:
            first = self.source + channel * (problem.height * problem.width) + origin + row * (
                problem.stride[0] * problem.width)
            each_strip(columns, self.unit.lanes, lambda position, lanes: store(
                copied, channel * stride + row * columns + position,
                load_strided(self.buffers.x, first + position * problem.stride[1], lanes, problem.stride[1], self.unit),
                lanes))

    def _add(self, index: Expr, value: Expr, lanes: int) -> None:
        """To a sum that waits."""
        store(self.y, index, value + load(self.y, index, lanes), lanes)

    def _begin(self, run: Channels) -> None:
        """The bias for all outputs."""
        with T.serial(0, run.count) as channel:
            bias, plane = self.rows.bias[run.start + channel], self._plane(run) + channel * self.pixels
            each_strip(self.pixels, self.unit.lanes, lambda position, lanes: store(
                self.y, plane + position, splat(bias, lanes), lanes))

    def _finish(self, run: Channels) -> None:
        """Residual and activation. No vector may overlap the one before."""
        whole = self.pixels // self.unit.lanes * self.unit.lanes
        with T.serial(0, run.count) as channel:
            plane = self._plane(run) + channel * self.pixels

            def emit(position: Expr, lanes: int) -> None:
                self.buffers.output.store(plane + position, load(self.y, plane + position, lanes), lanes)

            if whole:
                each_strip(whole, self.unit.lanes, emit)
            position = whole
            for lanes in pieces(self.pixels - whole, self.unit.lanes):
                emit(position, lanes)
                position += lanes


def _tap_after_tap(encoded: Encoded, taps: list[int]) -> Encoded:
    """The same blocks, their values stored tap by tap in that order."""
    values = encoded.values.reshape(-1, encoded.taps, encoded.block_size)[:, taps]
    return replace(encoded, values=np.ascontiguousarray(values.transpose(1, 0, 2)).reshape(-1))
