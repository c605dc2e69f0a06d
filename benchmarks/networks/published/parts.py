"""What several of these networks are made of."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


def conv_norm(channels: int, out_channels: int, kernel: int = 3, stride: int = 1, groups: int = 1,
              activation: type[nn.Module] = nn.ReLU, **options: Any) -> nn.Sequential:
    """A convolution that keeps the size at stride 1, batch norm and an activation."""
    conv = nn.Conv2d(channels, out_channels, kernel, stride, options.pop("padding", kernel // 2), groups=groups,
                     bias=False, **options)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), activation())


class Outputs(nn.Module):
    """A network that returns a dictionary or a list, as one that returns a tuple."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(x)
        return tuple(outputs.values() if isinstance(outputs, dict) else outputs)
