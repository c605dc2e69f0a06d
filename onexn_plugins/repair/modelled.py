"""What each layer costs on a core that is not at hand, as the compiler's cost model has it.

The unit is a multiply-add of a dense kernel: a layer costs its multiply-adds over the speed-up that the core's row in
tvm_backend/kernels/cores.py promises for the blocks that are left. What a layer is beside its multiply-adds (loads of
activations, depthwise taps) counts as these do, so ratios are right between layers of a kind and networks rather than
in seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from onexn_plugins.layers import PrunableLayer, mask_for, pattern_of
from onexn_plugins.repair.budget import GRID
from onexn_plugins.scores import random as random_scores
from onexn_plugins.selection import keep_highest

SPARSE = 0.9  # ratio at which every kernel is sparse that can be


def modelled_prices(model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any, block_size: int,
                    target: str) -> tuple[dict[str, np.ndarray], float]:
    """(prices of these layers, fixed price of all others), in multiply-adds of dense kernels.

    The model has one number per layer, how fast its sparse kernel multiplies, so one ratio tells all of them.
    """
    from onexn_plugins.tvm_backend import inspect_module
    from onexn_plugins.tvm_backend.planning.plan import WORTH_SKIPPING

    found = {layer["name"]: layer for layer in inspect_module(
        without_blocks(model, layers, block_size, SPARSE), example_inputs, target=target)}
    prices = {}
    for name in layers:
        layer = found[name]
        share = (1 - GRID) / (layer["expected_speedup"] * layer["kept"]) if layer["sparse"] else np.ones(len(GRID))
        prices[name] = layer["dense_macs"] * np.where(share >= WORTH_SKIPPING, 1.0, share)
    return prices, float(sum(layer["dense_macs"] for name, layer in found.items() if name not in layers))


def without_blocks(model: nn.Module, layers: Mapping[str, PrunableLayer], block_size: int, ratio: float) -> nn.Module:
    """A copy in which random blocks of these layers are zero."""
    pruned = copy.deepcopy(model).eval()
    for name in layers:
        layer: Any = pruned.get_submodule(name)
        pattern = pattern_of(layer, block_size, name)
        keep = keep_highest(random_scores(pattern, layer=name), ratio)
        with torch.no_grad():
            layer.weight.mul_(mask_for(layer, keep, pattern))
    return pruned
