"""Where a layer takes up a shift of its outputs: its bias, or the mean of the batch norm behind it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onexn_plugins.repair.surroundings import Surroundings


def has_offset(layer: nn.Module, around: Surroundings) -> bool:
    """Is there such a place?"""
    return isinstance(layer.bias, Tensor) or around.norm is not None


def add_offset(layer: nn.Module, around: Surroundings, shift: Tensor) -> None:
    """Add a shift [out] to every output of the layer, in place; nothing where there is no place for it."""
    with torch.no_grad():
        if isinstance(layer.bias, Tensor):
            layer.bias.add_(shift.to(layer.bias))
        elif around.norm is not None:
            around.norm.running_mean.sub_(shift.to(around.norm.running_mean))  # type: ignore[union-attr]


def set_offset(layer: nn.Module, around: Surroundings, shift: Tensor, mean: Tensor | None) -> None:
    """Let the layer's weighted inputs be shifted by `shift` [out] in all, in place.

    Args:
        layer: whose bias takes it up, where it has one.
        around: else the batch norm behind it.
        shift: float64 [out].
        mean: what the norm subtracted from the outputs that are wanted.
    """
    with torch.no_grad():
        if isinstance(layer.bias, Tensor):
            layer.bias.copy_(shift)
        elif around.norm is not None and mean is not None:
            around.norm.running_mean.copy_(mean[: len(shift)].double().cpu() - shift)  # type: ignore[union-attr]


def norm_scale(around: Surroundings, channels: int) -> Tensor:
    """What the batch norm behind multiplies each channel with, float64 [channels]; ones where there is none."""
    norm = around.norm
    if norm is None:
        return torch.ones(channels, dtype=torch.float64)
    scale = (norm.running_var.double().cpu() + norm.eps).rsqrt()  # type: ignore[union-attr]
    return scale if norm.weight is None else scale * norm.weight.detach().double().cpu()
