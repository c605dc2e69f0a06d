"""Windows over frames: the padded scratch of as many frames as a 3-d kernel has, one after the other.

So every tap of a k×k×k kernel is a constant offset, as in a single frame, and sums know of no third dimension.
"""

from __future__ import annotations

from functools import cached_property

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, fill
from onexn_plugins.tvm_backend.kernels.parts.window import Image, Window, pack, window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv3d
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit


class FrameWindow(Window):
    """Layout of the scratch of one channel for a band of rows of one output frame; `problem` is a Conv3d."""

    problem: Conv3d

    @cached_property
    def plane(self) -> Window:
        """The window of one frame."""
        return Window(self.problem.frame, self.rows, self.alignment)

    @cached_property
    def taps(self) -> tuple[int, ...]:
        return tuple(frame * self.plane.size + tap for frame in range(self.problem.frames) for tap in self.plane.taps)

    @cached_property
    def size(self) -> int:
        return self.problem.frames * self.plane.size


def frame_window_for(problem: Conv3d, channels: int, budget: int, alignment: int = 1) -> FrameWindow:
    """The tallest band whose scratch for all channels stays within `budget` bytes."""
    rows = window_for(problem.frame, channels * problem.frames, budget, alignment).rows
    return FrameWindow(problem, rows, alignment)


def pack_frames(window: FrameWindow, x: Buffer, channel: Expr, scratch: Buffer, base: Expr, frame: Expr,
                first_row: Expr, unit: VectorUnit) -> None:
    """Copy what a band of output frame `frame` reads of a channel of x ([channels, depth, height, width], flat) into
    its scratch at `base`; frames outside the image are zeros."""
    problem, plane = window.problem, window.plane
    pixels = problem.height * problem.width
    with T.serial(0, problem.frames) as tap:
        seen = frame * problem.frame_stride + tap * problem.frame_dilation - problem.frame_padding[0]
        target = base + tap * plane.size
        with T.If(tirx.all(seen >= 0, seen < problem.depth)):
            with T.Then():
                image = Image(x, (channel * problem.depth + seen) * pixels, problem.width)
                pack(plane, image, scratch, target, first_row, unit)
            with T.Else():
                fill(scratch, target, plane.size, 0.0, unit.lanes)
