"""The options of `repair` and `plan_ratios`, checked before anything is run."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import (
    PrunableLayer,
    check_layer_name,
    check_layers,
    default_layers,
    is_depthwise,
    prunable_layers,
)
from onexn_plugins.pattern import check_block_size
from onexn_plugins.rearrangement.checks import check_model
from onexn_plugins.selection import check_ratio


def layers_to_prune(model: nn.Module, ignored_layers: Any, full: bool | None, block_size: int) -> dict[
        str, PrunableLayer]:
    """As `rearrange` and the pruners take them; Linear layers by default only where there is no convolution.

    Raises:
        OneXNError: the model is masked, wrapped or has nothing to prune, or block_size does not fit.
    """
    check_model(model)
    full = not prunable_layers(model) if full is None else full
    layers = prunable_layers(model, ignored_layers, full=full)
    check_block_size(block_size)
    check_layers(layers)
    return layers


def depthwise_layers(model: nn.Module, ignored_layers: Any) -> list[str]:
    """Depthwise convolutions that are not ignored: they lose nothing, but read what pruned layers give."""
    return [name for name, layer in default_layers(model, ignored_layers).items() if is_depthwise(layer)]


def check_ratios(pruning_ratio: Any, layers: Mapping[str, PrunableLayer]) -> float | dict[str, float]:
    """One ratio, or one for each of the layers that are named; those that are not stay dense."""
    if not isinstance(pruning_ratio, Mapping):
        return check_ratio(pruning_ratio)
    for name in pruning_ratio:
        check_layer_name(name, layers)
    return {name: check_ratio(ratio, name) for name, ratio in pruning_ratio.items()}


def check_amount(value: Any, name: str, least: float = 0.0) -> float:
    """A number that is not below `least`; OneXNError otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < float("inf"):
        raise OneXNError(name, f"must be a number from {least:g} on, got {value!r}", "Leave it out for the default")
    return float(value)


class Context:
    """In which a network is run on images: bfloat16 where the processor multiplies it faster and the model is float32.

    Moments, least squares and everything that is kept stay in the model's own dtype.
    """

    def __init__(self, model: nn.Module) -> None:
        parameters = [each for each in model.parameters() if each.is_floating_point()]
        on_cpu = all(each.device.type == "cpu" and each.dtype == torch.float32 for each in parameters)
        self.fast = bool(parameters) and on_cpu and _bfloat16_is_fast()

    def __call__(self) -> AbstractContextManager[Any]:
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.fast, cache_enabled=False)


def _bfloat16_is_fast() -> bool:
    try:
        return bool(torch.cpu.get_capabilities().get("avx512_bf16"))
    except (AttributeError, RuntimeError):
        return False
