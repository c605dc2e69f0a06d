"""What each step of distillation sees: random parts of the images, and mixtures of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from onexn_plugins.repair.images import Images

BATCH = 16
CROPS = (0.5, 1.0)  # share of an image's area that a crop shows
MIXED = 0.5  # most of an image that is another one's; labels would have to be mixed too, the dense network's need not


def view(images: Images, step: int, seed: int) -> Any:
    """The batch of step number `step`, the same in every run.

    Images [n, c, h, w] are cropped at random, scaled back and flipped, and blended with one another (mixup, Zhang et
    al. 2018) or, every other step, pasted into one another (CutMix, Yun et al. 2019): a few hundred images are few, and
    the dense network knows what it makes of any mixture. Other batches are taken as they are.
    """
    generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
    if not all(isinstance(batch, Tensor) and batch.dim() == 4 for batch in images.batches):
        return images.batches[int(torch.randint(len(images.batches), (), generator=generator))]
    per_epoch = max(1, images.count // BATCH)
    order = torch.randperm(images.count, generator=torch.Generator().manual_seed(seed * 7919 + step // per_epoch))
    chosen = order[step % per_epoch * BATCH :][:BATCH].tolist()
    batch = torch.stack([_crop(_image(images, place), generator) for place in chosen])
    return _pasted(batch, generator) if step % 2 else _blended(batch, generator)


def _image(images: Images, place: int) -> Tensor:
    for batch in images.batches:
        if place < len(batch):
            return batch[place]
        place -= len(batch)
    raise IndexError(place)


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _crop(image: Tensor, generator: torch.Generator) -> Tensor:
    """A random part of an image [c, h, w], scaled to its size and flipped half of the time."""
    height, width = image.shape[1:]
    area = CROPS[0] + (CROPS[1] - CROPS[0]) * _draw(generator)
    ratio = math.exp((_draw(generator) - 0.5) * 2 * math.log(4 / 3))
    tall, wide = (max(1, min(size, round(size * math.sqrt(area * each))))
                  for size, each in ((height, 1 / ratio), (width, ratio)))
    top, left = (int(_draw(generator) * (size - part + 1)) for size, part in ((height, tall), (width, wide)))
    part = image[None, :, top : top + tall, left : left + wide]
    part = F.interpolate(part, (height, width), mode="bilinear", antialias=True)[0]
    return part.flip(2) if _draw(generator) < 0.5 else part


def _blended(batch: Tensor, generator: torch.Generator) -> Tensor:
    share = MIXED * torch.rand(len(batch), 1, 1, 1, generator=generator).to(batch)
    return torch.lerp(batch, batch.roll(1, 0), share)


def _pasted(batch: Tensor, generator: torch.Generator) -> Tensor:
    """A rectangle of each image is the next one's."""
    height, width = batch.shape[2:]
    result, other = batch.clone(), batch.roll(1, 0)
    for own, its in zip(result, other, strict=True):
        side = math.sqrt(MIXED * _draw(generator))
        tall, wide = int(side * height), int(side * width)
        top, left = int(_draw(generator) * (height - tall + 1)), int(_draw(generator) * (width - wide + 1))
        part = (slice(None), slice(top, top + tall), slice(left, left + wide))
        own[part] = its[part]
    return result
