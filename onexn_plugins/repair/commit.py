"""The model takes what its repaired copy came to, as a whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from onexn_plugins.layers import weighted_layers
from onexn_plugins.masking import attach, detach, mask_of
from onexn_plugins.rearrangement import applied_moves, apply_moves
from onexn_plugins.rearrangement.applied import remember
from onexn_plugins.rearrangement.spaces import named_tensors
from onexn_plugins.repair.channels import resize


def commit(model: nn.Module, copy: nn.Module, keep: Mapping[str, Tensor], block_size: int) -> None:
    """Give `model` the values and moves of `copy` and masks of these kept blocks; on any exception it is as before.

    Where `copy` has fewer channels, parameters stay the objects they are and lose their gradients.
    """
    tensors, before = named_tensors(model), applied_moves(model)
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    gradients = {name: tensor.grad for name, tensor in tensors.items() if tensor.is_leaf and tensor.grad is not None}
    gradient_values = {name: gradient.clone() for name, gradient in gradients.items()}
    after, moves, layers = named_tensors(copy), applied_moves(copy), weighted_layers(model)
    cut = any(tensor.shape != after[name].shape for name, tensor in tensors.items())
    try:
        if not cut:
            apply_moves(model, moves[len(before):])
        _take(model, after)
        remember(model, moves)
        for name, kept in keep.items():
            attach(layers[name], kept, block_size, name)
    except BaseException:
        for name in keep:
            if mask_of(layers[name]) is not None:
                detach(layers[name])
        remember(model, before)
        _take(model, values)
        for name, gradient in gradients.items():
            tensors[name].grad = gradient.copy_(gradient_values[name])
        raise


@torch.no_grad()
def _take(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Every tensor takes a value, and another shape where the value has one."""
    resized = False
    for name, tensor in named_tensors(model).items():
        if tensor.shape == values[name].shape:
            tensor.copy_(values[name])
        else:
            tensor.grad, tensor.data, resized = None, values[name].detach().clone(), True
    for module in model.modules() if resized else ():
        resize(module)
