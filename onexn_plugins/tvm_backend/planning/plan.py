"""Decides, per layer, whether its zero blocks are worth skipping and in blocks of which size, and says why.

A kernel for N output channels per block reads one input vector for N multiply-adds, so small blocks do less per load.
Skipping pays where the share of blocks left, divided by that efficiency, is below what a dense kernel costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.pattern import check_block_size, detect_block_size
from onexn_plugins.tvm_backend.kernels.choose import dense_block, filled_lanes, sparse_vectors
from onexn_plugins.tvm_backend.kernels.problem import Conv, Linear
from onexn_plugins.tvm_backend.kernels.request import Weights
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

BLOCK_SIZES = (32, 16, 8, 4, 2, 1)
# Multiply-adds per second at block size N over those of a dense convolution, both on blocks that are kept. With N = 2
# and less a kernel is bound by its loads (measured on AVX-512: 2.2-2.6x at 50 % for N >= 4, 1.6-2.1x for N = 2).
CONV_EFFICIENCY = {1: 0.5, 2: 0.75}
# Where rows fill vectors it does as a convolution, but for turning rows into columns and back.
ROWS_EFFICIENCY = 0.86
# A sparse layer has to promise this much less time than a dense one, else it stays dense: with N = 4 and 95 % kept, the
# indices still eat the gain (0.95 to 1.01 of the dense time on five shapes, 0.88 to 0.93 with 90 % kept).
# Measured by `python -m benchmarks.density`.
WORTH_SKIPPING = 0.95
# No layer is expected to get faster than with this share of its blocks: input, output and bias remain.
SMALLEST_SHARE = 0.02


@dataclass(frozen=True)
class Decision:
    """How one weight is encoded.

    Attributes:
        sparse: zero blocks are skipped.
        block_size: N of the blocks that are stored, sparse or not.
        kept: share of blocks stored.
        reason: why, in words.
    """

    sparse: bool
    block_size: int
    kept: float
    reason: str


class Planner:
    """Decides for every layer of one network.

    Args:
        unit: the target's vector registers.
        block_size: N for all layers; None detects it layer by layer.
        recorded: what export_onnx wrote about each weight, by the weight's name in the file.
    """

    def __init__(self, unit: VectorUnit, block_size: int | None, recorded: dict[str, dict[str, Any]]) -> None:
        if block_size is not None:
            check_block_size(block_size)
        self.unit, self._forced, self._recorded = unit, block_size, recorded

    def decide(self, problem: Conv | Linear, weights: Weights, weight_name: str) -> Decision:
        """How to encode the weight of a layer."""
        recorded = self._recorded_size(weight_name)
        widest = weights.widest
        dense = min(dense_block(problem, self.unit), widest)
        if bool(weights.nonzero.all()):
            return Decision(False, dense, 1.0, "no zero kernel")
        if self.unit.strict:
            return Decision(False, dense, 1.0, "zero blocks are multiplied, too: zero times infinity is NaN (strict)")
        found = min(recorded, widest) if recorded else detect_block_size(weights.nonzero, weights.groups)
        candidates = [min(self._forced, widest)] if self._forced else [size for size in BLOCK_SIZES if size <= widest]
        kept = {size: weights.blocks(size).density for size in candidates}
        costs = {size: share / self.efficiency(problem, size) for size, share in kept.items()}
        # The block size that the layer was pruned with, unless another one promises less work.
        best = min(costs, key=lambda size: (round(costs[size], 3), size != found))
        share = f"{kept[best]:.0%} of the 1×{best} blocks are kept"
        if costs[best] >= WORTH_SKIPPING:
            if kept[best] == 1:
                return Decision(False, dense, 1.0, "its zero kernels fill no block")
            limit = WORTH_SKIPPING * self.efficiency(problem, best)
            return Decision(False, dense, 1.0,
                            f"{share}: too many to be faster than dense (fewer than {limit:.0%} would be)")
        return Decision(True, best, kept[best], share)

    def expected_speedup(self, problem: Conv | Linear, decision: Decision) -> float:
        """How many times faster than our own dense kernel; 1 where the decision is dense."""
        if not decision.sparse:
            return 1.0
        return self.efficiency(problem, decision.block_size) / max(decision.kept, SMALLEST_SHARE)

    def efficiency(self, problem: Conv | Linear, block_size: int) -> float:
        """Multiply-adds per second at that block size over those of a dense kernel."""
        vectors, measured = sparse_vectors(problem, self.unit), self.unit.measured
        if vectors == "channels":
            return min(measured.linear_most, measured.linear_efficiency * block_size)
        efficiency = CONV_EFFICIENCY.get(block_size, 1.0) * measured.conv_efficiency
        if vectors == "rows" and not measured.dense_rows:  # else a dense kernel turns rows into columns, too
            efficiency *= ROWS_EFFICIENCY * filled_lanes(problem, self.unit)
        return efficiency

    def _recorded_size(self, name: str) -> int | None:
        """The block size asked for, or recorded for that weight."""
        if self._forced is not None:
            return self._forced
        entry = self._recorded.get(name)
        if entry is None:
            return None
        try:
            block_size = entry["block_size"]
            check_block_size(block_size, name)
        except (KeyError, TypeError) as error:
            raise OneXNError(name, "the pattern recorded in the file is not readable",
                             "Export the model again with export_onnx") from error
        return int(block_size)
