"""GridSample: each output pixel reads its place in the image from a grid and interpolates between the pixels there.

Where a pixel lies is worked out once for all channels. TVM's works it out for each, takes a minute to compile for cubic
interpolation with reflection, and divides by zero where an image has one pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import numpy as np
from tvm import relax, tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Term
from onexn_plugins.tvm_backend.lowering.operators.function import call
from onexn_plugins.tvm_backend.lowering.operators.layout import is_inside, place
from onexn_plugins.tvm_backend.reading.graph import Graph, Node

_CUBIC = -0.75
# Places beyond it, and NaN, are as far outside as any other; int32 holds it.
_FARTHEST = 2.0**24
_MODES = {"bilinear": "linear", "bicubic": "cubic"}


def grid_sample(builder: relax.BlockBuilder, graph: Graph, node: Node,
                inputs: list[relax.Expr]) -> list[relax.Expr] | None:
    """Of images of any number of axes."""
    spec, image = graph.specs[node.output], graph.shape(node.inputs[0])[2:]
    if not np.issubdtype(spec.dtype, np.floating) or graph.dtype(node.inputs[1]) != spec.dtype:
        return None
    dtype, (batch, channels) = str(spec.dtype), spec.shape[:2]
    lines = [_line(node, size, dtype) for size in image]
    pixels, inner = math.prod(spec.shape[2:]), math.prod(image)

    def body(x: Buffer, grid: Buffer, y: Buffer) -> None:
        with T.serial(0, batch) as number, T.serial(0, pixels) as pixel:
            last = (number * pixels + pixel + 1) * len(image) - 1
            # The grid names the last axis first.
            corners = list(product(*(line.taps(grid[last - axis]) for axis, line in enumerate(lines))))
            with T.serial(0, channels) as channel:
                plane = (number * channels + channel) * inner
                total: Expr = tirx.const(0, dtype)
                for corner in corners:
                    value = x[plane + place([tap.index for tap in corner], image)]
                    total = total + value * math.prod([tap.share for tap in corner[1:]], start=corner[0].share)
                T.buffer_store(y, total, [(number * channels + channel) * pixels + pixel])

    return call(builder, "grid_sample", body, inputs, [spec])


@dataclass(frozen=True)
class _Tap:
    """A pixel along one axis, always one of the image's, and its share of the result."""

    index: Expr
    share: Expr


@dataclass(frozen=True)
class _Line:
    """One axis of the image, and how it is read."""

    size: int
    dtype: str
    mode: str
    padding: str
    aligned: bool

    def taps(self, given: Expr) -> list[_Tap]:
        """The pixels around a place that the grid gives from -1 to 1."""
        at = T.bind(self._held(T.bind(self._pixels(given))))
        low = T.bind(tirx.nearbyint(at) if self.mode == "nearest" else tirx.floor(at))
        first = T.cast(low, "int32") - (1 if self.mode == "cubic" else 0)
        return [self._tap(T.bind(first + number), T.bind(share))
                for number, share in enumerate(self._shares(T.bind(at - low)))]

    def _pixels(self, given: Expr) -> Expr:
        """The place in pixels, the first of which is at 0."""
        one, two = self._number(1), self._number(2)
        at: Term = ((given + one) / two * self._number(self.size - 1) if self.aligned else
                    ((given + one) * self._number(self.size) - one) / two)
        return tirx.min(tirx.max(at, self._number(-_FARTHEST)), self._number(_FARTHEST))

    def _held(self, at: Expr) -> Expr:
        """The place itself, or that in the image which stands for one outside."""
        low, high = (0.0, self.size - 1.0) if self.aligned else (-0.5, self.size - 0.5)
        outside = tirx.Or(at < self._number(low), at > self._number(high))
        if self.padding == "border" and self.mode != "cubic":  # which has onnxruntime hold each tap alone
            held = tirx.min(tirx.max(at, self._number(0)), self._number(self.size - 1))
        elif self.padding == "reflection" and high > low:
            period = self._number(2 * (high - low))
            beyond = T.bind(at - self._number(low))
            beyond = T.bind(beyond - tirx.floor(beyond / period) * period)
            held = self._number(low) + tirx.min(beyond, period - beyond)
        elif self.padding == "reflection":
            held = self._number(low)
        else:
            return at
        return tirx.Select(outside, held, at)

    def _tap(self, index: Expr, share: Expr) -> _Tap:
        clamped = tirx.max(tirx.min(index, self.size - 1), 0)
        if self.padding == "zeros":
            return _Tap(T.bind(clamped), T.bind(tirx.Select(is_inside(index, self.size), share, self._number(0))))
        if self.padding == "border":
            return _Tap(T.bind(clamped), share)
        period = 2 * (self.size - 1) if self.aligned else 2 * self.size
        turned = T.bind(tirx.floormod(index, max(period, 1)))
        return _Tap(T.bind(tirx.min(turned, period - turned - (0 if self.aligned else 1))), share)

    def _shares(self, beyond: Expr) -> list[Expr]:
        """What each tap counts for a place that lies so far behind the pixel before it."""
        one = self._number(1)
        if self.mode == "nearest":
            return [one]
        if self.mode == "linear":
            return [one - beyond, beyond]
        return [self._outer(beyond + one), self._inner(beyond), self._inner(one - beyond),
                self._outer(self._number(2) - beyond)]

    def _inner(self, away: Expr) -> Expr:
        """Keys' cubic, less than a pixel away."""
        two, three = self._number(_CUBIC + 2), self._number(_CUBIC + 3)
        return (two * away - three) * away * away + self._number(1)

    def _outer(self, away: Expr) -> Expr:
        """One or two pixels away."""
        a = self._number(_CUBIC)
        return ((a * away - self._number(5 * _CUBIC)) * away + self._number(8 * _CUBIC)) * away - a * self._number(4)

    def _number(self, value: float) -> Term:
        return tirx.const(value, self.dtype)


def _line(node: Node, size: int, dtype: str) -> _Line:
    mode = node.text("mode", "linear")
    return _Line(size, dtype, _MODES.get(mode, mode), node.text("padding_mode", "zeros"),
                 bool(node.attributes.get("align_corners", 0)))
