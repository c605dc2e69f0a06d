"""What is done to a network beside plain training."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from onexn_plugins import scores
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import check_layers, prunable_layers
from onexn_plugins.masking import attach, check_attachable
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.rearrangement import rearrange
from onexn_plugins.selection import check_ratio, keep_highest


class Method:
    """Plain training; what others build on.

    `prepare` is also called when a run goes on, with the same weights as at its start: it must do the same again.
    """

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        """The model to train, from one that is ready to use; before the optimizer is made."""
        return model

    def before_step(self, step: int, steps: int) -> None:
        """Before the forward pass of step `step` of `steps`, from 0."""

    def loss(self, images: Tensor, outputs: Tensor, loss: Tensor) -> Tensor:
        """What is minimised, from the labels' cross entropy."""
        return loss

    def before_update(self) -> None:
        """When gradients are there, before the optimizer uses them."""

    def state_dict(self) -> dict[str, Any]:
        """What `prepare` does not make again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class Blocks(Method):
    """1×N blocks pruned at once, before the first step; training keeps them at zero.

    Args:
        block_size: N.
        pruning_ratio: fraction of each layer's blocks.
        score: "l1" or "random".
        rearrange: "none", "sort" or "swap": move channels first.
        full: Linear layers too.
        seed: of the random score.
    """

    def __init__(self, *, block_size: int = 4, pruning_ratio: float = 0.5, score: str = "l1", rearrange: str = "none",
                 full: bool = False, seed: int = 0) -> None:
        if score not in scores.SCORES:
            raise OneXNError("score", f"there is no {score!r}", f"Choose {' or '.join(scores.SCORES)}")
        if rearrange not in ("none", "sort", "swap"):
            raise OneXNError("rearrange", f"there is no {rearrange!r}", "Choose none, sort or swap")
        self.block_size, self.pruning_ratio = block_size, check_ratio(pruning_ratio)
        self.score, self.rearrange, self.full, self.seed = score, rearrange, full, seed

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        if self.rearrange != "none" and self.pruning_ratio:
            rearrange(model, example, block_size=self.block_size, pruning_ratio=self.pruning_ratio,
                      method=self.rearrange, full=self.full)
        layers = prunable_layers(model, full=self.full)
        check_layers(layers, self.block_size)
        for name, layer in layers.items():
            pattern = check_attachable(layer, self.block_size, name)
            keep = keep_highest(self._scores(name, layer.weight, pattern), self.pruning_ratio)
            attach(layer, keep, self.block_size, name)
        return model

    def _scores(self, name: str, weight: Tensor, pattern: BlockPattern) -> Tensor:
        if self.score == "random":
            return scores.random(pattern, seed=self.seed, layer=name)
        scores.check_finite(weight, name)
        return scores.l1(weight, pattern)
