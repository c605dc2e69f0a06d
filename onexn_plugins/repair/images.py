"""Images to calibrate on, as batches of what the model's forward takes; never labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from onexn_plugins.errors import MissingDependencyError, OneXNError, first_line
from onexn_plugins.inputs import call_model, keep_state, map_tensors, tensors_in

SUFFIXES = frozenset([".jpeg", ".jpg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"])
BATCH = 25
FEW = 4


@dataclass(frozen=True)
class Preprocess:
    """From a photo to a network's input: the middle of it, scaled and normalised; ImageNet's usual numbers.

    Attributes:
        size: side of the input in pixels.
        crop: share of the photo's short side that is seen.
        mean, std: per channel, in pixel values from 0 to 1.
    """

    size: int = 224
    crop: float = 0.875
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __call__(self, image: Any) -> Tensor:
        """A PIL image as float32 [3, size, size]."""
        import numpy as np
        from PIL import Image

        image = image.convert("RGB")
        side = self.crop * min(image.size)
        left, top = (image.width - side) / 2, (image.height - side) / 2
        scaled = image.resize((self.size, self.size), Image.Resampling.BICUBIC,
                              box=(left, top, left + side, top + side))
        pixels = torch.from_numpy(np.array(scaled)).permute(2, 0, 1) / 255
        return (pixels - torch.tensor(self.mean)[:, None, None]) / torch.tensor(self.std)[:, None, None]


@dataclass
class Images:
    """Batches in memory.

    Attributes:
        batches: each what forward takes.
        count: images in all.
        skipped: files that could not be read, with the reason.
    """

    batches: list[Any]
    count: int
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def first(self) -> Any:
        """The first image, as a batch of one."""
        return map_tensors(lambda each: each[:1] if each.dim() else each, self.batches[0])

    def shuffled(self) -> Images:
        """The same in random order, in small batches, so that the first of them, however many, show what all do."""
        generator = torch.Generator().manual_seed(0)
        batches = self.batches
        if all(isinstance(batch, Tensor) for batch in batches):
            batches = list(torch.cat(batches).split(1))
        return self._of([batches[place] for place in torch.randperm(len(batches), generator=generator).tolist()])

    def apart(self, count: int) -> tuple[Images, Images]:
        """(the rest, about so many, evenly from all); both are all of them where they cannot be told apart.

        At most a quarter is taken.
        """
        batches = self.batches
        if all(isinstance(batch, Tensor) for batch in batches):
            batches = list(torch.cat(batches).split(1))
        count = min(count * len(batches) // max(1, self.count), len(batches) // 4)
        if not count:
            return self, self
        taken = {int(place * len(batches) / count) for place in range(count)}
        rest, few = ([batch for place, batch in enumerate(batches) if (place in taken) is own]
                     for own in (False, True))
        return self._of(rest), self._of(few)

    def _of(self, batches: list[Any]) -> Images:
        """Some of the batches; single images in small batches."""
        if all(isinstance(batch, Tensor) and len(batch) == 1 for batch in batches):
            batches = list(torch.cat(batches).split(FEW))
        return Images(batches, sum(size_of(batch) for batch in batches), self.skipped)

    def some(self, count: int) -> list[Any]:
        """About so many images, evenly from all batches (for tensors; other batches whole)."""
        if count >= self.count:
            return self.batches
        if all(isinstance(batch, Tensor) for batch in self.batches):
            every = self.count / count
            joined = torch.cat(self.batches)
            return list(joined[[int(place * every) for place in range(count)]].split(FEW))
        return self.batches[:: max(1, round(self.count / count))]


def read_images(images: Any, model: nn.Module, preprocess: Callable[[Any], Tensor] | None = None) -> Images:
    """Whatever holds images, as batches in the dtype and on the device of the model.

    Args:
        images: a folder (read with all its sub-folders), a tensor [n, ...], a DataLoader or any iterable of what
            forward takes. Of an (images, labels) pair the labels are dropped; a single image becomes a batch of one.
        model: that will read them; it is run on the first batch.
        preprocess: from a PIL image to a tensor, for a folder; by default `Preprocess()`.

    Raises:
        OneXNError: there are none, or they hold NaN, or the model does not take them.
    """
    if isinstance(images, (str, os.PathLike)):
        found = _from_folder(Path(images), preprocess or Preprocess())
    elif isinstance(images, Tensor):
        found = Images(list(images.split(BATCH)) if images.dim() and len(images) else [], 0)
    elif isinstance(images, torch.utils.data.Dataset) and not isinstance(images, Iterable):
        found = Images([_without_labels(images[place]) for place in range(len(images))], 0)  # type: ignore[arg-type]
    elif isinstance(images, dict) or not isinstance(images, Iterable):
        raise OneXNError("images", f"must be a folder, a tensor or an iterable of batches, got "
                         f"{type(images).__name__}", "Pass a folder of photos, a tensor or a DataLoader")
    else:
        found = Images([_without_labels(item) for item in images], 0)
    if not found.batches:
        raise OneXNError("images", "there are none", "Give a few hundred photos like those the model will see")
    like = next((each for each in model.parameters() if each.is_floating_point()), torch.zeros(()))
    found.batches = _batched([_moved(batch, like) for batch in found.batches], model)
    found.count = sum(size_of(batch) for batch in found.batches)
    for batch in found.batches:
        if any(bool(~torch.isfinite(each).all()) for each in tensors_in(batch) if each.is_floating_point()):
            raise OneXNError("images", "they hold NaN or infinite values", "Check the preprocessing")
    with keep_state(model):
        call_model(model.eval(), found.batches[0])
    return found


def check_pillow() -> None:
    """Raise MissingDependencyError where photos cannot be read for want of Pillow."""
    try:
        import PIL  # noqa: F401
    except ModuleNotFoundError as error:
        raise MissingDependencyError("pillow", "demo") from error


def read_photo(path: Path, preprocess: Callable[[Any], Tensor]) -> Tensor:
    """A photo as an input.

    Raises:
        OneXNError: it cannot be read; its reason is the decoder's.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            return preprocess(image)
    except Exception as error:  # broken files make decoders raise whatever they like
        raise OneXNError(str(path), first_line(error), "Give a whole image file") from error


