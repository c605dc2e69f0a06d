"""How often a network is right on held-out images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError
from onexn_plugins.evaluation import check_scores
from onexn_plugins.training.data.images import IGNORED, Images, Requests, check_count, loader

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Accuracy:
    """Over `images` images that could be read; `unreadable` could not.

    Attributes:
        top1, top5: fraction whose class is ranked first, or among the first five.
        loss: mean cross entropy.
        images, unreadable: how many.
    """

    top1: float
    top5: float
    loss: float
    images: int
    unreadable: int


def evaluate(fabric: Fabric, model: nn.Module, images: Images, batch_size: int = 256, *, workers: int = 0,
             channels_last: bool = True, progress: Callable[[str], None] = lambda note: None) -> Accuracy:
    """Judge a model that `fabric` has set up; every process sees its share, and all get the same answer.

    Raises:
        OneXNError: no image could be read, or the model's scores are not finite or not one per class.
    """
    check_count("batch_size", batch_size, 1)
    requests = Requests(len(images), batch_size * fabric.world_size, rank=fabric.global_rank, ranks=fabric.world_size)
    empty = torch.zeros(1, *images.shape)  # for a process whose share is none: a model in several is run by all
    sums = torch.zeros(5, dtype=torch.float64)  # first, first five, loss, images, unreadable
    training = model.training
    model.eval()
    with torch.inference_mode():
        for done, batch in enumerate(loader(images, requests, workers=workers), start=1):
            any_here = len(batch.labels) > 0
            outputs = model(to_device(batch.images if any_here else empty, fabric.device, channels_last))
            if any_here:
                check_classes(outputs, images)
                sums += _counted(outputs.float(), batch.labels.to(fabric.device))
            progress(f"{min(done * batch_size * fabric.world_size, len(images))} of {len(images)} images")
    model.train(training)
    total = cast(Tensor, fabric.all_reduce(sums.to(fabric.device), reduce_op="sum"))
    first, five, loss, counted, unreadable = total.tolist()
    if not counted:
        raise OneXNError("held-out images", f"none of {len(images)} could be read", "Give a folder of whole images")
    return Accuracy(first / counted, five / counted, loss / counted, int(counted), int(unreadable))


def to_device(images: Tensor, device: torch.device, channels_last: bool) -> Tensor:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    return images.to(device, non_blocking=True, memory_format=layout)


def check_classes(outputs: Any, images: Images) -> None:
    """Raise OneXNError unless the model gives finite scores [n, classes]."""
    count = check_scores(outputs).shape[1]
    if count != len(images.classes):
        raise OneXNError("classes", f"the network has {count} outputs and the images {len(images.classes)} classes",
                         "Give the network a head of that many classes, or another folder of images")


def _counted(outputs: Tensor, labels: Tensor) -> Tensor:
    loss = F.cross_entropy(outputs, labels, ignore_index=IGNORED, reduction="sum")
    ranked = outputs.topk(min(5, outputs.shape[1]), dim=1).indices == labels[:, None]
    counted = (labels != IGNORED).sum()
    return torch.stack([ranked[:, 0].sum(), ranked.any(1).sum(), loss, counted, len(labels) - counted]).double().cpu()
