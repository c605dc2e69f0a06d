"""For which convolutions Winograd's algorithm pays, and with tiles of which size."""

from __future__ import annotations

import math

from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit, WinogradCosts
from onexn_plugins.tvm_backend.kernels.winograd.filtering import MOST_POINTS
from onexn_plugins.tvm_backend.kernels.winograd.layout import Layout, ProductLayout, layout_for


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
        costs = _costs(layout, unit)
        tiles = layout.lanes_computed
        transforms = tiles * (costs.there * layout.points * inputs + costs.back * math.prod(layout.side) * outputs)
        rate = costs.sums if len(layout.phases) == 1 else costs.phases
        return kept * layout.points * inputs * outputs * (tiles / rate + costs.weight) + transforms

    any_size = _costs(None, unit)
    direct = kept * problem.taps * inputs * outputs * (pixels / any_size.direct + any_size.weight)
    best = min(_sizes(problem, unit), key=cost, default=None)
    return best if best is not None and cost(best) < direct else None


def _costs(layout: Layout | None, unit: VectorUnit) -> WinogradCosts:
    """What transforms of a layout cost, and a direct kernel."""
    measured = unit.measured
    return (isinstance(layout, ProductLayout) and measured.winograd_by_points) or measured.winograd


def _sizes(problem: Conv, unit: VectorUnit) -> list[int]:
    """Tiles that may be faster."""
    if unit.measured.winograd_kernels == "3×3":
        return [2] if (problem.kernel, problem.stride, problem.dilation) == ((3, 3), (1, 1), (1, 1)) else []
    return [size for size in (2, 4) if min(problem.kernel) > 1 and is_possible(problem, size)]


def is_possible(problem: Conv, size: int) -> bool:
    """Whether there is an algorithm for tiles of this size."""
    points = [size + -(-taps // stride) - 1 for taps, stride in zip(problem.kernel, problem.stride, strict=True)]
    return problem.dilation == (1, 1) and max(points) <= MOST_POINTS
