"""Method "swap": rows change blocks as long as pruning then keeps more.

The order inside a block and the order of blocks do not matter to 1×N, so arranging a space means cutting its
channels into blocks. What a mask keeps is the sum of the highest block scores; with the threshold λ between kept and
pruned blocks held fixed it is Σ max(score − λ, 0) up to a constant, and that sum has one term per block row.

Take one channel out of every block. Putting channel g into block h then changes the term of h alone, so the value of
any reshuffle of these channels is a sum over a table [channels, blocks], and the best of all reshuffles is a linear
assignment (gyro-permutation assigns what it takes out of blocks in the same way: "Toward Efficient Permutation for
Hierarchical N:M Sparsity on GPUs", 2024). The table is cheap: Σ max(x + y, 0) = ½ Σ (x + y) + ½ Σ |x + y|, an L1
distance.

Noise on the table, which falls to nothing over the sweeps, lets the search leave arrangements that none improves
(perturbed optimisation: Papandreou and Yuille, "Perturb-and-MAP random fields", 2011). Where it starts matters little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from onexn_plugins.rearrangement.assignment import best_assignment
from onexn_plugins.rearrangement.norms import KernelNorms, Producer

# One sweep moves every channel once. It compares each with the channels of `partners` blocks, column by column, which
# is the work that grows fastest with a layer; so the whole search of one space gets so many of these comparisons, about
# a second's worth. A count, not a clock, so that the result depends on the seed alone.
COMPARISONS = 3.0e9
ASSIGNMENT = 256  # columns that one comparison costs besides its own: the best reshuffle by the table
MIN_SWEEPS, MAX_SWEEPS = 4, 32  # a space too wide for the fewest meets fewer partners in each
MIN_PARTNERS = 8
TALL = 4  # rows; higher blocks get so many times more comparisons and sweeps as they are higher
MAX_ROUNDS = 2560  # in all sweeps together: a sweep has as many as a block is high, each at a fixed cost of its own
CACHED = 2**18  # numbers that stay in the processor's cache
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

    def split(self, order: Tensor, slots: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
        """The channels of these slots, and what their blocks hold without them above the threshold: [k, columns]."""
        taken = self.norms[order[slots]]
        blocks = self.others.index_add(0, self.block, self.norms[order])[self.block[slots]]
        return taken, blocks - taken - thresholds * self.height[self.block[slots]]

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
    sweeps, partners = _effort(tables)
    order, best, best_kept = start, start, -1.0
    for sweep in range(sweeps + 1):
        cuts = _cuts(norms, producers, order)
        kept = sum(part for _, part in cuts.values())
        if kept > best_kept:
            best, best_kept = order, kept
        if sweep < sweeps:
            thresholds = [table.thresholds(cuts, norms) for table in tables]
            noise = NOISE * max(0.0, 1 - sweep / sweeps / (1 - NOISELESS)) * float(torch.cat(thresholds).mean())
            order = _sweep(tables, thresholds, classes, order, partners, noise, generator)
    return best


def _effort(tables: Sequence[_Table]) -> tuple[int, int]:
    """(sweeps, partners): how many sweeps, and how many blocks a channel may change places with in each.

    Their product is bounded by `COMPARISONS`. More partners serve better than more sweeps down to the fewest sweeps.
    Where even those do not fit, the cost is that of one sweep with the fewest partners: proportional to the layers.
    """
    rounds = _rounds(tables)
    patience = max(1.0, rounds / TALL)
    one_partner = sum(len(table.norms) * (table.norms.shape[1] + ASSIGNMENT) for table in tables)
    affordable = COMPARISONS * patience / one_partner  # sweeps × partners
    blocks = max(len(table.others) for table in tables)
    partners = min(blocks, max(MIN_PARTNERS, int(affordable / MIN_SWEEPS)))
    return max(1, round(min(MAX_SWEEPS * patience, MAX_ROUNDS / rounds, affordable / partners))), partners


def _sweep(tables: Sequence[_Table], thresholds: Sequence[Tensor], classes: Tensor, order: Tensor, partners: int,
           noise: float, generator: torch.Generator) -> Tensor:
    """As many rounds as a block has rows, each with one random slot per block and fixed thresholds.

    In each the blocks are dealt at random into groups of at most `partners`, which exchange channels among themselves.
    """
    order = order.clone()
    for _ in range(_rounds(tables)):
        slots = _one_slot_per_block(tables, len(order), generator)
        parts = [table.split(order, slots, threshold) for table, threshold in zip(tables, thresholds, strict=True)]
        shuffled = torch.randperm(len(slots), generator=generator)
        for group in shuffled.tensor_split(-(-len(slots) // partners)):
            value = noise * torch.randn(len(group), len(group), generator=generator)
            for taken, rest in parts:
                value += positive_sums(taken[group], rest[group])
            chosen = slots[group]
            same_class = classes[chosen][:, None] == classes[chosen][None]
            order[chosen] = order[chosen[best_assignment(value, same_class)]]
    return order


def positive_sums(taken: Tensor, rest: Tensor) -> Tensor:
    """Σ max(taken + rest, 0) over the columns for every channel taken and every block, float32 [k, k].

    As Σ max(taken, −rest) + Σ rest, in pieces that stay in the processor's cache: four times as fast as torch.cdist.
    """
    count, columns = taken.shape
    width = min(count, max(1, CACHED // max(1, columns)))
    height = min(count, max(1, CACHED // max(1, columns * width)))
    sums, buffer = torch.empty(count, count), torch.empty(height, width, columns)
    for place, blocks in zip(range(0, count, width), rest.neg().split(width), strict=True):
        for item, channels in zip(range(0, count, height), taken.split(height), strict=True):
            larger = torch.maximum(channels[:, None], blocks[None], out=buffer[: channels.shape[0], : blocks.shape[0]])
            torch.sum(larger, 2, out=sums[item : item + height, place : place + width])
    return sums + rest.sum(1)


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
