"""A network and images small enough for tests, and a recipe under which all that draws random numbers draws some."""

from __future__ import annotations

import torch
from torch import nn

from onexn_plugins.training import Recipe
from onexn_plugins.training.data.images import ImageData
from onexn_plugins.training.data.zipped import PixelImages

CLASSES = 3
RECIPE = Recipe(epochs=3, batch_size=8, lr=0.05, warmup_epochs=0.5, label_smoothing=0.1, seed=1)


def network(norm: bool = True) -> nn.Sequential:
    """A stem, a prunable convolution and one with a tail row of blocks, dropout and a head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8) if norm else nn.Identity(), nn.ReLU(),
        nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 14, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2 if norm else 0.0), nn.Linear(14, CLASSES))


def images(count: int = 60, size: int = 8, augment_seed: int | None = 1) -> PixelImages:
    """Each class a colour in noise; `count` images."""
    generator = torch.Generator().manual_seed(count)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    pixels = torch.randint(0, 120, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    pixels[torch.arange(count), labels] += 90
    names = [f"class{index}" for index in range(CLASSES)]
    return PixelImages(pixels, labels, names, torch.full((3,), 90.0), torch.full((3,), 50.0), augment_seed)


def data() -> ImageData:
    return ImageData(images(), images(31, augment_seed=None))
