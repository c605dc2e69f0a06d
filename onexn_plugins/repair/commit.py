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


def commit(model: nn.Module, copy: nn.Module, keep: Mapping[str, Tensor], block_size: int) -> None:
    """Give `model` the values and moves of `copy` and masks of these kept blocks; on any exception it is as before."""
    tensors, before = named_tensors(model), applied_moves(model)
    values = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    gradients = {name: tensor.grad.clone() for name, tensor in tensors.items() if tensor.is_leaf
                 and tensor.grad is not None}
    after, moves, layers = named_tensors(copy), applied_moves(copy), weighted_layers(model)
    try:
        apply_moves(model, moves[len(before):])
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(after[name])
        remember(model, moves)
        for name, kept in keep.items():
            attach(layers[name], kept, block_size, name)
    except BaseException:
        for name in keep:
            if mask_of(layers[name]) is not None:
                detach(layers[name])
        remember(model, before)
        with torch.no_grad():
            for name, tensor in tensors.items():
                tensor.copy_(values[name])
                if name in gradients and tensor.grad is not None:
                    tensor.grad.copy_(gradients[name])
        raise
