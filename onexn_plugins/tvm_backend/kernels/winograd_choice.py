"""For which convolutions Winograd's algorithm pays, and with tiles of which size."""

from __future__ import annotations

import math

from onexn_plugins.tvm_backend.kernels.problem import Conv, VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd_filtering import MOST_POINTS
from onexn_plugins.tvm_backend.kernels.winograd_layout import layout_for

# Measured on AVX-512 with ResNet-50's layers at 1 to 100 % of the blocks. Costs in multiply-adds: of transforming a
# point of a tile and input channel (packing included), one of a tile and output channel back, and of a weight that
# comes from beyond the second-level cache.
_THERE, _BACK, _WEIGHT = 21, 5, 4
# Shares of the multiply-adds' rate that direct kernels reach, and sums of several phases; those of one reach it.
_DIRECT, _PHASES = 0.95, 0.7


def best_outputs(problem: Conv, kept: float, unit: VectorUnit) -> int | None:
    """Pixels per side of the tiles that this convolution is fastest with; None where a direct kernel is faster.

    Args:
        problem: the convolution.
        kept: share of its blocks.
        unit: vector registers.
    """
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    pixels = problem.out_height * problem.out_width

    def cost(size: int) -> float:
        layout = layout_for(problem, size, unit)
        tiles = layout.lanes_computed
        transforms = tiles * (_THERE * layout.points * inputs + _BACK * math.prod(layout.side) * outputs)
        rate = 1 if len(layout.phases) == 1 else _PHASES
        return kept * layout.points * inputs * outputs * (tiles / rate + _WEIGHT) + transforms

    direct = kept * problem.taps * inputs * outputs * (pixels / _DIRECT + _WEIGHT)
    best = min(_sizes(problem, unit), key=cost, default=None)
    return best if best is not None and cost(best) < direct else None


def _sizes(problem: Conv, unit: VectorUnit) -> list[int]:
    """Tiles that may be faster."""
    if unit.fused_weights:  # on ARM, the one that was measured there
        return [2] if (problem.kernel, problem.stride, problem.dilation) == ((3, 3), (1, 1), (1, 1)) else []
    return [size for size in (2, 4) if min(problem.kernel) > 1 and is_possible(problem, size)]


def is_possible(problem: Conv, size: int) -> bool:
    """Whether there is an algorithm for tiles of this size."""
    points = [size + -(-taps // stride) - 1 for taps, stride in zip(problem.kernel, problem.stride, strict=True)]
    return problem.dilation == (1, 1) and max(points) <= MOST_POINTS
