"""Blocks whose masks change while the network trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer
from onexn_plugins.masking import BlockMask, dense_filters, masks
from onexn_plugins.pruning import keep_blocks
from onexn_plugins.scores import BlockScore, Sources, make_score
from onexn_plugins.training.methods import Blocks

# Scores that look at the weights alone: all that is known in the middle of a run.
OF_WEIGHTS = ("l1", "angular")


class ChangingBlocks(Blocks):
    """`Blocks` that begin with all of them; what follows decides when which go.

    Args:
        until: share of all steps after which masks stay as they are.
        options: of `Blocks`; the score has to be one of OF_WEIGHTS.
    """

    def __init__(self, *, until: float, **options: Any) -> None:
        super().__init__(**options)
        if not 0 < until <= 1:
            raise OneXNError("until", f"must be above 0 and at most 1, got {until!r}", "It is a share of the steps")
        if self.score not in OF_WEIGHTS:
            raise OneXNError("score", f"{type(self).__name__} ranks weights while they are trained, not "
                             f"{self.score!r}", f"Use {' or '.join(OF_WEIGHTS)}")
        self.until = until
        self._layers: dict[str, tuple[PrunableLayer, BlockMask]] = {}
        self._score: BlockScore = make_score(self.score, Sources())

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        super().prepare(model, example)
        modules = dict(model.named_modules())
        self._layers = {name: (modules[name], mask) for name, mask in masks(model).items()}  # type: ignore[misc]
        for _, mask in self._layers.values():
            mask.update(torch.ones_like(mask.keep))
        return model

    def last_change(self, steps: int) -> int:
        """The step before which masks change for the last time; not beyond the last of `steps`, where none would."""
        return min(round(self.until * steps), steps - 1)

    @torch.no_grad()
    def choose(self, ratio: float, adjust: Callable[[Tensor, BlockMask], Tensor] = lambda ranked, mask: ranked) -> None:
        """Mask to this ratio by the weights as they are now, pruned ones included, ranked as `adjust` sees them."""
        ranked = {name: adjust(self._score(dense_filters(layer).detach(), mask.pattern, name), mask)
                  for name, (layer, mask) in self._layers.items()}
        for name, keep in keep_blocks(ranked, self.targets(ranked, ratio)).items():
            self._layers[name][1].update(keep)
