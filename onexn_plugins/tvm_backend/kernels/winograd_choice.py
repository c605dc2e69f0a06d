"""For which convolutions Winograd's algorithm pays, and with tiles of which size."""

from __future__ import annotations

import math
from dataclasses import dataclass

from onexn_plugins.tvm_backend.kernels.problem import Conv, VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd_filtering import MOST_POINTS
from onexn_plugins.tvm_backend.kernels.winograd_layout import layout_for


@dataclass(frozen=True)
class _Costs:
    """In multiply-adds of direct kernels' best rate.

    Attributes:
        there: transforming a point of a tile and input channel, packing included.
        back: a point of a tile and output channel.
        weight: one that comes from beyond the second-level cache.
        direct, one, several: share of that rate which direct kernels reach, sums of one phase, and of several.
    """

    there: float
    back: float
    weight: float
    direct: float
    one: float
    several: float


# Measured with ResNet-50's layers at 1 to 100 % of the blocks.
_AVX512 = _Costs(21, 5, 4, 0.95, 1, 0.7)
# By instructions of ResNet-18's layers and small ones at 3 to 100 % of the blocks (benchmarks/arm):
# 70 for a channel's 16 points.
_ARM64 = _Costs(70 / 16, 70 / 16, 0, 1, 0.85, 0.85)


def best_outputs(problem: Conv, kept: float, unit: VectorUnit) -> int | None:
    """Pixels per side of the tiles that this convolution is fastest with; None where a direct kernel is faster.

    Args:
        problem: the convolution.
        kept: share of its blocks.
        unit: vector registers.
    """
    inputs, outputs = problem.in_channels // problem.groups, problem.out_channels // problem.groups
    pixels, costs = problem.out_height * problem.out_width, _ARM64 if unit.is_arm64 else _AVX512

    def cost(size: int) -> float:
        layout = layout_for(problem, size, unit)
        tiles = layout.lanes_computed
        transforms = tiles * (costs.there * layout.points * inputs
                              + costs.back * math.prod(layout.side) * outputs)
        rate = costs.one if len(layout.phases) == 1 else costs.several
        return kept * layout.points * inputs * outputs * (tiles / rate + costs.weight) + transforms

    direct = kept * problem.taps * inputs * outputs * (pixels / costs.direct + costs.weight)
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
