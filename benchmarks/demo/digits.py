"""The small network, its real handwritten digits, and the training every contender gets alike.

Digits: scikit-learn's copy of the UCI "Optical Recognition of Handwritten Digits" test set, 1,797 scans of 8×8.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.nn import functional as F

TRAINING_IMAGES = 600
PIXELS = 32
BATCH = 50
CLASSES = 10


@dataclass(frozen=True)
class Digits:
    """Images float32 [n, 1, 32, 32] and labels int64 [n]; the held-out ones are never trained on or chosen by."""

    images: Tensor
    labels: Tensor
    held_out_images: Tensor
    held_out_labels: Tensor

    @classmethod
    def load(cls) -> Digits:
        """One fixed, stratified split, enlarged bilinearly from 8×8 so that convolutions have work to do."""
        source = load_digits()
        images = torch.tensor(source.images, dtype=torch.float32)[:, None] / 16
        images = F.interpolate(images, size=(PIXELS, PIXELS), mode="bilinear", align_corners=False)
        labels = torch.tensor(source.target)
        training, held_out = train_test_split(
            torch.arange(len(labels)), train_size=TRAINING_IMAGES, stratify=labels, random_state=0
        )
        mean, deviation = images[training].mean(), images[training].std()
        images = (images - mean) / deviation
        return cls(images[training], labels[training], images[held_out], labels[held_out])

    @property
    def example(self) -> Tensor:
        """One image, [1, 1, 32, 32]."""
        return self.held_out_images[:1]


def small_network(width: int) -> nn.Sequential:
    """A MobileNet in small: 3×3 stem, five depthwise-separable blocks, classifier; `width` channels in the stem."""
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
        _separable(width, 2 * width, stride=1),
        _separable(2 * width, 4 * width, stride=2),
        _separable(4 * width, 4 * width, stride=1),
        _separable(4 * width, 8 * width, stride=2),
        _separable(8 * width, 8 * width, stride=1),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8 * width, CLASSES),
    )


def _separable(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, in_channels, 3, stride, padding=1, groups=in_channels, bias=False),
        nn.BatchNorm2d(in_channels), nn.ReLU(),
        nn.Conv2d(in_channels, out_channels, 1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU(),
    )


def train(
    model: nn.Module, digits: Digits, epochs: int, *, peak_rate: float, seed: int,
    progress: Callable[[int], None] = lambda epoch: None,
) -> None:
    """SGD with momentum under a one-cycle rate; the same seed gives the same order of images.

    Args:
        model: trained in place, left in eval mode.
        digits: only its training part is read.
        epochs: passes over it.
        peak_rate: highest learning rate of the cycle.
        seed: of the order.
        progress: called with the number of each finished epoch.
    """
    order = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=peak_rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = -(-len(digits.labels) // BATCH)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimizer, peak_rate, total_steps=epochs * steps)
    model.train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = digits.images.contiguous(memory_format=torch.channels_last)
    for epoch in range(1, epochs + 1):
        for batch in torch.randperm(len(images), generator=order).split(BATCH):
            loss = F.cross_entropy(model(images[batch]), digits.labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            rate.step()
        progress(epoch)
    model.eval()


def outputs(model: nn.Module, images: Tensor) -> Tensor:
    """The model's scores for each class, float32 [n, 10]."""
    with torch.inference_mode():
        return torch.cat([model(part) for part in images.split(100)])
