"""Method "swap": rows change blocks as long as pruning then keeps more.

The order inside a block and the order of blocks do not matter to 1×N, so arranging a space means cutting its
channels into blocks. What a mask keeps is the sum of the highest block scores; with the threshold λ between kept and
pruned blocks held fixed it is Σ max(score − λ, 0) up to a constant, and that sum has one term per block row.

Take one channel out of every block. Putting channel g into block h then changes the term of h alone, so the value of
any reshuffle of these channels is a sum over a table [channels, blocks], and improving cyclic exchanges can be read
off it (cyclic exchange neighbourhoods: Ahuja, Ergun, Orlin and Punnen, "A survey of very large-scale neighborhood
search techniques", 2002). The table is cheap: Σ max(x + y, 0) = ½ Σ (x + y) + ½ Σ |x + y|, an L1 distance.

Noise on the table, which falls to nothing over the sweeps, lets the search leave arrangements that no exchange improves
(perturbed optimisation: Papandreou and Yuille, "Perturb-and-MAP random fields", 2011). Where it starts matters little:
a random order ends within 0.0001 of the paper's sort.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onexn_plugins.rearrangement.exchange import best_exchange
from onexn_plugins.rearrangement.norms import KernelNorms, Producer

# One sweep moves every channel once. Elementary operations of a whole search of one space, about a second's worth:
# wide layers get fewer sweeps. A count, not a clock, so that the result depends on the seed alone.
OPERATIONS = 0.52e9
MIN_SWEEPS, MAX_SWEEPS = 4, 27
TALL = 5  # rows; higher blocks get so many times more operations and sweeps as they are higher
MAX_ROUNDS = 1280  # in all sweeps together: a sweep has as many as a block is high, each at a fixed cost of its own
NOISE = 0.12  # standard deviation of the noise in the first sweep, in units of the mean threshold
NOISELESS = 0.2  # this share of the sweeps, the last ones, goes without


@dataclass
class _Table:
    """Layers whose rows the space cuts into blocks at the same places, side by side.

    Attributes:
        names: the layers.
        norms: float32 [channels, columns of all layers].
        block: block row of each slot, int64 [slots], numbered from 0.
        others: norms of rows outside the space in each block, float32 [blocks, columns].
        height: share of N that each block is high (less than 1 for a tail), float32 [blocks, 1].
    """

    names: list[str]
    norms: Tensor
    block: Tensor
    others: Tensor
    height: Tensor

    def values(self, order: Tensor, slots: Tensor, thresholds: Tensor) -> Tensor:
        """float32 [k, k]: the term of the block of slot h with the channel of slot g put there."""
        moved = self.norms[order[slots]]
        blocks = self.others.index_add(0, self.block, self.norms[order])[self.block[slots]]
        rest = blocks - moved - thresholds * self.height[self.block[slots]]
        sums = moved.sum(1)[:, None] + rest.sum(1)[None]
        return 0.5 * (sums + torch.cdist(moved[None], -rest[None], p=1.0)[0])

    def thresholds(self, cuts: Mapping[str, tuple[float, float]], norms: KernelNorms) -> Tensor:
        """λ of every column, float32 [columns]."""
        return torch.cat([torch.full((norms.kernels[name].shape[1],), cuts[name][0]) for name in self.names])


def swap(norms: KernelNorms, producers: Sequence[Producer], classes: Tensor, start: Tensor,
         generator: torch.Generator) -> Tensor:
    """The best order of a space's channels that the search finds.

    Args:
        norms: of all layers in their present order; not changed.
        producers: the layers whose rows the channels are, once for every copy.
        classes: int64 [channels]; channels of equal class may trade places.
        start: int64 [channels], the order to start from.
        generator: of the random choices.

    Returns:
        int64 [channels]: slot i takes channel order[i].
    """
    tables = _tables(norms, producers)
    if not any(_has_choice(table, classes) for table in tables):
        return torch.arange(len(classes))
    work = sum(table.others.shape[0] * table.norms.numel() for table in tables)
    rounds = _rounds(tables)
    patience = max(1.0, rounds / TALL)
    sweeps = round(min(MAX_SWEEPS * patience, MAX_ROUNDS / rounds, max(MIN_SWEEPS, OPERATIONS * patience / work)))
    order, best, best_kept = start, start, -1.0
    for sweep in range(sweeps + 1):
        cuts = _cuts(norms, producers, order)
        kept = sum(part for _, part in cuts.values())
        if kept > best_kept:
            best, best_kept = order, kept
        if sweep < sweeps:
            thresholds = [table.thresholds(cuts, norms) for table in tables]
            noise = NOISE * max(0.0, 1 - sweep / sweeps / (1 - NOISELESS)) * float(torch.cat(thresholds).mean())
            order = _sweep(tables, thresholds, classes, order, noise, generator)
    return best


def _sweep(tables: Sequence[_Table], thresholds: Sequence[Tensor], classes: Tensor, order: Tensor,
           noise: float, generator: torch.Generator) -> Tensor:
    """As many rounds as a block has rows, each with one random slot per block and fixed thresholds."""
    order = order.clone()
    for _ in range(_rounds(tables)):
        slots = _one_slot_per_block(tables, len(order), generator)
        value = noise * torch.randn(len(slots), len(slots), generator=generator)
        for table, threshold in zip(tables, thresholds, strict=True):
            value += table.values(order, slots, threshold)
        same_class = classes[slots][:, None] == classes[slots][None]
        order[slots] = order[slots[best_exchange(value, same_class)]]
    return order


def _rounds(tables: Sequence[_Table]) -> int:
    """Rows of the highest block."""
    return max(int(table.block.bincount().max()) for table in tables)


def _one_slot_per_block(tables: Sequence[_Table], slots: int, generator: torch.Generator) -> Tensor:
    """Random slots, no two in one block of any table, ascending."""
    chance = torch.rand(slots, generator=generator)
    for table in tables:
        highest = torch.zeros(len(table.others)).scatter_reduce_(0, table.block, chance, "amax")
        chance = torch.where(chance == highest[table.block], chance, -1.0)
    return (chance >= 0).nonzero().flatten()


def _cuts(norms: KernelNorms, producers: Sequence[Producer], order: Tensor) -> dict[str, tuple[float, float]]:
    moved = norms.moved(producers, order)
    return {name: moved.cut(name) for name in moved.kernels}


def _tables(norms: KernelNorms, producers: Sequence[Producer]) -> list[_Table]:
    """One table per way the producers cut the channels into blocks; most spaces have one."""
    alike: dict[tuple, list[Producer]] = {}
    for name, rows in producers:
        block = norms.block_of_row(name)[rows]
        heights = norms.patterns[name].row_heights()[block]
        alike.setdefault((*block.tolist(), *heights.tolist()), []).append((name, rows))
    return [_table(norms, group) for group in alike.values()]


def _table(norms: KernelNorms, producers: Sequence[Producer]) -> _Table:
    name, rows = producers[0]
    pattern = norms.patterns[name]
    occupied, block = norms.block_of_row(name)[rows].unique(return_inverse=True)
    others = []
    for each, own_rows in producers:
        outside = norms.kernels[each].clone()
        outside[own_rows] = 0.0
        others.append(norms.patterns[each].split(outside).sum(1)[occupied])
    return _Table(
        names=[each for each, _ in producers],
        norms=torch.cat([norms.kernels[each][own_rows] for each, own_rows in producers], dim=1).float(),
        block=block,
        others=torch.cat(others, dim=1).float(),
        height=(pattern.row_heights()[occupied, None] / pattern.block_size).float(),
    )


def _has_choice(table: _Table, classes: Tensor) -> bool:
    """Some channels of one class lie in different blocks."""
    return len(torch.stack([classes, table.block]).unique(dim=1).T) > len(classes.unique())
