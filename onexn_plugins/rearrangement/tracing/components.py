"""From facts to spaces: labels that move together are merged into channels, and channels used alike form a space."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from onexn_plugins.rearrangement.spaces import Member, Space
from onexn_plugins.rearrangement.tracing.facts import Facts

Carrier = tuple[str, int, int]  # tensor name, dim, conv groups of an input dimension
Use = tuple[int, ...]


@dataclass(frozen=True)
class Found:
    """What a trace found.

    Attributes:
        spaces: channels that move together.
        still: (tensor name, dim) -> why nothing along this dimension of the parameter or buffer moves.
        unseen: why the model may do something that was not seen, so that nothing may move; None if not.
        pinned: (tensor name, dim) -> reason at each position, None where other sources of spaces may move it.
        fixed: tensor name -> why nobody may move anything about it.
    """

    spaces: tuple[Space, ...]
    still: dict[tuple[str, int], str]
    unseen: str | None
    pinned: dict[tuple[str, int], list[str | None]]
    fixed: dict[str, str | None]

    def objection(self, space: Space) -> str | None:
        """Why a space from another source, such as a toolkit's graph, may not move; None where it may.

        The proof runs a model on a few inputs. What decides by values, or leaves torch, may do otherwise on the next
        one, so this check comes first, whoever proposed the space.
        """
        if self.unseen:
            return self.unseen
        for member in space.members:
            known = self.pinned.get((member.name, member.dim))
            if known is None and member.name not in self.fixed:
                return f"{member.name} was not seen to carry them"
            places = member.positions.flatten().tolist() if known else []
            if known and not all(0 <= place < len(known) for place in places):
                return f"{member.name} was seen to carry {len(known)} channels, and the space has others"
            at_positions = [known[place] for place in places] if known else []
            for reason in (self.fixed.get(member.name), *at_positions):
                if reason:
                    return reason
        return None


def spaces_from(facts: Facts) -> Found:
    """The spaces a trace's facts allow, and the reasons where they allow none."""
    if facts.unseen:
        still = {(name, dim): f"its channels stay: {facts.unseen}" for name, dim, _ in facts.carried}
        return Found((), still, facts.unseen, {}, {})
    channel_of = _merge(facts)
    carried = {carrier: channel_of[labels.long()] for carrier, labels in facts.carried.items()}
    frozen = _frozen_channels(facts, carried, channel_of)
    carriers_of = _uses(carried.values())
    cells_of = _uses_in_cells(facts, channel_of)
    alike: dict[tuple[Use, ...], list[int]] = defaultdict(list)
    for channel in carriers_of:
        if channel not in frozen:
            alike[tuple(carriers_of[channel])].append(channel)
    spaces = [_space(uses, sorted(channels), cells_of, carried) for uses, channels in alike.items()]
    spaces = [space for space in spaces if space.is_movable]
    return Found(tuple(spaces), _still(carried, frozen, spaces), None, _pinned(facts, carried, channel_of, frozen),
                 {name: reason if name in facts.pinned_names else None for name, reason in facts.fixed.items()})


def _merge(facts: Facts) -> Tensor:
    """Connected components of the unions: label -> the smallest label it moves with, int64 [count]."""
    root = torch.arange(facts.count)
    if not facts.unions:
        return root
    one, other = torch.cat(facts.unions, dim=1).long()
    while True:
        smaller = torch.minimum(root[one], root[other])
        merged = root.clone()
        for place in (one, other, root[one], root[other]):
            merged.scatter_reduce_(0, place, smaller, "amin")
        merged = merged[merged]
        if torch.equal(merged, root):
            return root
        root = merged


def _frozen_channels(facts: Facts, carried: dict[Carrier, Tensor], channel_of: Tensor) -> dict[int, str]:
    """channel -> why it stays."""
    frozen = {0: "they are constant"}
    for label, reason in facts.frozen.items():
        frozen.setdefault(int(channel_of[label]), reason)
    for (name, _, _), channels in carried.items():
        if name in facts.fixed:
            for channel in channels.unique().tolist():
                frozen.setdefault(channel, f"they are carried by {name}, and {facts.fixed[name]}")
    return frozen


def _pinned(facts: Facts, carried: dict[Carrier, Tensor], channel_of: Tensor,
            frozen: dict[int, str]) -> dict[tuple[str, int], list[str | None]]:
    """(tensor name, dim) -> why nobody may move what lies at each position."""
    pinned = set(frozen) if facts.lost_exposed else {0, *(int(channel_of[label]) for label in facts.pinned)}
    return {(name, dim): [frozen[channel] if channel in pinned else None for channel in channels.tolist()]
            for (name, dim, _), channels in carried.items()}


def _uses(vectors: Iterable[Tensor]) -> dict[int, list[Use]]:
    """channel -> (vector, how often it occurs there). Channels with equal lists are used alike."""
    uses: dict[int, list[Use]] = defaultdict(list)
    for number, channels in enumerate(vectors):
        values, counts = channels.unique(return_counts=True)
        for channel, count in zip(values.tolist(), counts.tolist(), strict=True):
            uses[channel].append((number, count))
    return uses


def _uses_in_cells(facts: Facts, channel_of: Tensor) -> dict[int, list[Use]]:
    """channel -> (context, cell, how often): channels with equal lists may trade places."""
    uses: dict[int, list[Use]] = defaultdict(list)
    for number, (labels, cells) in enumerate(facts.contexts):
        pairs, counts = torch.stack([channel_of[labels.long()], cells.long()]).unique(dim=1, return_counts=True)
        for channel, cell, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
            uses[channel].append((number, cell, count))
    return uses


def _space(uses: tuple[Use, ...], channels: list[int], cells_of: dict[int, list[Use]],
           carried: dict[Carrier, Tensor]) -> Space:
    carriers = list(carried.items())
    members = tuple(
        Member(name, dim, _positions(torch.tensor(channels), place), groups)
        for (name, dim, groups), place in (carriers[number] for number, _ in uses)
    )
    numbers: dict[tuple[Use, ...], int] = {}
    classes = [numbers.setdefault(tuple(cells_of.get(channel, ())), len(numbers)) for channel in channels]
    return Space(members, torch.tensor(classes))


def _positions(channels: Tensor, place: Tensor) -> Tensor:
    """Where each of the (ascending) channels occurs in `place`, ascending, int64 [channels, copies]."""
    found = torch.isin(place, channels).nonzero().flatten()
    order = place[found].argsort(stable=True)
    return found[order].reshape(len(channels), -1)


def _still(carried: dict[Carrier, Tensor], frozen: dict[int, str],
           spaces: list[Space]) -> dict[tuple[str, int], str]:
    moving = {(member.name, member.dim) for space in spaces for member in space.members}
    still = {}
    for (name, dim, _), channels in carried.items():
        if (name, dim) not in moving:
            reasons = Counter(frozen.get(channel, "no two of them are used alike") for channel in channels.tolist())
            still[name, dim] = f"its channels stay: {reasons.most_common(1)[0][0]}"
    return still
