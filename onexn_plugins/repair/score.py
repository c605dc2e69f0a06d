"""Block scores by exact elimination, for the toolkits' pruners."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import check_layer_name, out_first, pattern_of, prunable_layers, weighted_layers
from onexn_plugins.masking import fold
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.rearrangement.proof import clean_copy
from onexn_plugins.repair.elimination import eliminate
from onexn_plugins.repair.images import read_images
from onexn_plugins.repair.importance import channel_importance
from onexn_plugins.repair.offsets import has_offset
from onexn_plugins.repair.options import Context
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import layer_moments


class EliminationScore:
    """(weight, pattern, layer) -> scores [block_rows, in / groups] of the layer in the model as it is at that moment.

    One pass over the images serves every layer once: the next step of a gradual pruner, which asks for them again,
    makes another.

    Args:
        model: that is pruned.
        images: as `repair` takes them.

    Raises:
        OneXNError: there is no model or there are no images, or the model does not take them.
    """

    def __init__(self, model: nn.Module | None, images: Any) -> None:
        if model is None:
            raise OneXNError("score obs", "looks at what a model's layers read, and there is no model",
                             "Use it inside a pruner")
        if images is None:
            raise OneXNError("score obs", "needs images to see what the layers read",
                             "Give a few hundred unlabelled ones: images=folder, a tensor or a DataLoader")
        self._model, self._images = model, read_images(images, model)
        self._found: dict[str, tuple[BlockPattern, Tensor]] = {}

    def __call__(self, weight: Tensor, pattern: BlockPattern, layer: str) -> Tensor:
        if layer not in self._found or self._found[layer][0] != pattern:
            self._found = self._eliminated(pattern.block_size, layer)
        if layer not in self._found:
            raise OneXNError(layer, "forward does not compute it, so nothing is known of what it reads",
                             "Ignore this layer, or score it with l1")
        return self._found.pop(layer)[1].to(weight.device)

    @torch.no_grad()
    def _eliminated(self, block_size: int, asked: str) -> dict[str, tuple[BlockPattern, Tensor]]:
        """Scores of the layers that are pruned by default, and of the one asked for."""
        copy = fold(clean_copy(self._model)).eval()
        layers = weighted_layers(copy)
        check_layer_name(asked, layers)
        names: Iterable[str] = {asked} if asked not in prunable_layers(copy) else prunable_layers(copy)
        chosen = {name: layers[name] for name in names}
        around = surroundings(copy, self._images.batches[0], {name: each.weight for name, each in chosen.items()})
        importance, found = channel_importance(copy, self._images, chosen), {}
        for name, moments in layer_moments(copy, self._images, chosen, around, Context(copy)):
            own = out_first(chosen[name], chosen[name].weight.detach())
            pattern = pattern_of(chosen[name], block_size, name)
            found[name] = pattern, eliminate(own, pattern, moments.statistics(
                has_offset(chosen[name], around[name])).inputs, importance=importance.get(name)).scores
        return found
