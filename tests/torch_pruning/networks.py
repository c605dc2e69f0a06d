"""Small networks with every kind of layer the pruner meets."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(7))


class SmallNet(nn.Module):
    """Stem, odd widths (tail blocks), depthwise, grouped and 1×1 convolutions, a residual, a Linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Conv2d(8, 12, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.grouped = nn.Conv2d(12, 18, 3, padding=1, groups=3)
        self.point = nn.Conv2d(18, 22, 1, bias=False)
        self.residual = nn.Conv2d(22, 22, 1)
        self.classifier = nn.Linear(22, 10)

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.wide(self.stem(images))).relu()
        features = self.point(self.grouped(self.depthwise(features)).relu())
        features = features + self.residual(features).relu()
        return self.classifier(features.mean((2, 3)))


class Shuffling(nn.Module):
    """Runs, but torch-pruning's graph cannot be built: three channel shuffles break its index mapping."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.left = nn.ModuleList(nn.Conv2d(4, 4, 1) for _ in range(3))
        self.head = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        for layer in self.left:
            first, second = features.chunk(2, dim=1)
            features = torch.cat([first, layer(second)], dim=1)
            count, channels, height, width = features.shape
            pairs = features.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
            features = pairs.view(count, channels, height, width)
        return self.head(features).mean((2, 3))


def small_net(seed: int = 0, dtype: torch.dtype = torch.float32) -> SmallNet:
    """A SmallNet with weights of its seed, and running statistics that are not the default ones."""
    torch.manual_seed(seed)
    model = SmallNet()
    model(IMAGES)
    return model.to(dtype)


def snapshot(model: nn.Module) -> dict[str, object]:
    """Everything a failed call must leave alone: values, modes, hooks, requires_grad, parametrizations."""
    values = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    about = {name: (type(module), module.training, len(module._forward_hooks))
             for name, module in model.named_modules()}
    flags = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    return {"values": values, "modules": about, "flags": flags}


def assert_unchanged(model: nn.Module, before: dict[str, object]) -> None:
    after = snapshot(model)
    assert after["modules"] == before["modules"]
    assert after["flags"] == before["flags"]
    old, new = before["values"], after["values"]
    assert list(old) == list(new)
    assert all(torch.equal(old[name], new[name]) for name in old)
