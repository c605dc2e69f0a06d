"""One network's filters cut, in a process of its own."""

from __future__ import annotations

from typing import Any

import torch
from nni.compression.pruning import L1NormPruner
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.nni.filters import cut_filters
from onexn_plugins.zoo import load_model

# Where channels run through Linear layers too, these are selected with the convolutions.
WITH_LINEAR = ("convnext_tiny",)
PIXELS, LARGER = 64, {"googlenet": 96, "vgg11": 64}
RATIO = 0.5


def cut(network: str) -> dict[str, Any]:
    """One row of the table."""
    model, pixels = load_model(network), LARGER.get(network, PIXELS)
    if hasattr(model, "aux_logits"):  # what runs in training alone no tracer sees
        for name, value in (("aux_logits", False), ("aux1", None), ("aux2", None)):
            setattr(model, name, value)
    images = torch.randn(2, 3, pixels, pixels, generator=torch.Generator().manual_seed(0))
    layers = [name for name, layer in model.named_modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    types = ["Conv2d", "Linear"] if network in WITH_LINEAR else ["Conv2d"]
    # The stem stays, and the classifier, a convolution in squeezenet, has to.
    config = [{"op_types": types, "exclude_op_names": [layers[0], layers[-1]], "sparse_ratio": RATIO}]
    row: dict[str, Any] = {"network": network, "pixels": pixels}
    try:
        result = cut_filters(model, L1NormPruner, config, images)
    except OneXNError as error:
        return row | {"cut_by": "neither", "reason": error.reason}
    loss = result.model.train()(images)
    loss = getattr(loss, "logits", loss).float().square().mean()
    loss.backward()
    learns = all(bool(torch.isfinite(parameter.grad).all()) for parameter in result.model.parameters()
                 if parameter.grad is not None)
    return row | {"cut_by": result.method, "reason": result.reason, "parameters_before": result.parameters_before,
                  "parameters_after": result.parameters_after, "learns": learns}
