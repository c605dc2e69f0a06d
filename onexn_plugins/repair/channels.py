"""Whole hidden channels: which ones a network can lose, what each costs, and taking them out of the tensors.

A hidden channel is made by one layer, passes norms and a depthwise convolution, and is read by one. Where it goes,
its filter, its depthwise kernel and the reader's column go with it for a single error; blocks make one in each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from onexn_plugins.layers import PrunableLayer, groups_of, is_depthwise, is_transposed
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.rearrangement import Move, Space
from onexn_plugins.rearrangement.spaces import named_tensors
from onexn_plugins.repair.budget import GRID

LEAST = 0.2  # share of a space's channels that stays


@dataclass(frozen=True)
class Hidden:
    """A space of channels that one layer makes and one reads.

    Attributes:
        space: everything that carries them.
        maker, reader: names of the layers.
        passing: depthwise layers in between.
    """

    space: Space
    maker: str
    reader: str
    passing: tuple[str, ...]


def hidden_spaces(model: nn.Module, spaces: list[Space], layers: Mapping[str, PrunableLayer]) -> dict[str, Hidden]:
    """Reader -> its hidden channels, wherever both layers are to be pruned and channels can be taken out.

    Layers of other kinds between them (grouped convolutions, flattening) keep their channels.
    """
    modules, tensors, found = dict(model.named_modules()), named_tensors(model), {}
    for space in spaces:
        roles: dict[str, list[str]] = {role: [] for role in ("makes", "reads", "passes", "norm", "other")}
        every = torch.arange(space.channels)
        for member in space.members:
            owner, _, kind = member.name.rpartition(".")
            whole = (member.groups == 1 and tensors[member.name].shape[member.dim] == space.channels
                     and member.positions.shape[1] == 1 and torch.equal(member.positions[:, 0], every))
            roles[_role(modules[owner], kind, member.dim, whole)].append(owner)
        makers, readers = set(roles["makes"]), set(roles["reads"])
        alone = len(makers) == len(readers) == 1 and not roles["other"] and space.is_movable
        if alone and makers <= set(layers) and readers <= set(layers):
            reader = readers.pop()
            found[reader] = Hidden(space, makers.pop(), reader, tuple(dict.fromkeys(roles["passes"])))
    return found


def _role(module: nn.Module, kind: str, dim: int, whole: bool) -> str:
    if not whole:
        return "other"
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return "norm"
    if isinstance(module, PrunableLayer) and not is_transposed(module):
        if is_depthwise(module):
            return "passes" if module.in_channels == module.out_channels else "other"  # type: ignore[union-attr]
        if groups_of(module) > 1:
            return "other"
        if dim == 0:
            return "makes"
        return "reads" if kind == "weight" else "other"
    return "other"


def as_one_row(weight: Tensor) -> BlockPattern:
    """The pattern in which a block is a whole input channel: all filters lose it together."""
    return BlockPattern(weight.shape[0], weight.shape[1], weight.shape[0])


def channel_prices(hidden: Mapping[str, Hidden], macs: Mapping[str, int]) -> dict[str, np.ndarray]:
    """Reader -> multiply-adds of everything that goes with its channels, at every ratio of GRID.

    LEAST of them stay, so that higher ratios save no more.
    """
    return {reader: (macs[each.maker] + macs[reader] + sum(macs[name] for name in each.passing))
            * np.maximum(1 - GRID, LEAST) for reader, each in hidden.items()}


def kept_channels(scores: Tensor, ratio: float, block_size: int) -> Tensor:
    """Which channels stay, int64 ascending: a multiple of block_size, those of the highest scores [channels]."""
    count = len(scores)
    wanted = round(max(LEAST, 1 - ratio) * count / block_size) * block_size
    return scores.argsort(descending=True, stable=True)[: min(count, max(block_size, wanted))].sort().values


def to_front(hidden: Hidden, kept: Tensor) -> Move:
    """The move that puts these channels before all others."""
    stays = torch.zeros(hidden.space.channels, dtype=torch.bool)
    stays[kept] = True
    return Move(hidden.space, torch.cat([kept, (~stays).nonzero().flatten()]))


@torch.no_grad()
def cut(model: nn.Module, hidden: Hidden, count: int) -> None:
    """Take all but the first `count` channels out of every tensor; Parameter objects stay, and lose their gradients."""
    tensors, modules = named_tensors(model), dict(model.named_modules())
    for member in hidden.space.members:
        tensor = tensors[member.name]
        tensor.data = tensor.data.narrow(member.dim, 0, count).clone()
        tensor.grad = None
    for owner in {member.name.rpartition(".")[0] for member in hidden.space.members}:
        resize(modules[owner])


def resize(module: Any) -> None:
    """Write the sizes of a layer's weight into its attributes."""
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        each = module.weight if module.running_mean is None else module.running_mean
        module.num_features = module.num_features if each is None else len(each)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif not isinstance(module, PrunableLayer) or is_transposed(module):
        return  # whose channels stay
    elif is_depthwise(module) and module.in_channels == module.out_channels:
        module.groups = module.in_channels = module.out_channels = len(module.weight)
    elif module.groups == 1:
        module.out_channels, module.in_channels = module.weight.shape[:2]
