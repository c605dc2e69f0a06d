"""Modules that only look like a torch model: scripted ones, and those that a quantiser has prepared or converted."""

from __future__ import annotations

import torch
from torch import nn

from onexn_plugins.errors import OneXNError


def check_plain(model: nn.Module, name: str = "model") -> None:
    """Raise OneXNError where layers are no longer torch's own, so that they cannot be pruned or exported."""
    if isinstance(model, torch.jit.ScriptModule):
        raise OneXNError(name, "is a scripted or traced module, whose layers cannot be changed",
                         "Give the module that it was made from; a saved script's weights load into that one")
    for path, layer in model.named_modules():
        kind = type(layer)
        if kind.__module__.startswith(("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")):
            raise OneXNError(path or name, f"is quantised ({kind.__name__}), and its weights are no floats any more",
                             "Prune the float model first, then quantise it")
        if isinstance(layer, torch.ao.quantization.FakeQuantizeBase) or kind.__module__.startswith(
                ("torch.ao.nn.qat", "torch.ao.nn.intrinsic.qat")):
            raise OneXNError(path or name, f"is prepared for quantisation ({kind.__name__}), which moves pruned zeros",
                             "Prune the float model first, then prepare it with its masks folded")
