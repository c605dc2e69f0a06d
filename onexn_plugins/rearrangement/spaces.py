"""Channel spaces: which slices of which tensors must move together.

A *channel* is one feature map: the rows of the layers that produce it, its entries in the norms it passes, the
columns of the layers that read it. A *space* is a set of channels with everything that carries them. Moving all
of it by one permutation leaves the network's function as it was.

A space is plain data. It comes from our own tracer (`tracing.find_spaces`), or from whoever knows better.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, out_dim
from onexn_plugins.masking import dense_weight


@dataclass(frozen=True, eq=False)
class Member:
    """One dimension of one parameter or buffer that carries the channels of a space.

    Attributes:
        name: qualified name, as in model.named_parameters() or model.named_buffers(), for example "conv.weight".
        dim: the dimension.
        positions: int64 [channels, copies], where along `dim` each channel lies. Every channel has equally many
            copies: 1 as a rule, 49 where a 7×7 map is flattened before a Linear layer.
        groups: for dimension 1 of a grouped convolution's weight, [out, in / groups, ...] or, transposed,
            [in, out / groups, ...], its conv groups: positions then number the channels of all groups, and a channel
            stays in its group. Else 1.
    """

    name: str
    dim: int
    positions: Tensor
    groups: int = 1


@dataclass(frozen=True, eq=False)
class Space:
    """Channels that move together.

    Attributes:
        members: everything that carries them.
        classes: int64 [channels]; two channels may trade places if they have the same class. All zero where any
            two may; grouped convolutions confine a channel to its group.
    """

    members: tuple[Member, ...]
    classes: Tensor

    @property
    def channels(self) -> int:
        return len(self.classes)

    @property
    def is_movable(self) -> bool:
        """May any two channels trade places?"""
        return len(self.classes.unique()) < self.channels

    @classmethod
    def of(cls, members: Iterable[Member], channels: int) -> Space:
        """A space in which any two channels may trade places."""
        return cls(tuple(members), torch.zeros(channels, dtype=torch.int64))

    def producers(self, layers: Mapping[str, PrunableLayer]) -> dict[str, Tensor]:
        """Those of `layers` whose output channels belong to the space: name -> rows, int64 [channels, copies].

        A member goes by one name; layers tied to its weight are found by the weight itself.
        """
        weights = {name: id(dense_weight(layer)) for name, layer in layers.items()}
        own = {f"{name}.weight": weight for name, weight in weights.items()}
        rows = {(own[member.name], member.dim): member.positions for member in self.members if member.name in own}
        places = {name: (weights[name], out_dim(layer)) for name, layer in layers.items()}
        return {name: rows[place] for name, place in places.items() if place in rows}


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Every parameter and buffer by every one of its names."""
    return {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers(remove_duplicate=False))}


def dim_size(tensor: Tensor, member: Member) -> int:
    """How many positions the member's dimension has, all conv groups together."""
    return tensor.shape[member.dim] * member.groups


def check_spaces(model: nn.Module, spaces: Sequence[Space]) -> None:
    """Raise OneXNError unless every member exists and no position is carried twice."""
    check_members(named_tensors(model), spaces)


def check_members(tensors: Mapping[str, Tensor], spaces: Sequence[Space]) -> None:
    """The same for tensors by the names that the members have."""
    taken: dict[tuple[int, int], Tensor] = {}
    for space in spaces:
        for member in space.members:
            tensor = _tensor_of(member, tensors)
            positions = member.positions
            if positions.dim() != 2 or len(positions) != space.channels or positions.dtype != torch.int64:
                raise _invalid(member, f"has positions of shape {tuple(positions.shape)} for {space.channels} channels")
            size = dim_size(tensor, member)
            if positions.numel() and not 0 <= int(positions.min()) <= int(positions.max()) < size:
                raise _invalid(member, f"has positions outside 0..{size - 1}")
            used = taken.setdefault((id(tensor), member.dim), torch.zeros(size, dtype=torch.int64))
            if len(used) != size:
                raise _invalid(member, "is listed with two different numbers of groups")
            used.index_add_(0, positions.flatten(), torch.ones(positions.numel(), dtype=torch.int64))
            if int(used.max(dim=0).values if size else 0) > 1:
                raise _invalid(member, "carries two channels at one position")


def _tensor_of(member: Member, tensors: Mapping[str, Tensor]) -> Tensor:
    tensor = tensors.get(member.name)
    if tensor is None:
        raise _invalid(member, "is no parameter or buffer of the model")
    if not 0 <= member.dim < tensor.dim():
        raise _invalid(member, f"has no dimension {member.dim}")
    if member.groups > 1 and (member.dim != 1 or tensor.shape[0] % member.groups):
        raise _invalid(member, f"cannot be the channels of {member.groups} conv groups")
    return tensor


def _invalid(member: Member, reason: str) -> OneXNError:
    return OneXNError(member.name, f"dimension {member.dim} {reason}", "Correct the space, or let rearrange find it")
