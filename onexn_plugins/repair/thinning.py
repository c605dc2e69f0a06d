"""Whole hidden channels taken out of the copy, before any blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import call_model, tensors_in
from onexn_plugins.measurement import measure
from onexn_plugins.rearrangement import apply_moves, find_spaces
from onexn_plugins.rearrangement.proof import clean_copy, relative_difference
from onexn_plugins.repair.budget import GRID, choose
from onexn_plugins.repair.channels import (
    Hidden,
    as_one_row,
    channel_prices,
    cut,
    hidden_spaces,
    kept_channels,
    to_front,
)
from onexn_plugins.repair.plan import Budget, losses
from onexn_plugins.repair.sequential import correct_layers
from onexn_plugins.repair.surroundings import Surroundings, surroundings
from onexn_plugins.repair.survey import survey
from onexn_plugins.repair.together import shares_of_channels
from onexn_plugins.repair.work import Work

AUTO = "auto"  # as many channels as pay, planned with the blocks
SAME = 1e-3  # change of the outputs, in their scale, when channels that nothing reads are taken out


def remove_channels(work: Work, wanted: float | str, ratio: Any) -> Any:
    """Take whole hidden channels out: until this share of the layers' multiply-adds is gone, or as many as pay (AUTO).

    Returns:
        The ratio of blocks that is left to be removed.
    """
    if not wanted:
        return ratio
    started, macs = time.monotonic(), _macs(work)
    total = sum(macs[name] for name in work.names)
    hidden = hidden_spaces(work.student, list(find_spaces(clean_copy(work.student), work.example).spaces),
                           work.layers)
    if not hidden and wanted == AUTO:
        work.result.notes.append("no channels are removed: none are made by one layer and read by one")
        return ratio
    if not hidden:
        raise OneXNError("channels", "the model has no hidden channels that one layer makes and one reads",
                         "Leave out channels, and prune blocks alone")
    if isinstance(ratio, Budget):
        ratio = ratio.against(work.student, work.layers, work.example, work.block_size)
    if not work.gathered:
        work.weigh()
    around = surroundings(work.student, work.example, {name: each.weight for name, each in work.layers.items()})
    hidden = {name: each for name, each in hidden.items() if name in around and each.maker in around}
    ratios, scores = _planned(work, hidden, around, macs, ratio) if wanted == AUTO else _shared(
        work, hidden, around, macs, float(wanted) * total)
    kept = {name: kept_channels(scores[name], share, work.block_size) for name, share in ratios.items()}
    kept = {name: each for name, each in kept.items() if len(each) < len(scores[name])}
    if not kept:
        work.result.notes.append("no channels are removed: blocks lose less")
        return ratio
    work.result.channels = {hidden[name].maker: 1 - len(kept[name]) / len(scores[name]) for name in kept}
    _take_out(work, {name: hidden[name] for name in kept}, kept, around)
    work.judge("channels removed", started)
    if isinstance(ratio, Budget):
        return replace(ratio, table=None)  # which is of the network with all its channels
    left = _macs(work)
    gone = 1 - sum(left[name] for name in work.names) / total
    return max(0.0, 1 - (1 - ratio) / (1 - gone)) if isinstance(ratio, float) else ratio


def _macs(work: Work) -> dict[str, int]:
    return {layer.name: layer.dense_macs or 0
            for layer in measure(work.student, work.block_size, work.example).layers}


def _planned(work: Work, hidden: Mapping[str, Hidden], around: Mapping[str, Surroundings], macs: Mapping[str, int],
             ratio: Any) -> tuple[dict[str, float], dict[str, Tensor]]:
    """(reader -> share of its hidden channels that goes, reader -> their scores), planned with the blocks."""
    found = survey(work.student, work.images, work.layers, around, work.patterns, context=work.context,
                   progress=work.report, importance=work.importance, columns=hidden)
    passing = {name: 0.0 for each in hidden.values() for name in each.passing}
    if isinstance(ratio, Budget):
        prices, fixed, amount, unit = ratio.priced(found, work.student, work.layers, work.example, work.block_size)
        if "multiply-adds" in unit:  # in other units what lies between is not known by itself
            passing = {name: float(macs[name]) for name in passing}
        budget = amount - fixed + sum(passing.values())
    else:
        prices = {name: macs[name] * (1 - GRID) for name in found.eliminations}
        budget = (1 - ratio) * sum(macs[name] for name in found.eliminations)
    shares = shares_of_channels(hidden, found.eliminations, found.columns, found.harm, prices, passing, budget)
    return shares, {name: each.scores[0] for name, each in found.columns.items()}


def _shared(work: Work, hidden: Mapping[str, Hidden], around: Mapping[str, Surroundings], macs: Mapping[str, int],
            amount: float) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The same for so many multiply-adds that go with channels."""
    readers = {name: work.layers[name] for name in hidden}
    found = survey(work.student, work.images, readers, {name: each for name, each in around.items() if name in hidden},
                   {name: as_one_row(each.weight) for name, each in readers.items()}, context=work.context,
                   progress=work.report, importance=work.importance)
    prices = channel_prices(hidden, macs)
    budget = sum(float(each[0]) for each in prices.values()) - amount
    ratios = choose(losses(found), prices, budget, " multiply-adds of hidden channels")
    return ratios, {name: each.scores[0] for name, each in found.eliminations.items()}


def _take_out(work: Work, hidden: Mapping[str, Hidden], kept: Mapping[str, Tensor],
              around: Mapping[str, Surroundings]) -> None:
    """Correct the readers for what they lose, and make the tensors smaller."""
    readers = {name: work.layers[name] for name in hidden}
    patterns = {name: as_one_row(each.weight) for name, each in readers.items()}
    keep = {name: torch.zeros(patterns[name].shape, dtype=torch.bool).index_fill_(1, kept[name], True)
            for name in hidden}
    correct_layers(work.dense, work.student, work.images, readers, keep,
                   {name: each for name, each in around.items() if name in hidden}, patterns, context=work.context,
                   progress=work.report)
    for name, each in hidden.items():
        move = to_front(each, kept[name])
        apply_moves(work.student, [move])
        apply_moves(work.dense, [move])
    _cut(work, hidden, kept)
    work.gathered = False


def _cut(work: Work, hidden: Mapping[str, Hidden], kept: Mapping[str, Tensor]) -> None:
    """Take out the channels behind the kept ones, whose readers hold zeros there."""
    with torch.no_grad():
        before = tensors_in(call_model(work.student, work.example))
    for name, each in hidden.items():
        cut(work.student, each, len(kept[name]))
    with torch.no_grad():
        error = relative_difference(before, tensors_in(call_model(work.student, work.example)))
    if not error < SAME:
        raise OneXNError("channels", f"taking them out changes the outputs by {error:.1e} of their scale",
                         "Leave out channels, and prune blocks alone")
