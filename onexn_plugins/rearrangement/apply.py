"""Moves channels: the same permutation for every member of a space, written into the existing tensors.

Parameters stay the objects they were, so an optimizer made before keeps working on them; a gradient moves with its
parameter. An optimizer's own state (momentum) is out of reach: rearrange before training starts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onexn_plugins.pattern import turned
from onexn_plugins.rearrangement.spaces import Member, Space, named_tensors


@dataclass(frozen=True, eq=False)
class Move:
    """A space and the permutation of its channels.

    Attributes:
        space: what moves.
        permutation: int64 [channels]; channel i is replaced by what channel permutation[i] was.
    """

    space: Space
    permutation: Tensor

    def inverse(self) -> Move:
        return Move(self.space, self.permutation.argsort())

    @property
    def is_identity(self) -> bool:
        return bool((self.permutation == torch.arange(len(self.permutation))).all())


def apply_moves(model: nn.Module, moves: Sequence[Move]) -> None:
    """Move the channels of every space, in place."""
    move_tensors(named_tensors(model), moves)


def move_tensors(tensors: Mapping[str, Tensor], moves: Sequence[Move]) -> None:
    """The same for tensors by the names that the members have."""
    with torch.no_grad():
        for move in moves:
            if not move.is_identity:
                for member in move.space.members:
                    _move(tensors, member, move.permutation)


def _move(tensors: Mapping[str, Tensor], member: Member, permutation: Tensor) -> None:
    moved = (permutation != torch.arange(len(permutation))).nonzero().flatten()
    to, source = member.positions[moved].flatten(), member.positions[permutation[moved]].flatten()
    tensor = tensors[member.name]
    for each in (tensor, tensor.grad if tensor.is_leaf else None):
        if each is not None:
            _write(each, member, to.to(each.device), source.to(each.device))


def _write(tensor: Tensor, member: Member, to: Tensor, source: Tensor) -> None:
    if member.groups == 1:
        tensor.index_copy_(member.dim, to, tensor.index_select(member.dim, source))
        return
    slices = turned(tensor, member.groups)  # one for each channel of all groups
    tensor.copy_(turned(slices.index_copy(0, to, slices[source]), member.groups))
