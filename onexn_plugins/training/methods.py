"""What is done to a network beside plain training."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import prunable_layers
from onexn_plugins.masking import attach, check_attachable, dense_filters
from onexn_plugins.plain_modules import check_plain
from onexn_plugins.pruning import Target, check, keep_blocks, rearrange
from onexn_plugins.scores import Sources, check_score, make_score, score_blocks
from onexn_plugins.selection import SCOPES, check_ratio


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

    def settings(self) -> dict[str, Any]:
        """Which method this is: its name and plain attributes. A run goes on with equal ones alone."""
        plain = {name: value for name, value in vars(self).items()
                 if not name.startswith("_") and (value is None or isinstance(value, (bool, int, float, str)))}
        return {"method": type(self).__name__, **plain}

    def state_dict(self) -> dict[str, Any]:
        """What `prepare` does not make again."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""


class Blocks(Method):
    """1×N blocks pruned at once, before the first step; training keeps them at zero.

    Args:
        block_size: N.
        pruning_ratio: fraction of blocks to remove, in each layer, or in all together with scope="global".
        score: a name of `onexn_plugins.scores.SCORES`, such as "l1" or "random".
        scope: "layer"; "row", where every block row keeps equally many (SUBP, NeurIPS 2023); or "global".
        rearrange: "none", "sort" or "swap": move channels first.
        full: Linear layers too.
        seed: of random scores.
    """

    def __init__(self, *, block_size: int = 4, pruning_ratio: float = 0.5, score: str = "l1", scope: str = "layer",
                 rearrange: str = "none", full: bool = False, seed: int = 0) -> None:
        check_score(score)
        for name, value, choices in (("scope", scope, SCOPES), ("rearrange", rearrange, ("none", "sort", "swap"))):
            if value not in choices:
                raise OneXNError(name, f"there is no {value!r}", f"Choose {', '.join(choices)}")
        self.block_size, self.pruning_ratio = block_size, check_ratio(pruning_ratio)
        self.score, self.scope, self.rearrange, self.full, self.seed = score, scope, rearrange, full, seed

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        check_plain(model)
        layers = prunable_layers(model, full=self.full)
        targets = self.targets(layers, self.pruning_ratio)
        score = make_score(self.score, Sources(model, seed=self.seed))
        check(layers, targets)
        if self.rearrange != "none" and self.pruning_ratio:
            rearrange(model, example, layers, targets, self.rearrange)
        patterns = {name: check_attachable(layer, self.block_size, name) for name, layer in layers.items()}
        keep = keep_blocks({name: score_blocks(score, dense_filters(layer), patterns[name], name)
                            for name, layer in layers.items()}, targets)
        for name, layer in layers.items():
            attach(layer, keep[name], self.block_size, name)
        return model

    def targets(self, layers: Iterable[str], ratio: float) -> dict[str, Target]:
        """What is asked of each layer at this ratio."""
        return {name: Target(self.block_size, ratio, by_row=self.scope == "row",
                             group=0 if self.scope == "global" else None) for name in layers}
