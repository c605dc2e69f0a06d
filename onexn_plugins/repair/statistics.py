"""Statistics of the pruned network put right, without touching a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model


def reestimate_norms(model: nn.Module, batches: Sequence[Any], context: Callable[[], Any] = torch.no_grad) -> int:
    """Give every batch norm with running statistics those of these batches, in place, as all training code would.

    Returns:
        How many there are.
    """
    norms = [module for module in model.modules()
             if isinstance(module, nn.modules.batchnorm._BatchNorm) and isinstance(module.running_mean, Tensor)]
    before = [(norm.training, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.training, norm.momentum = True, None  # None: the mean over all batches
        with torch.no_grad(), context():
            for batch in batches if norms else ():
                call_model(model, batch)
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.training, norm.momentum = training, momentum
    return len(norms)
