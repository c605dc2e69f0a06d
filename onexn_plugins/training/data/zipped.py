"""Small images of one size from a zip of class folders, decoded once and kept in memory as bytes."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from onexn_plugins.errors import MissingDependencyError, OneXNError, first_line
from onexn_plugins.files import written_aside
from onexn_plugins.training.data.images import Batch, ImageData, Images, Request, stream

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
SPLITS = {"training": ("train",), "held_out": ("val", "test")}
PAD = 4  # a training image is shifted by up to this many pixels, and flipped half the time


class PixelImages(Images):
    """Images in memory, normalised by the training images' mean and deviation per channel.

    Args:
        pixels: uint8 [n, channels, height, width].
        labels: int64 [n].
        classes: names of the labels.
        mean, deviation: float32 [channels], of pixels from 0 to 255.
        augment_seed: flip and shift each image, drawn anew every epoch; None: leave them as they are.
    """

    def __init__(self, pixels: Tensor, labels: Tensor, classes: Sequence[str], mean: Tensor, deviation: Tensor,
                 augment_seed: int | None = None) -> None:
        self.pixels, self.labels, self.classes = pixels, labels, classes
        self.shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        self._mean, self._deviation = mean.reshape(1, -1, 1, 1), deviation.reshape(1, -1, 1, 1)
        self._seed = augment_seed
        self._draws: tuple[int, Tensor] = (-1, torch.empty(0))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, request: Request) -> Batch:  # type: ignore[override]
        numbers = torch.tensor(request.numbers, dtype=torch.int64)  # there may be none
        pixels = self.pixels[numbers]
        if self._seed is not None:
            pixels = _shifted(pixels, self._drawn(request.epoch)[numbers])
        return Batch((pixels.float() - self._mean) / self._deviation, self.labels[numbers], [])

    def _drawn(self, epoch: int) -> Tensor:
        """Shift down, shift right and flip of every image in this epoch, int64 [n, 3]."""
        if self._draws[0] != epoch:
            assert self._seed is not None
            generator, count = stream(self._seed, epoch, 1), len(self)
            shifts = torch.randint(2 * PAD + 1, (count, 2), generator=generator)
            self._draws = epoch, torch.cat([shifts, torch.randint(2, (count, 1), generator=generator)], 1)
        return self._draws[1]


def read_zip(path: str | os.PathLike[str], *, seed: int = 0, cache: Path | None = None) -> ImageData:
    """The images of a zip with train/CLASS/FILE and test/CLASS/FILE (or val/), all of one size.

    Decoded pixels are kept in the user's cache folder under a name that stands for the zip's content.

    Args:
        path: the zip.
        seed: of the training images' augmentation.
        cache: where decoded pixels are kept; default $XDG_CACHE_HOME/onexn-plugins or ~/.cache/onexn-plugins.

    Raises:
        OneXNError: there is no such zip, it lacks a split or a class, or an image cannot be read or differs in size.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist() if member.filename.lower().endswith(SUFFIXES)]
            key = hashlib.sha256(repr([(member.filename, member.CRC) for member in members]).encode()).hexdigest()[:16]
            kept = (cache or cache_folder()) / f"{path.stem}-{key}.safetensors"
            tensors, classes = _read(kept) if kept.is_file() else _decode(path, archive, members, kept)
    except (OSError, zipfile.BadZipFile) as error:
        raise OneXNError(str(path), f"cannot be read as a zip of images: {error}",
                         "Give a zip with train/CLASS/FILE and test/CLASS/FILE in it, or a folder like that") from error
    pixels = tensors["training_pixels"]
    sample = pixels[:: max(1, len(pixels) // 10000)].float()
    mean, deviation = sample.mean((0, 2, 3)), sample.std((0, 2, 3)).clamp_min(1e-3)
    training, held_out = (
        PixelImages(tensors[f"{part}_pixels"], tensors[f"{part}_labels"], classes, mean, deviation, augment_seed)
        for part, augment_seed in (("training", seed), ("held_out", None)))
    return ImageData(training, held_out)


def cache_folder() -> Path:
    """Where what can be made again is kept: $XDG_CACHE_HOME/onexn-plugins, by default ~/.cache/onexn-plugins."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onexn-plugins"


def _read(kept: Path) -> tuple[dict[str, Tensor], list[str]]:
    from safetensors import safe_open

    with safe_open(kept, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()["classes"].split("\n")  # noqa: SIM118


def _decode(path: Path, archive: zipfile.ZipFile, members: list[zipfile.ZipInfo],
            kept: Path) -> tuple[dict[str, Tensor], list[str]]:
    from safetensors.torch import save_file

    classes = sorted({Path(member.filename).parent.name for member in members})
    parts = {part: [member for member in members if Path(member.filename).parent.parent.name in names]
             for part, names in SPLITS.items()}
    for part, chosen in parts.items():
        empty = sorted(set(classes) - {Path(member.filename).parent.name for member in chosen})
        if not chosen or empty:
            raise OneXNError(str(path), f"has no images in {' or '.join(SPLITS[part])}/{empty[0] if empty else ''}",
                             "Give a zip with train/CLASS/FILE and test/CLASS/FILE in it")
    tensors = {}
    for part, chosen in parts.items():
        arrays = [_pixels(archive, member, path) for member in chosen]
        odd = next((member.filename for member, array in zip(chosen, arrays, strict=True)
                    if array.shape != arrays[0].shape), None)
        if odd:
            raise OneXNError(f"{path}: {odd}", "differs in size from the others",
                             "Unpack the zip: images in a folder may have any size")
        tensors[f"{part}_pixels"] = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).contiguous()
        tensors[f"{part}_labels"] = torch.tensor([classes.index(Path(member.filename).parent.name)
                                                  for member in chosen])
    kept.parent.mkdir(parents=True, exist_ok=True)
    with written_aside(kept) as aside:
        save_file(tensors, aside, {"classes": "\n".join(classes)})
    return tensors, classes


def _pixels(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> np.ndarray:
    """uint8 [height, width, 3]."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pillow", "train") from error
    try:
        return np.asarray(Image.open(io.BytesIO(archive.read(member))).convert("RGB"))
    except Exception as error:  # broken files make decoders raise whatever they like
        raise OneXNError(f"{path}: {member.filename}", f"is no image that can be read: {first_line(error)}",
                         "Take it out of the zip, or get the zip again") from error


def _shifted(pixels: Tensor, draws: Tensor) -> Tensor:
    """Each image cut from itself with PAD black pixels around it, and mirrored where draws say so."""
    count, _, height, width = pixels.shape
    padded = F.pad(pixels, (PAD, PAD, PAD, PAD))
    down, right, flip = draws.unbind(1)
    rows = down[:, None] + torch.arange(height)
    across = torch.arange(width)
    columns = right[:, None] + torch.where(flip[:, None] > 0, across.flip(0), across)
    image = torch.arange(count)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
