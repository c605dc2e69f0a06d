"""Statistics of the pruned network put right: of its batch norms, and the scale of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.inputs import call_model, tensors_in
from onexn_plugins.layers import weighted_layers
from onexn_plugins.repair.divergence import divergence, is_classes
from onexn_plugins.repair.surroundings import surroundings

SCALES = [1.1**power for power in range(9)]  # 1 to 2.1: least squares makes outputs smaller, never larger


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


def scale_outputs(model: nn.Module, example: Any, dense: Sequence[Any], outputs: Sequence[Any]) -> float | None:
    """Scale the last layer so that the classes' divergence from the dense network's is the least, in place.

    What is fitted by least squares varies less than its targets, the outputs as well: the network is less sure than it
    might be (temperature scaling, Guo et al., ICML 2017). The order of the classes stays.

    Args:
        model: whose last layer gives its outputs.
        example: that it runs on.
        dense: outputs of the dense network.
        outputs: of the model on the same images.

    Returns:
        The scale; None where outputs are no classes or no layer gives them, and nothing was changed.
    """
    layers = weighted_layers(model)
    around = surroundings(model, example, {name: layer.weight for name, layer in layers.items()})
    if not around or not all(is_classes(each) for each in dense):
        return None
    name = next(reversed(around))
    if around[name].norm is not None or around[name].bounds is not None:
        return None
    scale = min(SCALES, key=lambda each: divergence(dense, [each * output for output in outputs]).kl)
    with torch.no_grad():
        for each in layers[name].parameters(recurse=False):
            each.mul_(scale)
    return scale
