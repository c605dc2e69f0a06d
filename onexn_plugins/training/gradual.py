"""Blocks that go little by little while the network trains, and may come back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import dense_weight
from onexn_plugins.selection import only_shrinking
from onexn_plugins.training.changing import ChangingBlocks

# How often masks are made anew, at most, while the ratio grows.
UPDATES = 100


class GradualBlocks(ChangingBlocks):
    """`Blocks` whose ratio grows from 0 along a cubic (Zhu and Gupta 2017): fast at first, slowly near its end.

    Args:
        until: share of all steps after which the ratio is reached and masks stay as they are.
        straight_through: gradients reach pruned weights too, and every update ranks all blocks: pruned ones come back
            when others have become smaller (Dynamic Model Pruning, Lin et al. 2020). Else pruned blocks stay pruned.
        decay: with straight_through, pulls pruned weights towards zero so (SR-STE, Zhou et al. 2021; 2e-4 there).
        options: of `Blocks`.
    """

    def __init__(self, *, until: float = 0.5, straight_through: bool = False, decay: float = 0.0,
                 **options: Any) -> None:
        super().__init__(until=until, **options)
        if decay < 0 or (decay and not straight_through):
            raise OneXNError("decay", f"is {decay!r}" + ("" if decay < 0 else " without straight-through masks"),
                             "Give at least 0, and only with straight_through: other masks let no gradient pass")
        self.straight_through, self.decay = straight_through, decay

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        super().prepare(model, example)
        for _, mask in self._layers.values():
            mask.straight_through = self.straight_through
        return model

    def before_step(self, step: int, steps: int) -> None:
        last = self.last_change(steps)
        end = max(1, last)
        interval = max(1, end // UPDATES)
        if step > end or (step % interval and step != end):
            return
        ratio = self.pruning_ratio * (1 - (1 - step / end) ** 3) if step < last else self.pruning_ratio
        if self.straight_through:
            self.choose(ratio)
        else:
            self.choose(ratio, lambda ranked, mask: only_shrinking(ranked, mask.keep))

    def before_update(self) -> None:
        if not self.decay:
            return
        for layer, mask in self._layers.values():
            weight = dense_weight(layer)
            if weight.grad is not None:
                weight.grad.add_(torch.where(mask.mask, 0.0, weight.detach()), alpha=self.decay)
