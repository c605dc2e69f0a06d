"""The optimizer and its learning rate, from torch."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    ConstantLR,
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    LRScheduler,
    OneCycleLR,
    SequentialLR,
    StepLR,
)

from onexn_plugins.training.recipe import Recipe

# The first step of a warm-up has this share of the full rate.
WARMUP_START = 1e-2
# onecycle rises during this share of the steps.
ONECYCLE_RISE = 0.25


def make_optimizer(model: nn.Module, recipe: Recipe) -> SGD:
    """SGD over everything that learns."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return SGD(parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
               nesterov=recipe.nesterov and recipe.momentum > 0)


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, epoch_steps: int) -> LRScheduler:
    """A scheduler that is stepped after every optimizer step.

    Args:
        optimizer: as `make_optimizer` made it.
        recipe: epochs, schedule and warm-up.
        epoch_steps: optimizer steps in an epoch.
    """
    total = recipe.epochs * epoch_steps
    if recipe.schedule == "onecycle":
        return OneCycleLR(optimizer, recipe.lr, total_steps=max(total, 2), pct_start=ONECYCLE_RISE)
    warmup = round(recipe.warmup_epochs * epoch_steps)
    main = _main(optimizer, recipe, max(1, total - warmup), max(1, round(recipe.decay_epochs * epoch_steps)))
    if not warmup:
        return main
    return SequentialLR(optimizer, [LinearLR(optimizer, WARMUP_START, total_iters=warmup), main], [warmup])


def _main(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int, decay_steps: int) -> LRScheduler:
    if recipe.schedule == "cos":
        return CosineAnnealingLR(optimizer, steps)
    if recipe.schedule == "step":
        return StepLR(optimizer, decay_steps, recipe.decay_factor)
    if recipe.schedule == "exp":
        return ExponentialLR(optimizer, recipe.decay_factor ** (1 / decay_steps))
    return ConstantLR(optimizer, factor=1.0)