def _from_folder(folder: Path, preprocess: Callable[[Any], Tensor]) -> Images:
    check_pillow()
    if not folder.is_dir():
        raise OneXNError(str(folder), "is no folder", "Give a folder of photos; sub-folders are read too")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    if not files:
        raise OneXNError(str(folder), "holds no photos", f"Give files that end in {', '.join(sorted(SUFFIXES))}")
    read, skipped = [], []
    for path in files:
        try:
            read.append(read_photo(path, preprocess))
        except OneXNError as error:
            skipped.append((error.layer, error.reason))
    if not read:
        raise OneXNError(str(folder), f"none of its {len(files)} photos can be read: {skipped[0][1]}",
                         "Give whole image files")
    return Images(list(torch.stack(read).split(BATCH)), 0, skipped)


def _without_labels(item: Any) -> Any:
    """The first of (images, labels); a tuple of several inputs stays."""
    if isinstance(item, (list, tuple)) and item and isinstance(item[0], Tensor):
        rest = [each for each in item[1:] if not (isinstance(each, int) or _is_labels(each, item[0]))]
        return item[0] if not rest else (item[0], *rest)
    return item


def _is_labels(value: Any, images: Tensor) -> bool:
    return isinstance(value, Tensor) and not value.is_floating_point() and value.dim() <= 2 and (
        value.dim() == 0 or len(value) == len(images))


def _moved(batch: Any, like: Tensor) -> Any:
    """On the model's device; floating-point values in its dtype."""
    def moved(tensor: Tensor) -> Tensor:
        return tensor.detach().to(like.device, like.dtype if tensor.is_floating_point() else tensor.dtype)

    return map_tensors(moved, batch)


def _batched(batches: list[Any], model: nn.Module) -> list[Any]:
    """Single images (a Dataset gives them) joined to batches: a Conv2d model that gets three dimensions."""
    first = batches[0]
    dims = 4 if any(isinstance(module, nn.Conv2d) for module in model.modules()) else 0
    if isinstance(first, Tensor) and first.dim() == dims - 1:
        shapes = {each.shape for each in batches}
        if len(shapes) > 1:
            raise OneXNError("images", f"single images of different shapes, {sorted(map(tuple, shapes))[:2]}",
                             "Scale them to one size")
        return list(torch.stack(batches).split(BATCH))
    return batches


def size_of(batch: Any) -> int:
    """Images in a batch."""
    tensors: Sequence[Tensor] = tensors_in(batch)
    return len(tensors[0]) if tensors and tensors[0].dim() else 1
