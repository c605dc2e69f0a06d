"""How many hidden channels go before the blocks: both ratios of every layer planned in one, for one budget.

A hidden channel that goes whole saves its filter, its depthwise kernel and its reader's column for a single error;
blocks are finer, but cost an error in the maker and one in the reader. Which pays differs from layer to layer, so every
share of channels is weighed with the best blocks for what it leaves. Losses add up, and one price of a multiply-add
holds everywhere (Lagrange's multiplier: Everett, Operations Research 1963); it rises until the budget is met.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from onexn_plugins.repair.budget import GRID
from onexn_plugins.repair.channels import LEAST, Hidden
from onexn_plugins.repair.elimination import Elimination
from onexn_plugins.repair.harm import Harm

SHARES = np.arange(0.0, 1 - LEAST + 1e-9, 0.05)  # of hidden channels that are considered
DOUBLINGS, BISECTIONS = 200, 60


@dataclass(frozen=True)
class Choice:
    """What every layer may lose, in all combinations that are considered.

    Attributes:
        losses: [shares of channels, ratios of blocks] of harm.
        prices: of the same shape, what is left.
    """

    losses: np.ndarray
    prices: np.ndarray

    def at(self, price: float) -> tuple[np.ndarray, np.ndarray]:
        """(loss, what is left), [shares of channels], with the best ratio of blocks if what is left costs so much."""
        best = (self.losses + price * self.prices).argmin(1)
        rows = np.arange(len(best))
        return self.losses[rows, best], self.prices[rows, best]


def shares_of_channels(hidden: Mapping[str, Hidden], blocks: Mapping[str, Elimination],
                       channels: Mapping[str, Elimination], harm: Mapping[str, Harm],
                       prices: Mapping[str, np.ndarray], passing: Mapping[str, float],
                       budget: float) -> dict[str, float]:
    """Reader -> share of its hidden channels that should go, from 0 on.

    Args:
        hidden: reader -> its hidden channels.
        blocks: every layer to prune, eliminated in blocks.
        channels: every reader, eliminated in whole columns.
        harm: what each layer's error does to the outputs.
        prices: what each of these layers costs at every ratio of GRID, with all its channels.
        passing: what the depthwise layers between them cost.
        budget: that all of them together may cost.
    """
    makers = {each.maker for each in hidden.values()}
    units = {reader: _unit(each, blocks, channels[reader], harm, prices, passing) for reader, each in hidden.items()}
    alone = [_alone(blocks[name], harm[name], prices[name]) for name in blocks if name not in makers | set(hidden)]

    def chosen(price: float) -> tuple[dict[str, float], float]:
        shares, left = {}, sum(float(each.at(price)[1][0]) for each in alone)
        for reader, parts in units.items():
            losses, costs = (np.sum(each, axis=0) for each in zip(*(part.at(price) for part in parts), strict=True))
            place = int((losses + price * costs).argmin())
            shares[reader] = float(SHARES[place])
            left += float(costs[place])
        return shares, left

    low, high = 0.0, 1e-12
    for _ in range(DOUBLINGS):
        if chosen(high)[1] <= budget:
            break
        low, high = high, 2 * high
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (low, middle) if chosen(middle)[1] <= budget else (middle, high)
    return chosen(high)[0]


def _unit(hidden: Hidden, blocks: Mapping[str, Elimination], channels: Elimination, harm: Mapping[str, Harm],
          prices: Mapping[str, np.ndarray], passing: Mapping[str, float]) -> tuple[Choice, Choice, Choice]:
    """The reader with the channels' own loss, the maker, and what lies between."""
    reader, maker = blocks[hidden.reader], blocks[hidden.maker]
    left = (1 - SHARES)[:, None]  # a layer with fewer channels costs so much less at the same ratio of its blocks
    order = channels.scores[0].argsort(stable=True)
    reading = np.stack([channels.error(share) + _remaining(reader, order[_count(share, len(order)) :])
                        for share in SHARES])
    making = (1 - SHARES)[:, None] * maker.error(GRID)  # rows of the channels that go take their error along
    between = sum(passing[name] for name in hidden.passing) * left
    return (Choice(harm[hidden.reader](reading), left * prices[hidden.reader]),
            Choice(harm[hidden.maker](making), left * prices[hidden.maker]),
            Choice(np.zeros_like(between), between))


def _alone(elimination: Elimination, harm: Harm, price: np.ndarray) -> Choice:
    return Choice(harm(elimination.error(GRID))[None], price[None])


def _remaining(elimination: Elimination, kept: Tensor) -> np.ndarray:
    """Error at every ratio of GRID when blocks go from these input channels alone."""
    return Elimination(elimination.scores[:, kept], elimination.losses[:, kept]).error(GRID)


def _count(share: float, channels: int) -> int:
    return round(float(share) * channels)
