"""What every source of images gives: batches on request, where a request says everything that decides them.

Order and augmentation are functions of the seed, the epoch and the image's number alone. So a run that was stopped goes
on in the middle of an epoch by its position, and several processes see together what one would have seen.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from onexn_plugins.errors import OneXNError

IGNORED = -100  # the label of an image that could not be read; cross_entropy passes over it


class Request(NamedTuple):
    """Which images, by number, in which epoch."""

    epoch: int
    numbers: list[int]


class Batch(NamedTuple):
    """Images float32 [n, channels, height, width], labels int64 [n], and the files that could not be read."""

    images: Tensor
    labels: Tensor
    unreadable: list[str]


class Images(Dataset[Batch], ABC):
    """Labelled images.

    Attributes:
        classes: names, in the order of the labels.
        shape: (channels, height, width) of an image as the network sees it.
        own_threads: reads by threads of its own, which worker processes, being forks, would lack.
    """

    own_threads = False

    classes: Sequence[str]
    shape: tuple[int, int, int]

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitem__(self, request: Request) -> Batch: ...  # type: ignore[override]


class ImageData(NamedTuple):
    """Images to train on, augmented, and images to judge by, which are never trained on."""

    training: Images
    held_out: Images


class Requests:
    """The requests of one epoch.

    Args:
        count: images in all.
        batch_size: images per step, over all processes.
        epoch: its number; of a shuffled order and of the augmentation.
        seed: of the order; None for the images' own order, every one of them, the last batch being smaller.
        start: steps of the epoch that are done already.
        rank, ranks: this process and how many there are; each takes every ranks-th image of a batch.
    """

    def __init__(self, count: int, batch_size: int, *, epoch: int = 0, seed: int | None = None, start: int = 0,
                 rank: int = 0, ranks: int = 1) -> None:
        self._numbers = torch.arange(count) if seed is None else torch.randperm(count, generator=stream(seed, epoch))
        self._batch_size, self._epoch, self._rank, self._ranks = batch_size, epoch, rank, ranks
        self._starts = range(0, count, batch_size) if seed is None else range(0, count - batch_size + 1, batch_size)
        self._start = start

    def __len__(self) -> int:
        return len(self._starts) - self._start

    def __iter__(self) -> Iterator[Request]:
        for first in self._starts[self._start :]:
            batch = self._numbers[first : first + self._batch_size]
            yield Request(self._epoch, batch[self._rank :: self._ranks].tolist())


def loader(images: Images, requests: Requests, *, workers: int = 0, pin: bool = False) -> DataLoader[Batch]:
    """torch's loader over the requests; how many workers it has changes nothing but speed."""
    check_count("workers", workers, 0)
    # Without a generator of its own every epoch's loader would take a number from torch's global stream.
    return DataLoader(images, batch_size=None, sampler=requests, pin_memory=pin,  # type: ignore[arg-type]
                      num_workers=0 if images.own_threads else workers, generator=torch.Generator().manual_seed(0))


def check_count(name: str, value: int, least: int) -> None:
    """Raise OneXNError unless it is an integer that is not below `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OneXNError(name, f"must be an integer from {least} on, got {value!r}", "Leave it out for the default")


def stream(*key: int) -> torch.Generator:
    """A random stream that depends on the key alone."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))
