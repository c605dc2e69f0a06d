"""Small torch networks that between them hold every operator the backend treats specially, and a way to prune them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.layers import groups_of, weighted_layers
from onexn_plugins.pattern import BlockPattern, weight_mask


def prune(model: nn.Module, block_size: int = 4, ratio: float = 0.5) -> nn.Module:
    """Zero random 1×N blocks of every layer wide enough, biases and batch norm statistics made non-trivial."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in weighted_layers(model).values():
            weight, groups = layer.weight, groups_of(layer)
            if weight.shape[0] // groups < block_size:
                continue
            pattern = BlockPattern.of(weight, block_size, groups)
            keep = torch.rand(pattern.shape, generator=generator) >= ratio
            weight *= weight_mask(keep, pattern, weight)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) * 0.1)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return model.eval()


class Mixed(nn.Module):
    """Grouped, dilated, strided and odd-sized convolutions, tails, two block sizes, a residual, several pools."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 10, 5, stride=2, padding=2), nn.BatchNorm2d(10), nn.Hardswish())
        self.grouped = nn.Conv2d(10, 12, 3, padding=1, groups=2)
        self.dilated = nn.Conv2d(12, 12, 3, padding=2, dilation=2, bias=False)
        self.tall = nn.Conv2d(12, 17, (3, 1), padding=(1, 0))
        self.down = nn.Conv2d(17, 18, 1, stride=2)
        self.max_pool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True)
        self.average_pool = nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
        self.head = nn.Linear(18, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = F.relu(self.grouped(x))
        x = F.relu(self.dilated(x) + x)
        x = F.silu(self.tall(x))
        x = self.average_pool(self.max_pool(self.down(x)))
        return self.head(x.mean((2, 3)))


class Mobile(nn.Module):
    """Inverted residuals with 3×3 and 5×5 depthwise layers and squeeze-and-excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.expand = nn.Sequential(nn.Conv2d(8, 24, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(24, 24, 3, padding=1, groups=24), nn.BatchNorm2d(24), nn.ReLU6())
        self.squeeze, self.excite = nn.Conv2d(24, 6, 1), nn.Conv2d(6, 24, 1)
        self.project = nn.Sequential(nn.Conv2d(24, 8, 1), nn.BatchNorm2d(8))
        self.widen = nn.Conv2d(8, 20, 1)
        self.depthwise_5 = nn.Conv2d(20, 20, 5, stride=2, padding=2, groups=20)

    def forward(self, x: Tensor) -> Tensor:
        y = self.depthwise(self.expand(x))
        gate = F.hardsigmoid(self.excite(F.relu(self.squeeze(F.adaptive_avg_pool2d(y, 1)))))
        x = x + self.project(y * gate)
        return F.hardswish(self.depthwise_5(F.silu(self.widen(x))))


class Bottlenecks(nn.Module):
    """Residual blocks that end in a 1×1 convolution, the first with one in its shortcut, as ResNet-50 has them."""

    def __init__(self) -> None:
        super().__init__()
        widths = (8, 24, 24, 24)
        self.inner = nn.ModuleList(nn.Conv2d(width, 16, 1) for width in widths[:3])
        self.outer = nn.ModuleList(nn.Conv2d(16, 24, 1) for _ in range(3))
        self.shortcut = nn.Conv2d(8, 24, 1)

    def forward(self, x: Tensor) -> Tensor:
        for index, (inner, outer) in enumerate(zip(self.inner, self.outer, strict=True)):
            x = F.relu(outer(F.relu(inner(x))) + (x if index else self.shortcut(x)))
        return x


class Shuffled(nn.Module):
    """Two inputs, three outputs; chunk, concat, channel shuffle, an input and a constant passed on as outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(4, 8, 1)
        self.register_buffer("grid", torch.arange(6.0).reshape(2, 3))

    def forward(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first, second = (image * mask).chunk(2, dim=1)
        x = torch.cat([self.left(torch.cat([first, first[:, :2]], 1)), self.right(second)], 1)
        batch, channels, height, width = x.shape
        x = x.reshape(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, channels, height, width)
        return x, mask, torch.softmax(x.mean(1), -1) + self.grid[0, 0]


class Mlp(nn.Module):
    """A block as ConvNeXt and transformers have them: layer norm, two linear layers with GELU between, layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.second = nn.Linear(12, 32), nn.LayerNorm(12), nn.Linear(32, 12, bias=False)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, 12))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.second(F.gelu(self.first(self.norm(x))))


class UpSampling(nn.Module):
    """Transposed convolutions of several strides: 4×4, odd-sized, one filter per channel, and of stride 1."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(8, 16, 4, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.odd = nn.ConvTranspose2d(16, 12, 3, stride=(2, 1), padding=1, output_padding=(1, 0), groups=2)
        self.bilinear = nn.ConvTranspose2d(12, 12, 4, stride=2, padding=1, groups=12)
        self.flat = nn.ConvTranspose2d(12, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.up(x)))
        x = F.hardswish(self.odd(x))
        x = self.bilinear(x)
        return F.relu(self.flat(x)) + x[:, :8]


def prune_transposed(model: nn.Module, block_size: int, ratio: float) -> nn.Module:
    """As prune, of the transposed convolutions, whose weights are [in, out / groups, *kernel]."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.ConvTranspose2d) and layer.weight.shape[1] >= block_size:
                inputs, outputs = layer.weight.shape[:2]
                keep = torch.rand(inputs, -(-outputs // block_size), generator=generator) >= ratio
                layer.weight *= keep.repeat_interleave(block_size, 1)[:, :outputs, None, None]
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.copy_(torch.randn(layer.num_features, generator=generator) * 0.1)
                layer.running_var.copy_(torch.rand(layer.num_features, generator=generator) + 0.5)
    return model.eval()
