"""What every trial of the experiments does alike: the network it begins with, its images, and the fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.accuracy.networks import NETWORKS
from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.run import start_weights
from onexn_plugins.training import Recipe, train
from onexn_plugins.training.data.images import Batch, ImageData, Images, Request
from onexn_plugins.zoo import load_weights

STARTS = Path(__file__).parents[1] / "accuracy" / "results"
BATCH = 128


class Every(Images):
    """Every `step`-th image, from number `first` on.

    Args:
        images: all of them.
        step, first: which are taken.
    """

    def __init__(self, images: Images, step: int, first: int = 0) -> None:
        self._images, self._step, self._first = images, step, first
        self.classes, self.shape = images.classes, images.shape

    def __len__(self) -> int:
        return len(range(self._first, len(self._images), self._step))

    def __getitem__(self, request: Request) -> Batch:  # type: ignore[override]
        return self._images[Request(request.epoch, [self._first + self._step * n for n in request.numbers])]


def dense_network() -> nn.Module:
    """The trained MobileNetV2 that the rows of benchmarks/accuracy begin with, too."""
    torch.set_num_threads(1)
    network = NETWORKS[Row().network]().eval()
    load_weights(network, start_weights(STARTS, Row()))
    return network


def fine_tune(model: nn.Module, data: ImageData, seed: int, share: int, folder: Path,
              judged: int = 1, progress: Callable[[str], None] = lambda note: None) -> float:
    """Train on one image in `share`, one pass, the same for every contender; the accuracy on held-out images.

    Args:
        model: pruned, with masks on.
        data: all images.
        seed: of which images are taken, of their order and augmentation.
        share: a whole epoch divided by this is the budget.
        folder: of the training's log and state.
        judged: of the held-out images one in so many counts.
        progress: for notes.
    """
    part = ImageData(Every(data.training, share, seed % share), Every(data.held_out, judged))
    recipe = Recipe(epochs=1, batch_size=BATCH, eval_batch_size=500, nesterov=True, weight_decay=5e-4, lr=0.1,
                    schedule="onecycle", label_smoothing=0.05, seed=seed)
    return train(model, part, recipe, folder, tensorboard=False, progress=progress).accuracy.top1


def copy_of(network: nn.Module) -> nn.Module:
    """One to prune, while the given one stays dense."""
    return copy.deepcopy(network)
