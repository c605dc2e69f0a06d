"""Photos that calibrate, and others that judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from onexn_plugins.evaluation import check_scores, labelled_photos
from onexn_plugins.repair.images import Images, Preprocess
from onexn_plugins.training.data.images import Request
from onexn_plugins.training.data.zipped import read_zip

BATCH = 25
# EfficientNet-Lite's own: (pixels - 127) / 128.
MEAN, STD = (127 / 255,) * 3, (128 / 255,) * 3


@dataclass(frozen=True)
class Photos:
    """
    Attributes:
        calibrate: without labels.
        judge, labels: others. Every other of them chooses between variants, the rest is reported.
    """

    calibrate: Images
    judge: Tensor
    labels: Tensor

    @classmethod
    def read(cls, folder: Path, size: int = 224) -> Photos:
        """One sub-folder per ImageNet class, all 1,000 in sorted order; even classes calibrate, odd ones judge."""
        preprocess, images, labels = Preprocess(size, 0.875, MEAN, STD), [], []
        for path, label in labelled_photos(folder):
            with Image.open(path) as image:
                images.append(preprocess(image))
            labels.append(label)
        every, classes = torch.stack(images), torch.tensor(labels)
        even = classes % 2 == 0
        return cls(Images(list(every[even].split(BATCH)), int(even.sum())), every[~even], classes[~even])

    @classmethod
    def thumbnails(cls, path: Path, calibrate: int = 500, judge: int = 2000) -> Photos:
        """A zip as benchmarks.accuracy takes it: training images calibrate, evenly chosen, held-out ones judge."""
        data = read_zip(path)
        taken, judging = (torch.linspace(0, len(images) - 1, count).long().tolist()
                          for images, count in ((data.training, calibrate), (data.held_out, judge)))
        judged = data.held_out[Request(0, judging)]
        images = data.training[Request(0, taken)].images
        return cls(Images(list(images.split(BATCH)), len(images)), judged.images, judged.labels)

    @property
    def reported(self) -> Tensor:
        """Which of the judging photos are reported, bool."""
        return torch.arange(len(self.labels)) % 2 == 1


def ranks(model: nn.Module, photos: Photos) -> Tensor:
    """Place of the right class among the scores of every judging photo, 0 for the first: int64 [photos].

    In the model's own dtype. Classes of equal scores stand in the order of their numbers, as argmax has them: a network
    that tells nothing apart is right by chance alone.

    Raises:
        OneXNError: a score is not finite.
    """
    places = []
    with torch.inference_mode():
        for images, labels in zip(photos.judge.split(BATCH), photos.labels.split(BATCH), strict=True):
            scores, own = check_scores(model(images)), labels[:, None]
            right = scores.gather(1, own)
            ahead = (scores > right) | ((scores == right) & (torch.arange(scores.shape[1]) < own))
            places.append(ahead.sum(1))
    return torch.cat(places)
