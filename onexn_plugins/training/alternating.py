"""Blocks that are pruned and set free in turns: AC/DC (Peste et al., NeurIPS 2021)."""

from __future__ import annotations

from typing import Any

import torch

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import dense_weight
from onexn_plugins.training.changing import ChangingBlocks


class AlternatingBlocks(ChangingBlocks):
    """`Blocks` that go and come back: dense and sparse phases of equal length in turns, the last one sparse.

    A sparse phase begins with the blocks that are the smallest then. In the dense phase after it they start from zero,
    so what they had become is forgotten and what they learn anew decides whether they stay.

    Args:
        until: share of all steps after which the last dense phase is over.
        dense_phases: how many there are. The first one is where the run begins.
        options: of `Blocks`.
    """

    def __init__(self, *, until: float = 0.5, dense_phases: int = 2, **options: Any) -> None:
        super().__init__(until=until, **options)
        if isinstance(dense_phases, bool) or not isinstance(dense_phases, int) or dense_phases < 1:
            raise OneXNError("dense_phases", f"must be an integer from 1 on, got {dense_phases!r}", "Two or three do")
        self.dense_phases = dense_phases

    def before_step(self, step: int, steps: int) -> None:
        phase = self.phase(step, steps)
        if step and phase == self.phase(step - 1, steps):
            return
        if phase % 2:
            self.choose(self.pruning_ratio)
        else:
            self._set_free()

    def phase(self, step: int, steps: int) -> int:
        """Of this step: 0 and other even ones are dense, odd ones sparse; the last one is 2 × dense_phases - 1."""
        last, final = self.last_change(steps), 2 * self.dense_phases - 1
        return final if step >= last else step * final // last

    @torch.no_grad()
    def _set_free(self) -> None:
        for layer, mask in self._layers.values():
            dense_weight(layer).mul_(mask.mask)
            mask.update(torch.ones_like(mask.keep))
