"""Statistics of the pruned network put right, without touching a weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model, tensors_in


def reestimate_norms(model: nn.Module, batches: Sequence[Any], context: Callable[[], Any] = torch.no_grad) -> int:
    """Give every batch norm with running statistics those of these batches, in place, as all training code would.

    A batch counts as much as it has images. One of a single image is left out: it has no variance where maps are 1×1.

    Returns:
        How many there are; 0 where every batch is of one image, and nothing was changed.
    """
    sizes = [(batch, len(tensors[0])) for batch in batches if (tensors := tensors_in(batch)) and tensors[0].dim()]
    sizes = [(batch, size) for batch, size in sizes if size > 1]
    norms = [module for module in model.modules()
             if isinstance(module, nn.modules.batchnorm._BatchNorm) and isinstance(module.running_mean, Tensor)]
    if not norms or not sizes:
        return 0
    before = [(norm.training, norm.momentum) for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.training = True
        seen = 0
        with torch.no_grad(), context():
            for batch, size in sizes:
                seen += size
                for norm in norms:
                    norm.momentum = size / seen  # the mean over all images so far
                call_model(model, batch)
    finally:
        for norm, (training, momentum) in zip(norms, before, strict=True):
            norm.training, norm.momentum = training, momentum
    return len(norms)
