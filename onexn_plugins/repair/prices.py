"""What each layer costs at each ratio: multiply-adds or bytes, counted in the blocks that its elimination leaves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from onexn_plugins.layers import pattern_of
from onexn_plugins.measurement import ModelReport
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.budget import GRID

INDEX_BYTES = 2  # of the input channel that a kept block reads


def kept_share(scores: Tensor, pattern: BlockPattern) -> np.ndarray:
    """Share of a layer's weights that stay at every ratio of GRID; a tail's block holds fewer than others.

    Args:
        scores: [block_rows, in / groups]; the lowest goes first.
        pattern: of the layer.
    """
    heights = pattern.row_heights()[:, None].expand(pattern.shape).flatten()
    gone = heights[scores.flatten().argsort(stable=True)].cumsum(0).double().numpy()
    return 1 - np.interp(GRID, np.arange(len(gone) + 1) / len(gone), [0.0, *(gone / gone[-1])])


def macs_prices(report: ModelReport, kept: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], float]:
    """(prices of the layers of `kept`, fixed multiply-adds of all others) for one forward pass."""
    each = {layer.name: layer.dense_macs or 0 for layer in report.layers}
    prices = {name: each[name] * share for name, share in kept.items()}
    return prices, float(sum(each.values()) - sum(each[name] for name in kept))


def bytes_prices(model: nn.Module, kept: Mapping[str, np.ndarray], block_size: int) -> tuple[
        dict[str, np.ndarray], float]:
    """(prices, fixed bytes): weights that stay, and the index of each kept block once anything is pruned."""
    prices, own = {}, set()
    for name, share in kept.items():
        layer: Any = model.get_submodule(name)
        weight = layer.weight
        blocks = pattern_of(layer, block_size, name).num_blocks
        whole = float(weight.numel() * weight.element_size())
        prices[name] = np.where(GRID > 0, whole * share + blocks * (1 - GRID) * INDEX_BYTES, whole)
        own.add(id(weight))
    fixed = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters() if id(tensor) not in own)
    return prices, float(fixed)
