"""Blocks that go little by little while the network trains, and may come back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins import scores
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PrunableLayer
from onexn_plugins.masking import BlockMask, dense_filters, dense_weight, masks
from onexn_plugins.pruning import keep_blocks
from onexn_plugins.selection import only_shrinking
from onexn_plugins.training.methods import Blocks

# How often masks are made anew, at most, while the ratio grows.
UPDATES = 100


class GradualBlocks(Blocks):
    """`Blocks` whose ratio grows from 0 along a cubic (Zhu and Gupta 2017): fast at first, slowly near its end.

    Args:
        until: share of all steps after which the ratio is reached and masks stay as they are.
        straight_through: gradients reach pruned weights too, and every update ranks all blocks: pruned ones come back
            when others have become smaller (Dynamic Model Pruning, Lin et al. 2020). Else pruned blocks stay pruned.
        decay: with straight_through, pulls pruned weights towards zero so (SR-STE, Zhou et al. 2021; 2e-4 there).
        options: of `Blocks`; the score has to be "l1".
    """

    def __init__(self, *, until: float = 0.5, straight_through: bool = False, decay: float = 0.0,
                 **options: Any) -> None:
        super().__init__(**options)
        if not 0 < until <= 1:
            raise OneXNError("until", f"must be above 0 and at most 1, got {until!r}", "It is a share of the steps")
        if decay < 0 or (decay and not straight_through):
            raise OneXNError("decay", f"is {decay!r}" + ("" if decay < 0 else " without straight-through masks"),
                             "Give at least 0, and only with straight_through: other masks let no gradient pass")
        if self.score != "l1":
            raise OneXNError("score", f"gradual pruning ranks weights, not {self.score!r}", "Use l1")
        self.until, self.straight_through, self.decay = until, straight_through, decay
        self._layers: dict[str, tuple[PrunableLayer, BlockMask]] = {}

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        super().prepare(model, example)
        modules = dict(model.named_modules())
        self._layers = {name: (modules[name], mask) for name, mask in masks(model).items()}  # type: ignore[misc]
        for _, mask in self._layers.values():
            mask.update(torch.ones_like(mask.keep))
            mask.straight_through = self.straight_through
        return model

    def before_step(self, step: int, steps: int) -> None:
        last = min(round(self.until * steps), steps - 1)  # a ratio reached after the last step would be none
        end = max(1, last)
        interval = max(1, end // UPDATES)
        if step > end or (step % interval and step != end):
            return
        ratio = self.pruning_ratio * (1 - (1 - step / end) ** 3) if step < last else self.pruning_ratio
        ranked = {name: scores.l1(dense_filters(layer).detach(), mask.pattern)
                  for name, (layer, mask) in self._layers.items()}
        if not self.straight_through:
            ranked = {name: only_shrinking(each, self._layers[name][1].keep) for name, each in ranked.items()}
        for name, keep in keep_blocks(ranked, self.targets(ranked, ratio)).items():
            self._layers[name][1].update(keep)

    def before_update(self) -> None:
        if not self.decay:
            return
        for layer, mask in self._layers.values():
            weight = dense_weight(layer)
            if weight.grad is not None:
                weight.grad.add_(torch.where(mask.mask, 0.0, weight.detach()), alpha=self.decay)
