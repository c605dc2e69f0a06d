"""What each layer costs at each ratio: multiply-adds, bytes, or milliseconds of the compiled network."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn

from onexn_plugins.layers import PrunableLayer, out_first
from onexn_plugins.measurement import ModelReport
from onexn_plugins.repair.budget import GRID

INDEX_BYTES = 2  # of the input channel that a kept block reads


def macs_prices(report: ModelReport, layers: Mapping[str, PrunableLayer]) -> tuple[dict[str, np.ndarray], float]:
    """(prices of these layers, fixed multiply-adds of all others) for one forward pass."""
    each = {layer.name: layer.dense_macs or 0 for layer in report.layers}
    prices = {name: each[name] * (1 - GRID) for name in layers}
    return prices, float(sum(each.values()) - sum(each[name] for name in layers))


def bytes_prices(model: nn.Module, layers: Mapping[str, PrunableLayer], block_size: int) -> tuple[
        dict[str, np.ndarray], float]:
    """(prices, fixed bytes): weights that stay, and the index of each kept block once anything is pruned."""
    prices = {}
    for name, layer in layers.items():
        weight = out_first(layer, layer.weight)
        taps, size = weight[0, 0].numel(), weight.element_size()
        kept = weight.numel() * size + weight.numel() / taps / block_size * INDEX_BYTES
        prices[name] = np.where(GRID > 0, kept * (1 - GRID), float(weight.numel() * size))
    own = {id(layer.weight) for layer in layers.values()}
    fixed = sum(tensor.numel() * tensor.element_size() for tensor in model.parameters() if id(tensor) not in own)
    return prices, float(fixed)
