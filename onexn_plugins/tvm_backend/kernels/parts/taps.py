"""Which outputs each tap of a kernel serves: those under which it lies on the image, a rectangle of them.

With a dilation as large as half the image most taps lie in the padding for most outputs (Chen and others, Rethinking
Atrous Convolution for Semantic Image Segmentation, 2017, see there how a 3×3 kernel decays to 1×1).
"""

from __future__ import annotations

from dataclasses import dataclass

from onexn_plugins.tvm_backend.kernels.problem import Conv


@dataclass(frozen=True)
class Rectangle:
    """The outputs that a tap serves.

    Attributes:
        tap: its number, row-major.
        top, left: the first of them.
        rows, columns: how many.
        y, x: the pixel under the first.
    """

    tap: int
    top: int
    left: int
    rows: int
    columns: int
    y: int
    x: int

    @property
    def pixels(self) -> int:
        return self.rows * self.columns


def rectangles(problem: Conv) -> list[Rectangle]:
    """Of every tap that serves any."""
    top, left, _, _ = problem.padding
    down, right = problem.stride
    found = []
    for vertical in range(problem.kernel[0]):
        first_row, rows, y = _span(vertical * problem.dilation[0] - top, problem.height, down, problem.out_height)
        for horizontal in range(problem.kernel[1]):
            first, columns, x = _span(horizontal * problem.dilation[1] - left, problem.width, right, problem.out_width)
            if rows > 0 and columns > 0:
                tap = vertical * problem.kernel[1] + horizontal
                found.append(Rectangle(tap, first_row, first, rows, columns, y, x))
    return found


def _span(start: int, size: int, stride: int, outputs: int) -> tuple[int, int, int]:
    """Along one axis, for a tap that lies at `start` under output 0: (first output, how many, first pixel)."""
    first = max(0, -(start // stride))
    count = min(outputs, (size - 1 - start) // stride + 1) - first
    return first, count, start + first * stride
