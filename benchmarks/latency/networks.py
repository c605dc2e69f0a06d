"""ImageNet networks at a block size and ratio, as ONNX files. Weights are random: they serve for speed alone."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from onexn_plugins import export_onnx, fold
from onexn_plugins.torch_pruning import OneXNPruner
from onexn_plugins.zoo import load_model

NETWORKS = {"mobilenet_v2": "mobilenet_v2", "resnet50": "resnet50", "efficientnet_lite0": "timm/efficientnet_lite0"}


def pruned_onnx(network: str, block_size: int, ratio: float, size: int, folder: Path) -> Path:
    """Prune, fold and export one network; `folder` gets the file."""
    model = load_model(NETWORKS[network])
    _settle(model)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    if ratio > 0:
        OneXNPruner(model, image, block_size=block_size, pruning_ratio=ratio).step()
        fold(model)
    return Path(export_onnx(model, image, folder / f"{network}_{ratio:g}.onnx", block_size=block_size))


def _settle(model: nn.Module) -> None:
    """Batch norm statistics as trained networks have them: fresh ones let activations shrink to denormal numbers,
    whose arithmetic is slow on some processors."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                channels = module.num_features
                module.running_var.copy_(torch.rand(channels, generator=generator) * 0.4 + 0.8)
                module.running_mean.copy_(torch.randn(channels, generator=generator) * 0.05)
                module.weight.copy_(torch.rand(channels, generator=generator) * 0.2 + 0.9)
                module.bias.copy_(torch.randn(channels, generator=generator) * 0.05)
