"""Top-1 on the reader's own ImageNet photos, dense and pruned, before any fine-tuning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.report.cells import Cell

CLASSES = 1000
SUFFIXES = {".jpeg", ".jpg", ".png"}
# EfficientNet-Lite's own evaluation shows the network the middle 87.5 % of a photo, scaled to its input.
CROP = 0.875
BATCH = 20


@dataclass(frozen=True)
class Photos:
    """Paths of the photos, the class of each, and the side they are scaled to."""

    folder: str
    paths: Sequence[Path]
    labels: Tensor
    resolution: int

    @classmethod
    def find(cls, folder: Path, resolution: int) -> Photos:
        """One sub-folder per class; in sorted order their places are the ImageNet classes.

        Raises:
            OneXNError: there are not exactly 1000 sub-folders, or no photos in them.
        """
        classes = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if len(classes) != CLASSES:
            raise OneXNError(str(folder), f"has {len(classes)} class folders, not {CLASSES}",
                             "Give a folder with one sub-folder per ImageNet class, such as the validation set's")
        found = [(path, label) for label, name in enumerate(classes) for path in sorted(name.iterdir())
                 if path.suffix.lower() in SUFFIXES]
        if not found:
            raise OneXNError(str(folder), "holds no photos", f"Give files that end in {', '.join(sorted(SUFFIXES))}")
        paths, labels = zip(*found, strict=True)
        return cls(folder.name, paths, torch.tensor(labels), resolution)

    @property
    def note(self) -> str:
        return (f"Top-1: {len(self.paths):,} photos from {self.folder!r}, with the 95 % Wilson interval; without "
                "fine-tuning, which is what wins accuracy back. If the photos are from the training set, the "
                "dense network's figure is too good: read the differences.")

    def batch(self, start: int) -> Tensor:
        """Network input from BATCH photos, float32 [n, 3, side, side]."""
        return torch.stack([_pixels(path, self.resolution) for path in self.paths[start : start + BATCH]])


def top1(model: nn.Module, photos: Photos, progress: Callable[[str], None]) -> Cell:
    """Fraction of the photos whose class the model ranks first, with its 95 % interval."""
    right = 0
    with torch.inference_mode():
        for start in range(0, len(photos.paths), BATCH):
            classes = model(photos.batch(start)).argmax(1)
            right += int((classes == photos.labels[start : start + BATCH]).sum())
            progress(f"{min(start + BATCH, len(photos.paths))} of {len(photos.paths)} photos")
    return wilson(right, len(photos.paths))


def wilson(right: int, total: int) -> dict[str, float]:
    """A rate with its 95 % interval (Wilson 1927), which holds near 0 and 1 too."""
    z, rate = 1.96, right / total
    middle = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z * np.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    return {"value": rate, "low": float(middle - half), "high": float(middle + half)}


def _pixels(path: Path, side: int) -> Tensor:
    image = Image.open(path).convert("RGB")
    crop = int(CROP * min(image.size))
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    image = image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + crop, top + crop))
    return (torch.tensor(np.asarray(image), dtype=torch.float32).permute(2, 0, 1) - 127) / 128
