"""What a pruner did, as plain data that torch.save and JSON take: torch-pruning's pruning_history, for masks.

torch-pruning's own entries name channels to remove. Ours are dicts, which its replay cannot mistake for those.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.checkpoint import fitting_moves
from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.layers import check_layer_name, weighted_layers
from onexn_plugins.masking import attach, check_attachable, masks
from onexn_plugins.rearrangement.applied import moves_from_plain, moves_to_plain, remember, same_moves
from onexn_plugins.rearrangement.apply import Move, apply_moves
from onexn_plugins.rearrangement.spaces import check_spaces

_MASK = {"layer", "block_size", "blocks", "pruned", "straight_through"}


def history_of(model: nn.Module) -> list[dict[str, Any]]:
    """The rearrangements the model went through, then its masks, each by the numbers of its pruned blocks."""
    moves = fitting_moves(model)
    entries: list[dict[str, Any]] = [{"moves": moves_to_plain(moves)}] if moves else []
    for name, mask in masks(model).items():
        pruned = (~mask.keep).flatten().nonzero().flatten().tolist()
        entries.append({"layer": name, "block_size": mask.pattern.block_size, "blocks": list(mask.keep.shape),
                        "pruned": pruned, "straight_through": mask.straight_through})
    return entries


def replay(model: nn.Module, history: Any) -> None:
    """Rearrange and mask the model as `history_of` another one says.

    Raises:
        OneXNError: it is no such history, or does not fit the model, which is unchanged then.
    """
    if not isinstance(history, Sequence) or not all(isinstance(entry, Mapping) for entry in history):
        raise OneXNError("pruning_history", "removes channels, and masks must come after that",
                         "Load it with the structural pruner first, then prune blocks")
    try:
        moves = [move for entry in history if "moves" in entry for move in moves_from_plain(entry["moves"])]
        saved = [_read_mask(model, entry) for entry in history if "moves" not in entry]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise OneXNError("pruning_history", f"cannot be read: {first_line(error)}",
                         "Pass what pruner.pruning_history() returned") from error
    _rearrange(model, moves)
    layers = weighted_layers(model)
    for name, keep, block_size, straight_through in saved:
        attach(layers[name], keep, block_size, name, straight_through=straight_through)


def _read_mask(model: nn.Module, entry: Mapping[str, Any]) -> tuple[str, Tensor, int, bool]:
    """A mask that is known to fit its layer."""
    if set(entry) != _MASK:
        raise ValueError(f"an entry has the keys {sorted(map(str, entry))}")
    layers, name = weighted_layers(model), entry["layer"]
    pattern = check_attachable(layers[check_layer_name(name, layers)], entry["block_size"], name)
    pruned = torch.tensor(entry["pruned"], dtype=torch.int64)
    outside = bool(((pruned < 0) | (pruned >= pattern.num_blocks)).any())
    if list(entry["blocks"]) != list(pattern.shape) or outside:
        raise OneXNError(name, f"its blocks are {list(pattern.shape)}, not {entry['blocks']} as in the history",
                         "Build the model that the history is of")
    keep = torch.ones(pattern.num_blocks, dtype=torch.bool)
    keep[pruned] = False
    return name, keep.reshape(pattern.shape), entry["block_size"], bool(entry["straight_through"])


def _rearrange(model: nn.Module, moves: list[Move]) -> None:
    before = fitting_moves(model)
    if not moves or same_moves(before, moves):
        return
    if before or masks(model):
        raise OneXNError("pruning_history", "rearranges channels, and those of the model have moved or carry masks",
                         "Load it into a model as it was before pruning")
    check_spaces(model, [move.space for move in moves])
    apply_moves(model, moves)
    remember(model, moves)
