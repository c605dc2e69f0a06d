"""Image folders decoded, cut and scaled by NVIDIA DALI on the CPU, in place of Pillow and torchvision."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onexn_plugins.errors import MissingDependencyError, OneXNError, first_line
from onexn_plugins.training.data.folder import DEVIATION, MARGIN, MEAN, FolderImages, read_folder
from onexn_plugins.training.data.images import Batch, ImageData, Request, stream
from onexn_plugins.zoo import import_torchvision

# Of the image's area and of width to height, what a training image is cut to (Szegedy et al. 2015).
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)


class DaliImages(FolderImages):
    """`FolderImages` by DALI: the same files, order and random cuts; pixels differ a little, as its scaling does.

    DALI reads by threads of its own, one per core. A batch in which it cannot read an image is read by Pillow, which
    finds out which one it is.
    """

    own_threads = True

    def __init__(self, files: Sequence[tuple[str, int]], classes: Sequence[str], pixels: int,
                 augment_seed: int | None = None) -> None:
        super().__init__(files, classes, pixels, augment_seed)
        self._largest, self._pipeline = 0, None

    def __getitem__(self, request: Request) -> Batch:  # type: ignore[override]
        if not request.numbers:
            return super().__getitem__(request)
        try:
            cuts = [self._cut(number, request.epoch) for number in request.numbers]
            encoded = [np.fromfile(self.files[number][0], dtype=np.uint8) for number in request.numbers]
            images = self._run(encoded, cuts)
        except Exception:  # DALI and Pillow raise whatever they like on broken files
            self._pipeline = None  # a pipeline that failed is of no more use
            return super().__getitem__(request)
        labels = torch.tensor([self.files[number][1] for number in request.numbers], dtype=torch.int64)
        return Batch(images, labels, [])

    def _cut(self, number: int, epoch: int) -> tuple[Any, Any, Any]:
        """Corner and size as shares of the image, and whether it is flipped; all of it in evaluation."""
        from PIL import Image

        if self._seed is None:
            return np.zeros(2, np.float32), np.ones(2, np.float32), np.int32(0)
        import_torchvision()
        transforms = import_module("torchvision.transforms")
        with Image.open(self.files[number][0]) as image, torch.random.fork_rng(devices=()):  # reads the header alone
            torch.manual_seed(stream(self._seed, epoch, number).initial_seed())
            top, left, height, width = transforms.RandomResizedCrop.get_params(image, list(AREA), list(ASPECT))
            flipped = int(torch.rand(1) < 0.5)
            full = np.array(image.size, np.float32)
        return np.array([left, top]) / full, np.array([width, height]) / full, np.int32(flipped)

    def _run(self, encoded: list[np.ndarray], cuts: list[tuple[Any, Any, Any]]) -> Tensor:
        if self._pipeline is None or self._largest < len(encoded):
            self._largest, self._pipeline = len(encoded), self.make_pipeline(len(encoded))
        pipeline: Any = self._pipeline
        corners, sizes, flips = zip(*cuts, strict=True)
        for name, values in (("encoded", encoded), ("corner", [corner.astype(np.float32) for corner in corners]),
                             ("size", [size.astype(np.float32) for size in sizes]), ("flip", list(flips))):
            pipeline.feed_input(name, values)
        return torch.from_numpy(np.array(pipeline.run()[0].as_array()))

    def make_pipeline(self, batch_size: int) -> Any:
        """DALI's pipeline for up to so many images."""
        dali, fn, types = (import_module(f"nvidia.dali{part}") for part in ("", ".fn", ".types"))
        pixels = self.shape[1]
        pipeline = dali.Pipeline(batch_size=batch_size, num_threads=_threads(), device_id=None, prefetch_queue_depth=1,
                                 exec_async=False, exec_pipelined=False)
        with pipeline:
            encoded, corner, size, flip = (fn.external_source(name=name) for name in ("encoded", "corner", "size",
                                                                                      "flip"))
            images = fn.decoders.image_slice(encoded, corner, size, normalized_anchor=True, normalized_shape=True,
                                             axis_names="WH", output_type=types.RGB)
            scaled = (fn.resize(images, resize_shorter=round(pixels * MARGIN)) if self._seed is None
                      else fn.resize(images, size=(pixels, pixels)))
            pipeline.set_outputs(fn.crop_mirror_normalize(
                scaled, crop=(pixels, pixels), mirror=flip, mean=[255 * mean for mean in MEAN],
                std=[255 * deviation for deviation in DEVIATION], output_layout="CHW", dtype=types.FLOAT))
        pipeline.build()
        return pipeline


def _threads() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def read_folder_by_dali(path: str | os.PathLike[str], *, pixels: int = 224, seed: int = 0) -> ImageData:
    """As `read_folder`, decoded by DALI.

    Raises:
        MissingDependencyError: NVIDIA DALI is not installed.
        OneXNError: as `read_folder`; or DALI is installed in part only.
    """
    try:
        import_module("nvidia.dali.fn")
    except ModuleNotFoundError as error:
        raise MissingDependencyError("nvidia-dali-cuda120", "dali") from error
    data = read_folder(path, pixels=pixels, seed=seed)
    training, held_out = data.training, data.held_out
    assert isinstance(training, FolderImages)
    assert isinstance(held_out, FolderImages)
    by_dali = ImageData(DaliImages(training.files, training.classes, pixels, seed),
                        DaliImages(held_out.files, held_out.classes, pixels))
    try:
        by_dali.training.make_pipeline(1)  # type: ignore[attr-defined]
    except Exception as error:  # else every batch would be read by Pillow, and nobody would know
        raise OneXNError("NVIDIA DALI", f"cannot decode images here: {first_line(error)}",
                         "Install all that it needs (nvidia-nvimgcodec-cu12), or do without it") from error
    return by_dali
