"""What every adapter does between its toolkit's words and its way of holding masks; it knows no toolkit.

    select → check → rearrange → score (scores.py) → keep → attach (masking.py)

An adapter says which layers were chosen, by a rule or by name, and gives each a `Target`. Everything that decides a
mask stands here, so the same call gives the same masks, and the same rearranged model, in every toolkit.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Container, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer, check_layers, pattern_of, why_dense
from onexn_plugins.masking import check_attachable, dense_filters, dense_weight
from onexn_plugins.pattern import check_block_size
from onexn_plugins.rearrangement.run import Rearrangement, rearrange_layers
from onexn_plugins.scores import check_finite, l1
from onexn_plugins.selection import keep_above, keep_highest, keep_highest_globally, keep_highest_per_row

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """What is asked of one layer.

    Attributes:
        block_size: N.
        ratio: fraction of blocks to prune, in the layer, or in its whole group.
        threshold: prune the blocks that score below it, in place of a ratio.
        min_ratio, max_ratio: bounds of the layer's own ratio.
        by_row: every block row keeps equally many blocks.
        group: layers of one group compete for its budget of blocks; None for a layer alone.
    """

    block_size: int
    ratio: float = 0.0
    threshold: float | None = None
    min_ratio: float = 0.0
    max_ratio: float = 1.0
    by_row: bool = False
    group: Hashable | None = None


def select(chosen: Mapping[str, nn.Module], named: Container[str], fix: str) -> dict[str, PrunableLayer]:
    """The chosen layers that 1×N applies to, in their order.

    Where a rule chose a layer that has nothing to gain (`why_dense`), it stays dense and the log notes it.

    Args:
        chosen: layers with a weight that has blocks (`weighted_layers`).
        named: those that the user asked for one by one.
        fix: how the user takes a named layer back.

    Raises:
        OneXNError: a named layer has nothing to gain.
    """
    dense = {name: reason for name, module in chosen.items() if (reason := why_dense(module)) is not None}
    for name, reason in dense.items():
        if name in named:
            raise OneXNError(name or "model", reason, fix)
    for reason in dict.fromkeys(dense.values()):
        names = ", ".join(name or "model" for name in dense if dense[name] == reason)
        _log.warning("these layers stay dense, each %s: %s", reason, names)
    return {name: module for name, module in chosen.items() if name not in dense}  # type: ignore[misc]


def check(layers: Mapping[str, PrunableLayer], targets: Mapping[str, Target]) -> None:
    """Raise OneXNError unless every layer can carry a mask of its block size, and its weight can be ranked."""
    for name, target in targets.items():
        check_block_size(target.block_size, name or "model")
    check_layers(layers)
    for name, layer in layers.items():
        check_attachable(layer, targets[name].block_size, name or "model")
        check_finite(dense_weight(layer), name or "model")


def check_one_block_size(targets: Mapping[str, Target]) -> None:
    """Raise OneXNError where layers differ in block_size: channels are moved for one of them."""
    sizes = sorted({target.block_size for target in targets.values()})
    if len(sizes) > 1:
        raise OneXNError("rearrange", f"the layers mix block sizes {sizes}",
                         "Use one block_size, or call onexn_plugins.rearrange yourself first")


def rearrange(model: nn.Module, example_inputs: Any, layers: Mapping[str, PrunableLayer],
              targets: Mapping[str, Target], method: bool | str) -> Rearrangement:
    """Move channels for these layers alone, each for its own ratio; see `onexn_plugins.rearrange`.

    The channel spaces come from the package's own tracer, whatever the toolkit: one that comes from the toolkit's
    graph in one adapter and from elsewhere in another would be arranged in another order.

    The method is True or "swap" for the search, "sort" for the paper's way.

    Raises:
        OneXNError: as `onexn_plugins.rearrange`, or the layers differ in block_size.
    """
    check_one_block_size(targets)
    return rearrange_layers(
        model, example_inputs, dict(layers), block_size=next(iter(targets.values())).block_size,
        pruning_ratio={name: _expected_ratio(layer, targets[name]) for name, layer in layers.items()},
        method="swap" if method is True else str(method))


def keep_blocks(scores: Mapping[str, Tensor], targets: Mapping[str, Target], *,
                normalize: bool = True) -> dict[str, Tensor]:
    """Which blocks stay: bool of the scores' shape [block_rows, in / groups] for every layer.

    Args:
        scores: the lowest are pruned first.
        targets: what is asked of each of these layers.
        normalize: in groups divide scores by their layer's mean (`keep_highest_globally`).
    """
    keep: dict[str, Tensor] = {}
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for name, target in targets.items():
        if target.group is None:
            keep[name] = _keep_in_layer(scores[name], target)
        else:
            groups[target.group].append(name)
    for names in groups.values():
        keep |= keep_highest_globally(
            {name: scores[name] for name in names}, targets[names[0]].ratio,
            min_ratio={name: targets[name].min_ratio for name in names},
            max_ratio={name: targets[name].max_ratio for name in names}, normalize=normalize)
    return {name: keep[name] for name in targets}


def _keep_in_layer(scores: Tensor, target: Target) -> Tensor:
    if target.threshold is not None:
        return keep_above(scores, target.threshold, min_ratio=target.min_ratio, max_ratio=target.max_ratio)
    choose = keep_highest_per_row if target.by_row else keep_highest
    return choose(scores, target.ratio, min_ratio=target.min_ratio, max_ratio=target.max_ratio)


def _clamped(target: Target) -> float:
    return min(target.max_ratio, max(target.min_ratio, target.ratio))


def _expected_ratio(layer: PrunableLayer, target: Target) -> float:
    """The ratio to arrange for. For a threshold: of the blocks whose L1 norm is below it now."""
    if target.threshold is None:
        return _clamped(target)
    keep = _keep_in_layer(l1(dense_filters(layer), pattern_of(layer, target.block_size)), target)
    return 1 - int(keep.sum()) / keep.numel()
