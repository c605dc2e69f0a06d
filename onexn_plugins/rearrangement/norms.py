"""What the search works on: the L1 norm of every kernel of every layer, and how much of it a block mask keeps."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from onexn_plugins.layers import PrunableLayer, out_first, pattern_of
from onexn_plugins.pattern import BlockPattern, kernel_l1
from onexn_plugins.scores import aggregate
from onexn_plugins.selection import keep_highest, num_pruned

Producer = tuple[str, Tensor]  # a layer and the rows its channels lie at, int64 [channels]


def row_order(rows: Tensor, order: Tensor, size: int) -> Tensor:
    """The order of all rows of a layer in which channel i, at rows[i], becomes channel order[i]: int64 [size]."""
    whole = torch.arange(size)
    whole[rows.flatten()] = rows[order].flatten()
    return whole


class KernelNorms:
    """Kernel norms of the layers to prune, in the current order of their rows.

    Attributes:
        kernels: layer -> float64 [out, in / groups]: L1 norms, or the saliency that was given for them. The order of
            the columns never matters to 1×N.
        patterns: layer -> its blocks.
        ratios: layer -> fraction of blocks to prune.
    """

    def __init__(self, layers: Mapping[str, PrunableLayer], block_size: int, ratio: float | Mapping[str, float],
                 saliency: Mapping[str, Tensor] | None = None) -> None:
        self.ratios = dict(ratio) if isinstance(ratio, Mapping) else dict.fromkeys(layers, ratio)
        self.kernels = {name: kernel_l1(out_first(layer, layer.weight)).cpu() if saliency is None
                        else saliency[name].cpu().double() for name, layer in layers.items()}
        self.patterns: dict[str, BlockPattern] = {
            name: pattern_of(layer, block_size, name) for name, layer in layers.items()}

    def total(self, name: str) -> float:
        """L1 norm of the whole layer."""
        return float(self.kernels[name].sum())

    def kept(self, name: str) -> float:
        """L1 norm of what layer-wise pruning keeps of the layer: exactly the blocks that the pruners keep."""
        pattern, kernels = self.patterns[name], self.kernels[name]
        keep = keep_highest(aggregate(kernels, pattern), self.ratios[name])
        return float(pattern.split(kernels).sum(1)[keep].sum())

    def retained(self) -> tuple[dict[str, float], float]:
        """Fraction of L1 kept, layer by layer, and over all layers together."""
        kept, total = ({name: of(name) for name in self.kernels} for of in (self.kept, self.total))
        return ({name: _fraction(kept[name], total[name]) for name in kept},
                _fraction(sum(kept.values()), sum(total.values())))

    def reorder(self, name: str, order: Tensor) -> None:
        """Row i becomes what row order[i] was."""
        self.kernels[name] = self.kernels[name][order]

    def near_one(self, producers: Sequence[Producer]) -> KernelNorms:
        """These layers alone, over one power of two: no sum overflows in float32, and every comparison is as before."""
        other = copy.copy(self)
        other.kernels = {name: self.kernels[name] for name, _ in producers}
        _, exponent = math.frexp(max(float(kernels.max()) for kernels in other.kernels.values()))
        other.kernels = {name: kernels / 2.0**exponent for name, kernels in other.kernels.items()}
        return other

    def moved(self, producers: Sequence[Producer], order: Tensor) -> KernelNorms:
        """The producers' layers alone, with their channels in another order."""
        other = copy.copy(self)
        other.kernels = {name: self.kernels[name] for name, _ in producers}
        other.patterns = {name: self.patterns[name] for name, _ in producers}
        for name, rows in producers:
            other.reorder(name, row_order(rows, order, len(other.kernels[name])))
        return other

    def cut(self, name: str) -> tuple[float, float]:
        """(lowest score that is kept, L1 norm kept), as `kept` but for ties and without sorting; (0, 0) if none is."""
        pattern, kernels = self.patterns[name], self.kernels[name]
        scores = aggregate(kernels, pattern)
        pruned = num_pruned(scores.numel(), self.ratios[name])
        if pruned == scores.numel():
            return 0.0, 0.0
        threshold = scores.flatten().kthvalue(pruned + 1).values
        return float(threshold), float(pattern.split(kernels).sum(1)[scores >= threshold].sum())

    def block_of_row(self, name: str) -> Tensor:
        """The block row that every output channel lies in, int64 [out]."""
        pattern = self.patterns[name]
        rows = torch.arange(pattern.block_rows, dtype=torch.int64)[:, None].expand(pattern.shape)
        return pattern.expand(rows)[:, 0]


def _fraction(part: float, whole: float) -> float:
    return part / whole if whole else 1.0
