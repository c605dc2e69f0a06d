"""Which blocks stay. Scores [block_rows, in] in, a boolean keep tensor of the same shape out.

Ratios count blocks: the number pruned is the integer nearest to ratio × blocks (halves round up). Where tail
blocks exist the ratio in weights differs slightly; `measure` reports both. Ties fall to the lower index, so the
same scores give the same blocks everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from onexn_plugins.errors import OneXNError

SCOPES = ("layer", "row", "global")
_ROUNDING = 1e-9  # 0.3 of 10 blocks are 3, whatever 10 × 0.3 is in binary


def check_ratio(ratio: object, layer: str = "pruning_ratio") -> float:
    """The ratio as a float; OneXNError unless it is a number in [0, 1]."""
    if isinstance(ratio, bool) or not isinstance(ratio, (int, float)) or not 0.0 <= ratio <= 1.0:
        raise OneXNError(layer, f"pruning_ratio must be a number from 0 to 1, got {ratio!r}",
                         "It is the fraction of blocks to remove, for example 0.5")
    return float(ratio)


def num_pruned(num_blocks: int, ratio: float) -> int:
    """How many of num_blocks to prune: the nearest integer to ratio × num_blocks."""
    return min(num_blocks, math.floor(num_blocks * ratio + 0.5))


def limits(num_blocks: int, min_ratio: float, max_ratio: float) -> tuple[int, int]:
    """How many of num_blocks to prune at least and at most. Limits are not rounded over; the upper one goes first."""
    high = math.floor(num_blocks * max_ratio + _ROUNDING)
    return min(high, math.ceil(num_blocks * min_ratio - _ROUNDING)), high


def keep_highest(scores: Tensor, ratio: float, *, min_ratio: float = 0.0, max_ratio: float = 1.0) -> Tensor:
    """Layer scope: prune the lowest blocks of the whole layer."""
    count = _within(num_pruned(scores.numel(), ratio), scores.numel(), min_ratio, max_ratio)
    return _drop_lowest(scores.reshape(1, -1), count).reshape(scores.shape)


def keep_highest_per_row(scores: Tensor, ratio: float, *, min_ratio: float = 0.0, max_ratio: float = 1.0) -> Tensor:
    """Row scope: every block row keeps equally many blocks, so that threads are balanced (SUBP, NeurIPS 2023)."""
    width = scores.shape[1]
    return _drop_lowest(scores, _within(num_pruned(width, ratio), width, min_ratio, max_ratio))


def keep_above(scores: Tensor, threshold: float, *, min_ratio: float = 0.0, max_ratio: float = 1.0) -> Tensor:
    """Prune every block that scores below threshold, but no less than min_ratio and no more than max_ratio."""
    below = _within(int((scores < threshold).sum()), scores.numel(), min_ratio, max_ratio)
    return _drop_lowest(scores.reshape(1, -1), below).reshape(scores.shape)


def keep_highest_globally(
    scores: Mapping[str, Tensor],
    ratio: float,
    *,
    min_ratio: float | Mapping[str, float] = 0.0,
    max_ratio: float | Mapping[str, float] = 1.0,
    normalize: bool = True,
) -> dict[str, Tensor]:
    """Global scope: all layers compete for one budget; each layer's own ratio stays in [min_ratio, max_ratio].

    The limits are one number for all layers, or one per layer by name. Scores are divided by their layer's mean,
    because weights of different layers differ in scale; normalize=False is for scores that were made comparable before.
    """
    names = list(scores)
    forced, free = {}, {}
    for name in names:
        flat = _normalised(scores[name]) if normalize else scores[name].reshape(-1)
        order = flat.argsort(stable=True)
        low, high = limits(flat.numel(), *(limit if isinstance(limit, (int, float)) else limit[name]
                                           for limit in (min_ratio, max_ratio)))
        forced[name], free[name] = order[:low], (order[low:high], flat[order[low:high]])
    total = num_pruned(sum(scores[name].numel() for name in names), ratio)
    budget = max(0, total - sum(len(forced[name]) for name in names))
    competing = torch.cat([free[name][1] for name in names])
    pruned = torch.zeros(len(competing), dtype=torch.bool, device=competing.device)
    pruned[competing.argsort(stable=True)[:budget]] = True
    keep, start = {}, 0
    for name in names:
        order, _ = free[name]
        layer = torch.ones(scores[name].numel(), dtype=torch.bool, device=order.device)
        layer[forced[name]] = False
        layer[order[pruned[start : start + len(order)]]] = False
        start += len(order)
        keep[name] = layer.reshape(scores[name].shape)
    return keep


def only_shrinking(scores: Tensor, keep_before: Tensor | None, regrowth: float = 0.0) -> Tensor:
    """Scores in which blocks pruned earlier rank below all others: gradual pruning never revives a block.

    `regrowth` is the exception: this fraction of the pruned blocks, those of the highest scores, competes again.
    """
    if keep_before is None:
        return scores
    barred = ~keep_before.to(scores.device)
    candidates = num_pruned(int(barred.sum()), regrowth)
    if candidates:
        best = scores.masked_fill(~barred, -math.inf).flatten().argsort(descending=True, stable=True)[:candidates]
        barred.view(-1)[best] = False
    return scores.masked_fill(barred, -math.inf)


def _within(count: int, num_blocks: int, min_ratio: float, max_ratio: float) -> int:
    low, high = limits(num_blocks, min_ratio, max_ratio)
    return min(high, max(low, count))


def _drop_lowest(rows: Tensor, count: int) -> Tensor:
    """What stays of every row without its `count` lowest: what is below the threshold goes, and the first that tie."""
    if not count:
        return torch.ones_like(rows, dtype=torch.bool)
    threshold = rows.kthvalue(count, dim=1, keepdim=True).values  # many times faster than sorting
    below, ties = rows < threshold, rows == threshold
    missing = count - below.sum(1, keepdim=True)
    return ~(below | (ties & (ties.cumsum(1) <= missing)))


def _normalised(scores: Tensor) -> Tensor:
    flat = scores.reshape(-1)
    finite = flat[torch.isfinite(flat)]
    mean = finite.mean() if finite.numel() else flat.new_ones(())
    return flat / mean.clamp_min(torch.finfo(flat.dtype).tiny)
