"""Ratios for a budget: every layer's loss and price at each ratio are known, and dynamic programming chooses.

The idea is SPDY's (Frantar and Alistarh, ICML 2022). Losses of different layers are taken to add up.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onexn_plugins.errors import OneXNError

GRID = np.linspace(0.0, 0.95, 39)  # the ratios that are considered: steps of 0.025
UNITS = 4000  # the budget is counted in so many units


def choose(losses: Mapping[str, np.ndarray], prices: Mapping[str, np.ndarray], budget: float, unit: str = "", *,
           fixed: float = 0.0, spend: bool = True) -> dict[str, float]:
    """The ratio of each layer for which the losses add up to the least within the budget.

    Args:
        losses: layer -> loss at every ratio of GRID.
        prices: layer -> what it costs at every ratio of GRID.
        budget: that the prices may add up to, together with `fixed`.
        unit: of budget and prices, for the message.
        fixed: what everything else costs.
        spend: what the grid leaves over goes to the layers where it saves most, between two ratios of the grid.

    Returns:
        Ratios from 0 to 0.95.

    Raises:
        OneXNError: even the least that all layers can cost is more.
    """
    least = sum(float(price.min()) for price in prices.values()) + fixed
    if least > budget:
        raise OneXNError("budget", f"{budget:.4g}{unit} cannot be met: with {GRID[-1]:.0%} of every layer's "
                         f"blocks gone {least:.4g}{unit} are left", f"Ask for {least * 1.01:.4g}{unit} or more")
    ratios = _by_programming(losses, prices, budget - fixed)
    return _spend(ratios, losses, prices, budget - fixed) if spend else ratios


def at(values: np.ndarray, ratio: float) -> float:
    """A curve over GRID at any ratio."""
    return float(np.interp(ratio, GRID, values))


def _by_programming(losses: Mapping[str, np.ndarray], prices: Mapping[str, np.ndarray], budget: float) -> dict[
        str, float]:
    units = {name: np.ceil(np.round(price / budget * UNITS, 6)).astype(int) for name, price in prices.items()}
    room = UNITS
    if sum(int(price.min()) for price in units.values()) > room:  # rounding up makes the tightest budgets impossible
        return {name: float(GRID[int(price.argmin())]) for name, price in prices.items()}
    best, choices = np.full(room + 1, np.inf), []
    best[0] = 0.0
    for name, loss in losses.items():
        reached, choice = np.full(room + 1, np.inf), np.zeros(room + 1, dtype=int)
        for index, price in enumerate(units[name]):
            if price <= room:
                total = np.full(room + 1, np.inf)
                total[price:] = best[: room + 1 - price] + loss[index]
                better = total < reached
                reached[better], choice[better] = total[better], index
        best = reached
        choices.append(choice)
    place, ratios = int(best.argmin()), {}
    for name, choice in zip(reversed(list(losses)), reversed(choices), strict=True):
        ratios[name] = float(GRID[choice[place]])
        place -= int(units[name][choice[place]])
    return {name: ratios[name] for name in losses}


def _spend(ratios: dict[str, float], losses: Mapping[str, np.ndarray], prices: Mapping[str, np.ndarray],
           budget: float) -> dict[str, float]:
    """Lower ratios one after another, where it saves most per price, until nothing of the budget is left."""
    def gain(name: str) -> float:
        lower = max(0.0, ratios[name] - GRID[1])
        saved = at(losses[name], ratios[name]) - at(losses[name], lower)
        return saved / max(at(prices[name], lower) - at(prices[name], ratios[name]), 1e-12)

    left = budget - sum(at(prices[name], ratio) for name, ratio in ratios.items())
    for name in sorted((name for name in ratios if ratios[name] > 0), key=gain, reverse=True):
        if left <= 0:
            break
        lower = max(0.0, ratios[name] - GRID[1])
        step = at(prices[name], lower) - at(prices[name], ratios[name])
        share = 1.0 if step <= left else left / step
        ratios[name] = float(ratios[name] - share * (ratios[name] - lower))
        left -= share * step
    return ratios
