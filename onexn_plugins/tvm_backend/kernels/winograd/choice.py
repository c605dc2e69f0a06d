"""For which convolutions Winograd's algorithm pays, and with tiles of which size."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from onexn_plugins.tvm_backend.kernels.winograd.filtering import MOST_POINTS
from onexn_plugins.tvm_backend.kernels.winograd.layout import Layout, ProductLayout, layout_for


@dataclass(frozen=True)
class Costs:
    """Costs in multiply-adds, and shares of the multiply-adds' rate.

    Attributes:
        there: of transforming a point of a tile and input channel, packing included.
        back: of transforming one of a tile and output channel.
        weight: of fetching one.
        sums, phases: the rate that sums reach over one phase, and over several.
        direct: the rate that a direct kernel reaches.
    """

    there: float
    back: float
    weight: float
    sums: float
    phases: float
    direct: float


# Times on AVX-512 of ResNet-50's layers at 1 to 100 % of the blocks. On AVX2 and SSE they choose the fastest in 30 of
# 32 cases, in the worst one 1.3 times slower than that (benchmarks/winograd).
_X86 = Costs(there=21, back=5, weight=4, sums=1, phases=0.7, direct=0.95)
# Point by point on AVX-512 with whole data paths: points that lie far apart take longer to write. So the fastest is
# chosen in 14 of 16 cases, in the worst one 1.1 times slower than that (benchmarks/winograd/results/intel.json).
_WIDE_BY_POINTS = replace(_X86, there=34, back=11)
# On 64-bit ARM transforming is cheaper beside multiply-adds of four lanes: instructions of ResNet-18's layers and small
# ones at 3 to 100 % of the blocks (benchmarks/arm). 32-bit ARM: as before that was counted, a guess.
_ARM64 = Costs(there=4.4, back=4.4, weight=0, sums=0.85, phases=0.85, direct=1)
_ARM32 = Costs(there=8.1, back=8.1, weight=0, sums=0.85, phases=0.85, direct=1)


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


def _costs(layout: Layout | None, unit: VectorUnit) -> Costs:
    """What transforms of a layout cost, and a direct kernel."""
    if unit.fused_weights:
        return _ARM64 if unit.is_arm64 else _ARM32
    return _WIDE_BY_POINTS if unit.is_wide and isinstance(layout, ProductLayout) else _X86


def _sizes(problem: Conv, unit: VectorUnit) -> list[int]:
    """Tiles that may be faster."""
    if unit.fused_weights:  # on ARM, the one that was measured there
        return [2] if (problem.kernel, problem.stride, problem.dilation) == ((3, 3), (1, 1), (1, 1)) else []
    return [size for size in (2, 4) if min(problem.kernel) > 1 and is_possible(problem, size)]


def is_possible(problem: Conv, size: int) -> bool:
    """Whether there is an algorithm for tiles of this size."""
    points = [size + -(-taps // stride) - 1 for taps, stride in zip(problem.kernel, problem.stride, strict=True)]
    return problem.dilation == (1, 1) and max(points) <= MOST_POINTS
