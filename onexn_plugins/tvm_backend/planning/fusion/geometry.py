"""A Conv node of one to three dimensions as the problem that kernels know, and what that takes of its weight.

    one dimension                    an image of height 1
    axes of no window side by side   one axis: 3×1×1 on frames of H×W is 3×1 on images of D rows, H·W pixels wide
    taps outside the image           left out: under no output pixel do they see anything but zeros

The last one holds for every finite weight, and others are refused: a product with padding is ±0, and a sum of them
differs in the sign of a zero at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from onexn_plugins.tvm_backend.kernels.problem import Conv, Conv3d, Unsupported


@dataclass(frozen=True)
class Axis:
    """One axis of an image and of the window that moves along it.

    Attributes:
        size: of the image.
        taps: of the kernel.
        stride, dilation: in pixels.
        before, after: padding.
        first: how many taps of the weight's kernel come before these.
    """

    size: int
    taps: int
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    first: int = 0

    @property
    def outputs(self) -> int:
        return (self.size + self.before + self.after - self.dilation * (self.taps - 1) - 1) // self.stride + 1

    @property
    def is_plain(self) -> bool:
        """Outputs are inputs: no window, stride or padding."""
        return (self.taps, self.stride, self.before, self.after) == (1, 1, 0, 0)

    def sees(self, tap: int) -> bool:
        """Whether a tap lies on the image for some output."""
        start = tap * self.dilation - self.before
        skipped = max(0, -(start // self.stride))  # outputs for which it lies before the image
        return skipped < self.outputs and start + skipped * self.stride < self.size

    def trimmed(self) -> Axis:
        """Without the first and the last taps that see nothing, as long as the padding they stand in can go with them;
        one stays."""
        axis = self
        while axis.taps > 1 and axis.before >= axis.dilation and not axis.sees(0):
            axis = replace(axis, taps=axis.taps - 1, before=axis.before - axis.dilation, first=axis.first + 1)
        while axis.taps > 1 and axis.after >= axis.dilation and not axis.sees(axis.taps - 1):
            axis = replace(axis, taps=axis.taps - 1, after=axis.after - axis.dilation)
        return replace(axis, dilation=1) if axis.taps == 1 else axis


@dataclass(frozen=True)
class Asked:
    """What a Conv node asks for.

    Attributes:
        problem: as kernels know it.
        axes: of the image as the file has them, without taps that see nothing.
        left_out: taps that see nothing, of all.
    """

    problem: Conv
    axes: tuple[Axis, ...]
    left_out: tuple[int, int]

    def weight(self, values: np.ndarray) -> np.ndarray:
        """The problem's weight, of the file's [out, in / groups, *kernel]."""
        taps = [slice(axis.first, axis.first + axis.taps) for axis in self.axes]
        seen = values[(slice(None), slice(None), *taps)]
        if seen.shape == values.shape == self.problem.weight_shape:
            return values
        return np.ascontiguousarray(seen).reshape(self.problem.weight_shape)

    @property
    def note(self) -> str:
        """For reports: which taps are left out; empty where none are."""
        unseen, taps = self.left_out
        return f"{unseen} of {taps} taps see nothing but padding" if unseen else ""


def asked(image: Sequence[int], weight: Sequence[int], attributes: dict[str, Any]) -> Asked:
    """The convolution of an image [batch, channels, ...] by a weight [out, in / groups, ...].

    Raises:
        Unsupported: it has no dimension, or more than three.
    """
    batch, in_channels, *sizes = image
    out_channels, _, *kernel = weight
    rank = len(sizes)
    if not 1 <= rank <= 3 or len(kernel) != rank:
        raise Unsupported("only convolutions of one to three dimensions have kernels")
    ones, pads = [1] * rank, attributes.get("pads") or [0] * (2 * rank)
    strides, dilations = attributes.get("strides") or ones, attributes.get("dilations") or ones
    axes = tuple(
        Axis(*numbers).trimmed()
        for numbers in zip(sizes, kernel, strides, pads[:rank], pads[rank:], dilations, strict=True))
    taps = prod(kernel)
    found = _problem(batch, in_channels, out_channels, axes, attributes.get("group", 1))
    return Asked(found, axes, (taps - prod(axis.taps for axis in axes), taps))


def _problem(batch: int, in_channels: int, out_channels: int, axes: tuple[Axis, ...], groups: int) -> Conv:
    if len(axes) == 1:
        axes = (Axis(1, 1), *axes)
    if len(axes) == 3:
        axes = _merged(axes)
    *frames, vertical, horizontal = axes
    problem = Conv(
        batch, in_channels, vertical.size, horizontal.size, out_channels,
        kernel=(vertical.taps, horizontal.taps), stride=(vertical.stride, horizontal.stride),
        padding=(vertical.before, horizontal.before, vertical.after, horizontal.after),
        dilation=(vertical.dilation, horizontal.dilation), groups=groups)
    if not frames:
        return problem
    (depth,) = frames
    return Conv3d(**vars(problem), depth=depth.size, frames=depth.taps, frame_stride=depth.stride,
                  frame_padding=(depth.before, depth.after), frame_dilation=depth.dilation)


def _merged(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Two neighbouring axes without a window as one."""
    for place in (1, 0):
        if axes[place].is_plain and axes[place + 1].is_plain:
            both = Axis(axes[place].size * axes[place + 1].size, 1)
            return (*axes[:place], both, *axes[place + 2:])
    return axes
