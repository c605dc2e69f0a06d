"""Small networks with every kind of layer that repair meets."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """An inverted residual with batch norms."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, hidden, 1, bias=False)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden, bias=False)
        self.project = nn.Conv2d(hidden, channels, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(hidden), nn.BatchNorm2d(hidden), nn.BatchNorm2d(channels)])

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norms[0](self.expand(x)))
        hidden = torch.relu(self.norms[1](self.depthwise(hidden)))
        return x + self.norms[2](self.project(hidden))


def residual_net(seed: int = 0) -> nn.Module:
    """Stem, two inverted residuals, a grouped 3×3 with a bias, a classifier; norms hold statistics of data."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, 1), nn.BatchNorm2d(12), nn.ReLU(), Residual(12, 24), Residual(12, 24),
        nn.Conv2d(12, 18, 3, padding=1, groups=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 6))
    with torch.no_grad():
        net[-1].weight.mul_(6)  # logits that tell images apart
        for _ in range(10):
            net(photos(32, seed=1))
    return net.eval()


def photos(count: int = 48, side: int = 16, seed: int = 0) -> Tensor:
    """Smooth images: neighbouring pixels are alike, as in photos."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    fine = torch.randn(count, 3, side, side, generator=generator)
    return nn.functional.interpolate(coarse, (side, side), mode="bilinear") * 2 + 0.3 * fine


class Sequences(nn.Module):
    """Linear layers that read tokens."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(10, 20), nn.Linear(20, 10), nn.Linear(10, 5)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head((tokens + self.second(torch.relu(self.first(tokens)))).mean(1))
