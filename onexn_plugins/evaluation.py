"""Top-1 and top-5 on labelled photos, the same for anything that gives class scores."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.errors import OneXNError
from onexn_plugins.repair.images import SUFFIXES, check_pillow, read_photo

Scores = Callable[[Tensor], Tensor]  # images [n, c, h, w] -> class scores [n, classes]


@dataclass(frozen=True)
class Share:
    """A share of images with its 95 % interval (Wilson 1927), which holds near 0 and 1 too."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, right: int, total: int) -> Share:
        z, share = 1.96, right / total
        middle = (share + z * z / (2 * total)) / (1 + z * z / total)
        half = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
        return cls(share, max(0.0, middle - half), min(1.0, middle + half))


@dataclass(frozen=True)
class Evaluation:
    """
    Attributes:
        top1, top5: share of the images whose class the model ranks first, and among its first five.
        images: that were scored.
        skipped: files that could not be read, with the reason.
    """

    top1: Share
    top5: Share
    images: int
    skipped: list[tuple[str, str]]


def class_folders(folder: str | os.PathLike[str]) -> list[Path]:
    """The sub-folders of a folder, sorted: one per class."""
    root = Path(folder)
    if not root.is_dir():
        raise OneXNError(str(root), "is no folder", "Give a folder with one sub-folder of photos per class")
    return sorted(path for path in root.iterdir() if path.is_dir())


def labelled_photos(folder: str | os.PathLike[str]) -> list[tuple[Path, int]]:
    """Photos with their classes: the places of their sub-folders in sorted order, as torchvision's ImageFolder.

    Raises:
        OneXNError: there are no sub-folders with photos in them.
    """
    found = [(path, label) for label, each in enumerate(class_folders(folder)) for path in sorted(each.rglob("*"))
             if path.suffix.lower() in SUFFIXES]
    if not found:
        raise OneXNError(str(folder), "holds no photos in sub-folders", "Give one sub-folder of photos per class")
    return found


def evaluate(scores: Scores, photos: Sequence[tuple[Path, int]], preprocess: Callable[[Any], Tensor], *,
             classes: int | None = None, batch: int = 25,
             progress: Callable[[int, int], None] = lambda done, total: None) -> Evaluation:
    """Score photos.

    Args:
        scores: of a batch of images.
        photos: paths with their classes.
        preprocess: from a PIL image to [c, h, w].
        classes: that the photos are of, where that is known to be what the model should tell apart.
        batch: images at a time.
        progress: called as progress(done, total).

    Raises:
        OneXNError: no photo can be read, or the scores are not finite, no [n, classes], or of another number of
            classes than the photos.
    """
    check_pillow()
    first = fifth = total = 0
    skipped: list[tuple[str, str]] = []
    for start in range(0, len(photos), batch):
        images, labels = [], []
        for path, label in photos[start : start + batch]:
            try:
                images.append(read_photo(path, preprocess))
                labels.append(label)
            except OneXNError as error:
                skipped.append((error.layer, error.reason))
        if images:
            ranked = _ranked(scores(torch.stack(images)), max(labels), classes)
            right = ranked == torch.tensor(labels)[:, None]
            first, fifth, total = first + int(right[:, 0].sum()), fifth + int(right.any(1).sum()), total + len(labels)
        progress(min(start + batch, len(photos)), len(photos))
    if not total:
        raise OneXNError("images", f"none of the {len(photos)} photos can be read", "Give whole image files")
    return Evaluation(Share.of(first, total), Share.of(fifth, total), total, skipped)


def check_scores(scores: Any) -> Tensor:
    """The scores; OneXNError unless they are finite and [n, classes]."""
    if not isinstance(scores, Tensor) or scores.dim() != 2:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise OneXNError("model", f"gives {shape}, not one score per image and class", "Give a classifier")
    if not bool(torch.isfinite(scores).all()):
        raise OneXNError("model", "gives scores that are NaN or infinite", "Check its weights and the preprocessing")
    return scores


def _ranked(scores: Tensor, highest: int, classes: int | None) -> Tensor:
    """The first five classes of each image, int64 [n, 5] (fewer where there are fewer classes)."""
    check_scores(scores)
    if highest >= scores.shape[1]:
        raise OneXNError("images", f"a photo is of class {highest}, and the model knows {scores.shape[1]} classes",
                         "Give the sub-folders of the classes the model was trained on")
    if classes is not None and classes != scores.shape[1]:
        raise OneXNError("images", f"there are {classes} class folders, and the model knows {scores.shape[1]} classes: "
                         "which is which cannot be told", "Give one sub-folder per class of the model, empty ones too")
    return scores.topk(min(5, scores.shape[1])).indices
