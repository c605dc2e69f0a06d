"""Improving exchanges in a table of values, one item per place."""

from __future__ import annotations

import torch
from torch import Tensor

CANDIDATES = 6  # places considered next for every item in a cycle of three
FORBIDDEN = -1e30
TOLERANCE = 1e-6  # of the mean value: gains below it are rounding


def best_exchange(value: Tensor, allowed: Tensor) -> Tensor:
    """A permutation of items that raises Σ value[item, place], found by exchanges of two and three items.

    Args:
        value: float32 [items, places], square; item i is at place i.
        allowed: bool [items, places]; the diagonal is true.

    Returns:
        int64 [places]: the item that goes to each place. No exchange of two items raises the sum any further.
    """
    count = len(value)
    value = value.masked_fill(~allowed, FORBIDDEN)
    tolerance = TOLERANCE * float(value.diagonal().abs().mean())
    placed = torch.arange(count)
    while True:
        gain = value - value.diagonal()[None]  # of the item at place g moving to place h
        cycles, gains = _pairs(gain)
        if not bool((gains > tolerance).any()) and count > 2:
            cycles, gains = _triples(gain)
        cycles, gains = cycles[gains > tolerance], gains[gains > tolerance]
        if not len(gains):
            return placed
        cycles = _disjoint(cycles, gains, count)
        for rows in (placed, value):  # the item at each place of a cycle goes to the next place
            rows[cycles.roll(-1, dims=1)] = rows[cycles]


def _pairs(gain: Tensor) -> tuple[Tensor, Tensor]:
    """For every place the best partner to swap with: cycles [n, 2] and their gains."""
    both = gain + gain.T
    both.fill_diagonal_(FORBIDDEN)
    best = both.max(dim=1)
    return torch.stack([torch.arange(len(gain)), best.indices], dim=1), best.values


def _triples(gain: Tensor) -> tuple[Tensor, Tensor]:
    """Cycles first -> second -> third -> first along each item's best candidates: [n, 3] and their gains."""
    count = len(gain)
    width = min(CANDIDATES, count - 1)
    top = (gain + torch.zeros_like(gain).fill_diagonal_(FORBIDDEN)).topk(width, dim=1)
    first = torch.arange(count)[:, None, None].expand(count, width, width)
    second = top.indices[:, :, None].expand_as(first)
    third = top.indices[top.indices]
    total = top.values[:, :, None] + top.values[top.indices] + gain[third, first]
    total = total.masked_fill(third == first, FORBIDDEN)
    best = total.reshape(count, -1).max(dim=1)
    cycles = torch.stack([first, second, third], dim=-1).reshape(count, -1, 3)
    return cycles[torch.arange(count), best.indices], best.values


def _disjoint(cycles: Tensor, gains: Tensor, count: int) -> Tensor:
    """Of cycles [n, k] those with the highest gains that share no place."""
    used = [False] * count
    chosen = []
    for cycle in cycles[gains.argsort(descending=True, stable=True)].tolist():
        if not any(used[place] for place in cycle):
            chosen.append(cycle)
            for place in cycle:
                used[place] = True
    return torch.tensor(chosen)
