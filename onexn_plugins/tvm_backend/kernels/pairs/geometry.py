"""Which way leads from hidden channels to the depthwise sums, told by the images' geometry and the vector unit."""

from __future__ import annotations

import math

from onexn_plugins.tvm_backend.kernels.channelwise.unpadded import Strips
from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.request import Request
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Share of the lanes of its vectors that a row must fill: sums that cross rows leave no lane idle.
_FILL = 0.85
# Multiply-adds of a channel's sums, all of which are written out: more take long to compile.
_MOST_INSTRUCTIONS = 3000
# Hidden pixels of a channel up to which rows that fill vectors are better read unpadded, too.
_MOST_PIXELS = 28 * 28
# Bytes of an image's output of the depthwise convolution from which on a projection is computed with it.
_LEAST_PROJECTED = 256 * 1024


def why_not_in_place(depthwise: Conv, unit: VectorUnit) -> str | None:
    """None where hidden rows fill vectors, and every hidden pixel has a place in the window."""
    (rows, columns), (down, right) = depthwise.kernel, depthwise.stride
    top, left, _, _ = depthwise.padding
    vectors = -(-depthwise.width // unit.lanes)
    if right > 2 or down > rows or right > columns or depthwise.dilation != (1, 1):
        return f"a stride of {depthwise.stride} and dilation of {depthwise.dilation}"
    if depthwise.width % 4 or depthwise.width < _FILL * vectors * unit.lanes:
        return f"hidden rows of {depthwise.width} pixels do not fill vectors of {unit.lanes}"
    reached = (depthwise.height + top <= (depthwise.out_height - 1) * down + rows
               and depthwise.width + left <= (depthwise.out_width - 1) * right + columns)
    return None if reached else "hidden pixels that no output reads"


def why_not_unpadded(problem: Conv, depthwise: Conv, unit: VectorUnit) -> str | None:
    """None where the depthwise convolution can read unpadded rows, and its sums are few enough.

    Measured on AVX-512: a fifth faster than hidden channels that are copied row by row, from 5×5 to 90×90 pixels. Than
    rows that are written where they are read 13 % (24 % under a stride of 2) at 28×28, but slower at 56×56.
    """
    if not unit.measured.reads_unpadded:
        return "reading unpadded rows was not measured on this core"
    if not problem.is_pointwise:
        return "the first convolution is not 1×1 of stride 1 without padding"
    if depthwise.dilation != (1, 1) or depthwise.stride[1] > 2 or depthwise.out_width == 1:
        return f"a stride of {depthwise.stride}, dilation of {depthwise.dilation}, {depthwise.out_width} output columns"
    if problem.height * problem.width > _MOST_PIXELS and why_not_in_place(depthwise, unit) is None:
        return f"hidden images of {problem.height}×{problem.width} pixels are faster written where they are read"
    if Strips(depthwise, unit).instructions > _MOST_INSTRUCTIONS:
        return "its sums, all written out, would take long to compile"
    return None


def why_not_projected(request: Request) -> str | None:
    """None where a 1×1 convolution takes what the depthwise one gives, and it pays not to store that; or no such
    convolution is asked for."""
    if len(request.stages) < 3:
        return None
    first, second, last = request.stages
    problem, depthwise, projection = first.conv, second.conv, last.conv
    if not projection.is_pointwise or problem.groups != 1 or projection.groups != 1:
        return "a projection is 1×1, of one group and after one of one group"
    if projection.input_shape != depthwise.output_shape or second.epilogue.residual:
        return (f"the depthwise convolution gives {depthwise.output_shape}, the projection takes "
                f"{projection.input_shape}")
    if not request.unit.measured.projects:
        return "AVX-512 with whole data paths gains, AVX2 and Zen 4 (measured on both) do not"
    if 4 * math.prod(depthwise.output_shape[1:]) < _LEAST_PROJECTED:
        return "what the depthwise convolution gives stays in the cache"
    return None
