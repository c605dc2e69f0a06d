"""Detectors, up to their boxes' coordinates and scores: what suppresses overlapping boxes depends on values."""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn

from benchmarks.networks.published.parts import conv_norm
from onexn_plugins.zoo import import_torchvision

_BINS = 16  # of a box side's distance, whose expectation is the distance


class _Bottleneck(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = (conv_norm(channels, channels, activation=nn.SiLU) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))


class _SplitBottlenecks(nn.Module):
    """Half of the channels pass each bottleneck; all that it gives is read at the end (C2f)."""

    def __init__(self, channels: int, out_channels: int, count: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.enter = conv_norm(channels, out_channels, 1, activation=nn.SiLU)
        self.blocks = nn.ModuleList(_Bottleneck(half) for _ in range(count))
        self.leave = conv_norm((2 + count) * half, out_channels, 1, activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class _PyramidPool(nn.Module):
    """Maxima over windows that grow (SPPF)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = conv_norm(channels, channels // 2, 1, activation=nn.SiLU)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = conv_norm(2 * channels, channels, 1, activation=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class _Head(nn.Module):
    """Distances of each cell's box sides as expectations over bins, and scores of the classes."""

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.classes = classes
        hidden, scores = max(16, channels[0] // 4, 4 * _BINS), max(channels[0], min(classes, 100))

        def branches(middle: int, out: int) -> nn.ModuleList:
            return nn.ModuleList(nn.Sequential(
                conv_norm(width, middle, activation=nn.SiLU), conv_norm(middle, middle, activation=nn.SiLU),
                nn.Conv2d(middle, out, 1)) for width in channels)

        self.boxes, self.scores = branches(hidden, 4 * _BINS), branches(scores, classes)

    def forward(self, levels: list[Tensor]) -> Tensor:
        found = [torch.cat((boxes(x), scores(x)), 1).flatten(2)
                 for x, boxes, scores in zip(levels, self.boxes, self.scores, strict=True)]
        boxes, scores = torch.cat(found, 2).split((4 * _BINS, self.classes), 1)
        bins = boxes.reshape(len(boxes), 4, _BINS, -1).transpose(1, 2).softmax(1)
        distances = (bins * torch.arange(_BINS, dtype=bins.dtype, device=bins.device).reshape(1, -1, 1, 1)).sum(1)
        return torch.cat((distances, scores.sigmoid()), 1)


class _Yolo(nn.Module):
    def __init__(self, widths: tuple[int, ...], depths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        stem, *stages = widths
        self.stem = conv_norm(3, stem, stride=2, activation=nn.SiLU)
        self.down = nn.ModuleList(nn.Sequential(conv_norm(before, width, stride=2, activation=nn.SiLU),
                                                _SplitBottlenecks(width, width, depth))
                                  for before, width, depth in zip(widths, stages, depths, strict=False))
        _, small, middle, large = stages
        self.pool, self.up = _PyramidPool(large), nn.Upsample(scale_factor=2, mode="nearest")
        self.to_middle, self.to_small = _SplitBottlenecks(large + middle, middle, 1), _SplitBottlenecks(
            middle + small, small, 1)
        self.from_small, self.from_middle = (conv_norm(width, width, stride=2, activation=nn.SiLU)
                                             for width in (small, middle))
        self.back_to_middle, self.back_to_large = _SplitBottlenecks(small + middle, middle, 1), _SplitBottlenecks(
            middle + large, large, 1)
        self.head = _Head((small, middle, large), classes)

    def forward(self, x: Tensor) -> Tensor:
        levels = [self.stem(x)]
        for stage in self.down:
            levels.append(stage(levels[-1]))
        *_, small, middle, large = levels
        large = self.pool(large)
        middle = self.to_middle(torch.cat((self.up(large), middle), 1))
        small = self.to_small(torch.cat((self.up(middle), small), 1))
        middle = self.back_to_middle(torch.cat((self.from_small(small), middle), 1))
        large = self.back_to_large(torch.cat((self.from_middle(middle), large), 1))
        return self.head([small, middle, large])


def yolov8n() -> nn.Module:
    """After Ultralytics' YOLOv8n (2023): split bottlenecks, a pyramid pool, levels both ways, expected distances."""
    return _Yolo((16, 32, 64, 128, 256), (1, 2, 2, 1), 80)


class _TorchvisionDetector(nn.Module):
    """Backbone and head, all levels' boxes and scores."""

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        found = self.backbone(x)
        return tuple(self.head(list(found.values()) if isinstance(found, OrderedDict) else [found]).values())


def ssdlite() -> nn.Module:
    """torchvision's SSDLite on MobileNetV3-Large (Sandler et al. 2018, Howard et al. 2019)."""
    models = import_torchvision().models
    made = models.detection.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None)
    return _TorchvisionDetector(made.backbone, made.head)


class _BlazeBlock(nn.Module):
    def __init__(self, channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride, self.more = stride, out_channels - channels
        self.convs = nn.Sequential(nn.Conv2d(channels, channels, 5, stride, 2, groups=channels),
                                   nn.Conv2d(channels, out_channels, 1), nn.BatchNorm2d(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        beside = nn.functional.max_pool2d(x, 2) if self.stride == 2 else x
        return (self.convs(x) + nn.functional.pad(beside, (0, 0, 0, 0, 0, self.more))).relu()


class _BlazeFace(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv_norm(3, 24, 5, 2), _BlazeBlock(24, 24), _BlazeBlock(24, 28),
                                   _BlazeBlock(28, 32, 2), _BlazeBlock(32, 36), _BlazeBlock(36, 42),
                                   _BlazeBlock(42, 48, 2),
                                   *(_BlazeBlock(width, width + 8) for width in (48, 56, 64, 72)),
                                   _BlazeBlock(80, 88))
        self.second = nn.Sequential(_BlazeBlock(88, 96, 2), *(_BlazeBlock(96, 96) for _ in range(4)))
        self.scores = nn.ModuleList((nn.Conv2d(88, 2, 1), nn.Conv2d(96, 6, 1)))
        self.places = nn.ModuleList((nn.Conv2d(88, 32, 1), nn.Conv2d(96, 96, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        levels = [self.first(x)]
        levels.append(self.second(levels[0]))

        def listed(heads: nn.ModuleList, width: int) -> Tensor:
            return torch.cat([head(level).permute(0, 2, 3, 1).reshape(len(x), -1, width)
                              for head, level in zip(heads, levels, strict=True)], 1)

        return listed(self.scores, 1).sigmoid(), listed(self.places, 16)


def blazeface() -> nn.Module:
    """After BlazeFace (Bazarevsky et al. 2019): 5×5 depthwise blocks whose shortcut is padded with zero channels."""
    return _BlazeFace()
