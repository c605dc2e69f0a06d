"""A tiny image folder of the kind ImageNet is kept in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("apple", "berry", "cherry")


def make_folder(path: Path, *, training: int = 3, held_out: int = 2, pixels: int = 40, seed: int = 0) -> Path:
    """`training` and `held_out` images of each class, each class a colour in noise."""
    random = np.random.default_rng(seed)
    for part, count in (("train", training), ("val", held_out)):
        for label, name in enumerate(CLASSES):
            folder = path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = random.integers(0, 120, (pixels, pixels, 3), dtype=np.uint8)
                image[:, :, label] += 90
                Image.fromarray(image).save(folder / f"{number}.png")
    return path
