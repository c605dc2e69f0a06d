"""Images of any size in a folder per class, as ImageNet lies on disk; read when they are needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onexn_plugins.errors import OneXNError
from onexn_plugins.repair.images import SUFFIXES
from onexn_plugins.training.data.images import IGNORED, Batch, ImageData, Images, Request, check_count, stream
from onexn_plugins.zoo import import_torchvision

# The names that the parts have on disk, the paper's code's own among them.
TRAINING, HELD_OUT = ("train", "ILSVRC2012_img_train"), ("val", "test", "ILSVRC2012_img_val")
# ImageNet's mean and deviation per channel, which published weights were trained with.
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
# Evaluation scales the short side to this much more than the crop (256 for 224).
MARGIN = 256 / 224
# So many unreadable images in a row are no accident.
PATIENCE = 50


class FolderImages(Images):
    """Images in class folders.

    Args:
        files: path and label of each.
        classes: names of the labels.
        pixels: side of the square that the network sees.
        augment_seed: a random part of each image, flipped half the time, drawn anew every epoch; None: the middle.

    An image that cannot be read is skipped and named in the batch: in training the next one takes its place, in
    evaluation it is not counted.
    """

    def __init__(self, files: Sequence[tuple[str, int]], classes: Sequence[str], pixels: int,
                 augment_seed: int | None = None) -> None:
        check_count("pixels", pixels, 1)
        self.files, self.classes, self.shape = files, classes, (3, pixels, pixels)
        self._seed, self._transform = augment_seed, _transform(pixels, augment_seed is not None)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, request: Request) -> Batch:  # type: ignore[override]
        unreadable: list[str] = []
        read = [self._read(number, request.epoch, unreadable) for number in request.numbers]
        images = torch.stack([image for image, _ in read]) if read else torch.empty(0, *self.shape)
        return Batch(images, torch.tensor([label for _, label in read], dtype=torch.int64), unreadable)

    def _read(self, number: int, epoch: int, unreadable: list[str]) -> tuple[Tensor, int]:
        failed: list[str] = []
        while len(failed) < PATIENCE:
            path, label = self.files[(number + len(failed)) % len(self.files)]
            try:
                image = _decoded(path)
            except Exception:  # broken files make decoders raise whatever they like
                failed.append(path)
                if self._seed is None:
                    break
                continue
            unreadable += failed
            return self._transformed(image, epoch, number), label
        unreadable += failed
        if self._seed is None:
            return torch.zeros(self.shape), IGNORED
        raise OneXNError(failed[0], f"cannot be read as an image, nor can the {PATIENCE - 1} files after it",
                         "Check the disk, or get the images again")

    def _transformed(self, image: Any, epoch: int, number: int) -> Tensor:
        if self._seed is None:
            return self._transform(image)
        with torch.random.fork_rng(devices=()):  # torchvision draws from torch's global stream
            torch.manual_seed(stream(self._seed, epoch, number).initial_seed())
            return self._transform(image)


def read_folder(path: str | os.PathLike[str], *, pixels: int = 224, seed: int = 0) -> ImageData:
    """The images of PATH/train/CLASS/FILE and PATH/val/CLASS/FILE (or test/).

    Args:
        path: of the folder.
        pixels: side of the square that the network sees.
        seed: of the training images' augmentation.

    Raises:
        OneXNError: a part or a class is missing or empty, or the two parts have different classes.
    """
    training, classes = find_files(_part(Path(path), TRAINING))
    return ImageData(FolderImages(training, classes, pixels, seed), read_held_out(path, pixels=pixels, classes=classes))


def read_held_out(path: str | os.PathLike[str], *, pixels: int = 224, classes: Sequence[str] = ()) -> FolderImages:
    """The images to judge by alone: those of PATH/val or PATH/test, or of class folders right in PATH.

    Raises:
        OneXNError: as `read_folder`; also where the classes are not those given.
    """
    path = Path(path)
    inside = any((path / name).is_dir() for name in (*HELD_OUT, *TRAINING))
    folder = _part(path, HELD_OUT) if inside or classes else path
    files, found = find_files(folder)
    if classes and list(classes) != found:
        differing = sorted(set(classes) ^ set(found))
        raise OneXNError(str(folder), f"has {len(found)} classes and the training images {len(classes)}; "
                         f"{differing[0]!r} is in one of them alone", "Give both parts the same class folders")
    return FolderImages(files, found, pixels)


def find_files(folder: Path) -> tuple[list[tuple[str, int]], list[str]]:
    """Path and label of every image, and the class names, both sorted.

    Raises:
        OneXNError: there is no such folder, no class folder in it, or a class without images.
    """
    if not folder.is_dir():
        raise OneXNError(str(folder), "there is no such folder", "Give a folder with one sub-folder per class")
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    if not classes:
        raise OneXNError(str(folder), "has no class folders", "Give a folder with one sub-folder per class")
    files: list[tuple[str, int]] = []
    empty = []
    for label, name in enumerate(classes):
        found = sorted(str(file) for file in (folder / name).rglob("*") if file.suffix.lower() in SUFFIXES)
        files += [(file, label) for file in found]
        empty += [] if found else [name]
    if empty:
        raise OneXNError(str(folder / empty[0]), f"holds no images, and {len(empty)} of {len(classes)} classes are "
                         "like that", "Copy the images again, or remove the empty folders")
    return files, classes


def _part(path: Path, names: Sequence[str]) -> Path:
    if not path.is_dir():
        raise OneXNError(str(path), "there is no such folder", "Give the folder that holds train/ and val/")
    for name in names:
        if (path / name).is_dir():
            return path / name
    raise OneXNError(str(path), f"holds no folder {' or '.join(names)}", "Give the folder that holds train/ and val/")


def _decoded(path: str) -> Any:
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def _transform(pixels: int, augmented: bool) -> Any:
    import_torchvision()
    v2 = import_module("torchvision.transforms.v2")
    cut = ([v2.RandomResizedCrop(pixels), v2.RandomHorizontalFlip()] if augmented
           else [v2.Resize(round(pixels * MARGIN)), v2.CenterCrop(pixels)])
    return v2.Compose([*cut, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, DEVIATION)])
