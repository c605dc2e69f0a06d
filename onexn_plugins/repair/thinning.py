"""Whole hidden channels taken out of the copy, before any blocks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import call_model, tensors_in
from onexn_plugins.measurement import measure
from onexn_plugins.rearrangement import apply_moves, find_spaces
from onexn_plugins.rearrangement.proof import clean_copy, relative_difference
from onexn_plugins.repair.budget import choose
from onexn_plugins.repair.channels import (
    Hidden,
    as_one_row,
    channel_prices,
    cut,
    hidden_spaces,
    kept_channels,
    to_front,
)
from onexn_plugins.repair.plan import losses
from onexn_plugins.repair.sequential import correct_layers
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import survey
from onexn_plugins.repair.work import Work

SAME = 1e-3  # change of the outputs, in their scale, when channels that nothing reads are taken out


def remove_channels(work: Work, share: float, ratio: Any) -> Any:
    """Take whole hidden channels out until this share of the layers' multiply-adds is gone.

    Returns:
        The ratio of blocks that is left to be removed.
    """
    if not share:
        return ratio
    started = time.monotonic()
    macs = {layer.name: layer.dense_macs or 0
            for layer in measure(work.student, work.block_size, work.example).layers}
    total = sum(macs[name] for name in work.names)
    hidden = hidden_spaces(work.student, list(find_spaces(clean_copy(work.student), work.example).spaces),
                           work.layers)
    if not hidden:
        raise OneXNError("channels", "the model has no hidden channels that one layer makes and one reads",
                         "Leave out channels, and prune blocks alone")
    readers = {name: work.layers[name] for name in hidden}
    around = surroundings(work.student, work.example, {name: each.weight for name, each in readers.items()})
    patterns = {name: as_one_row(each.weight) for name, each in readers.items()}
    found = survey(work.student, work.images, readers, around, patterns, context=work.context, progress=work.report)
    prices = channel_prices(hidden, macs)
    budget = sum(float(each[0]) for each in prices.values()) - share * total
    ratios = choose(losses(found), prices, budget, " multiply-adds of hidden channels")
    kept = {name: kept_channels(found.eliminations[name].scores[0], ratios[name], work.block_size)
            for name in hidden}
    keep = {name: torch.zeros(patterns[name].shape, dtype=torch.bool).index_fill_(1, kept[name], True)
            for name in hidden}
    correct_layers(work.dense, work.student, work.images, readers, keep, around, patterns, context=work.context,
                   progress=work.report)
    for name, each in hidden.items():
        move = to_front(each, kept[name])
        apply_moves(work.student, [move])
        apply_moves(work.dense, [move])
    _cut(work, hidden, kept)
    work.judge("channels removed", started)
    left = {layer.name: layer.dense_macs or 0
            for layer in measure(work.student, work.block_size, work.example).layers}
    gone = 1 - sum(left[name] for name in work.names) / total
    return max(0.0, 1 - (1 - ratio) / (1 - gone)) if isinstance(ratio, float) else ratio


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
