"""Which moves a model went through: remembered on it, so that a checkpoint records them without being told.

The record is an attribute of the module that was rearranged. It goes along with deepcopy and pickle, and is no part of
the state_dict.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, out_channels, weighted_layers
from onexn_plugins.rearrangement.apply import Move, apply_moves
from onexn_plugins.rearrangement.norms import row_order
from onexn_plugins.rearrangement.spaces import Member, Space

_RECORD = "_onexn_moves"


def applied_moves(model: nn.Module) -> list[Move]:
    """Every move the model went through, in order and by its own tensor names, whichever submodule was rearranged."""
    return [_prefixed(move, f"{name}." if name else "") for name, module in model.named_modules()
            for move in vars(module).get(_RECORD, ())]


def remember(model: nn.Module, moves: Iterable[Move]) -> None:
    """The model went through these moves, and no others."""
    moves = [move for move in moves if not move.is_identity]
    for module in model.modules():
        vars(module).pop(_RECORD, None)
    if moves:
        vars(model)[_RECORD] = moves


def take_back(model: nn.Module, moves: Sequence[Move]) -> None:
    """Undo the last moves that the model went through."""
    apply_moves(model, [move.inverse() for move in reversed(moves)])
    remember(model, applied_moves(model)[: -sum(not move.is_identity for move in moves) or None])


def applied_permutations(model: nn.Module) -> dict[str, Tensor]:
    """Layer -> int64 [out_channels]; output channel i is what channel permutation[i] was before any move."""
    return permutations_of(applied_moves(model), weighted_layers(model))


def permutations_of(moves: Iterable[Move], layers: Mapping[str, PrunableLayer]) -> dict[str, Tensor]:
    """The same for these moves and layers; layers that did not move are left out."""
    permutations: dict[str, Tensor] = {}
    for move in moves:
        for name, rows in move.space.producers(layers).items() if not move.is_identity else ():
            order = row_order(rows, move.permutation, out_channels(layers[name]))
            permutations[name] = permutations[name][order] if name in permutations else order
    return permutations


def same_moves(one: Sequence[Move], other: Sequence[Move]) -> bool:
    """Do these moves do the same, move by move?"""
    def plain(moves: Sequence[Move]) -> list[Any]:
        return [[move.permutation.tolist(), [[*_about(member), member.positions.tolist()]
                                             for member in move.space.members]] for move in moves]

    return plain(one) == plain(other)


def moves_of(tensors: Container[str], moves: Iterable[Move]) -> list[Move]:
    """The moves as far as they concern tensors of these names."""
    return [Move(Space(tuple(member for member in move.space.members if member.name in tensors), move.space.classes),
                 move.permutation) for move in moves]


def moves_to_plain(moves: Iterable[Move]) -> list[Any]:
    """Moves as lists, strings, numbers and int32 tensors."""
    return [{"permutation": move.permutation.int(),
             "members": [{"about": _about(member), "positions": member.positions.int()}
                         for member in move.space.members]} for move in moves]


def moves_from_plain(plain: Iterable[Mapping[str, Any]]) -> list[Move]:
    """What `moves_to_plain` was given, without the classes of the spaces.

    Raises:
        OneXNError: a permutation is none.
    """
    moves = []
    for entry in plain:
        permutation = entry["permutation"].long()
        if not torch.equal(permutation.sort().values, torch.arange(permutation.numel())):
            raise OneXNError("permutations", "one of them lists a channel twice or not at all", "Save it again")
        members = [Member(name, dim, each["positions"].long(), groups)
                   for each in entry["members"] for name, dim, groups in [each["about"]]]
        moves.append(Move(Space.of(members, len(permutation)), permutation))
    return moves


def _about(member: Member) -> list[Any]:
    return [member.name, member.dim, member.groups]


def _prefixed(move: Move, prefix: str) -> Move:
    members = tuple(dataclasses.replace(member, name=prefix + member.name) for member in move.space.members)
    return Move(Space(members, move.space.classes), move.permutation)
