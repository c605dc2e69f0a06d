"""The dense network that pruning started from, as the teacher of the pruned one (Hinton et al. 2015)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError
from onexn_plugins.training.methods import Method


class Distilled(Method):
    """Another method, whose network also learns from what the network it started from says.

    Args:
        method: what is done to the network.
        weight: share of the loss that is the divergence from the teacher; the rest is the labels' cross entropy.
        temperature: divides both networks' outputs, so that small ones count too.
    """

    def __init__(self, method: Method, *, weight: float = 0.5, temperature: float = 4.0) -> None:
        if not 0 < weight <= 1 or not temperature > 0:
            raise OneXNError("distillation", f"weight {weight!r} must be above 0 and at most 1, and temperature "
                             f"{temperature!r} positive", "Usual are 0.5 and 4")
        self.method, self.weight, self.temperature = method, weight, temperature
        self._teacher: nn.Module = nn.Identity()

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        self._teacher = copy.deepcopy(model).eval().requires_grad_(False)
        return self.method.prepare(model, example)

    def loss(self, images: Tensor, outputs: Tensor, loss: Tensor) -> Tensor:
        with torch.no_grad():
            taught = self._teacher.to(images.device, memory_format=torch.channels_last)(images)  # type: ignore[call-overload]
        softened = F.log_softmax(outputs.float() / self.temperature, dim=1)
        target = F.log_softmax(taught.float() / self.temperature, dim=1)
        divergence = F.kl_div(softened, target, reduction="batchmean", log_target=True) * self.temperature**2
        return (1 - self.weight) * self.method.loss(images, outputs, loss) + self.weight * divergence

    def before_step(self, step: int, steps: int) -> None:
        self.method.before_step(step, steps)

    def before_update(self) -> None:
        self.method.before_update()

    def settings(self) -> dict[str, Any]:
        own = {"distillation": self.weight, "temperature": self.temperature}
        return {**self.method.settings(), **own}

    def state_dict(self) -> dict[str, Any]:
        return self.method.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.method.load_state_dict(state)
