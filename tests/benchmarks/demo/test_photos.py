"""Top-1 on photos: the classes are the folders in order, and what is not ImageNet is refused."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.demo.photos import CLASSES, Photos, top1, wilson
from onexn_plugins.errors import OneXNError


@pytest.fixture
def folder(tmp_path):
    """Class folders, four of them with one photo each: dark in class 3, bright in the others."""
    for label in range(CLASSES):
        (tmp_path / f"n{label:08d}").mkdir()
    for label, shade in ((3, 0), (7, 255), (500, 255), (999, 255)):
        Image.new("RGB", (40, 30), (shade,) * 3).save(tmp_path / f"n{label:08d}" / "photo.JPEG")
    return tmp_path


class Brightness(nn.Module):
    """Calls dark photos class 3 and bright ones class 7."""

    def forward(self, images):
        scores = torch.zeros(len(images), CLASSES)
        scores[:, 3], scores[:, 7] = -images.mean((1, 2, 3)), images.mean((1, 2, 3))
        return scores


def test_photos_are_scored_by_the_order_of_the_folders(folder):
    photos = Photos.find(folder, resolution=16)
    assert photos.labels.tolist() == [3, 7, 500, 999]
    assert photos.batch(0).shape == (4, 3, 16, 16)
    assert photos.batch(0)[:2].mean((1, 2, 3)).tolist() == pytest.approx([-127 / 128, 1.0])
    assert top1(Brightness(), photos, print)["value"] == 0.5


def test_what_is_not_imagenet_is_refused(folder, tmp_path):
    with pytest.raises(OneXNError, match="0 class folders"):
        Photos.find(tmp_path / "absent", 16)
    (folder / "n00000001").rmdir()
    with pytest.raises(OneXNError, match="999 class folders"):
        Photos.find(folder, 16)


def test_folders_without_photos_are_refused(tmp_path):
    for label in range(CLASSES):
        (tmp_path / str(label)).mkdir()
    with pytest.raises(OneXNError, match="no photos"):
        Photos.find(tmp_path, 16)


@pytest.mark.parametrize(("right", "total", "low", "high"), [(0, 10, 0.0, 0.2775), (50, 100, 0.4038, 0.5962)])
def test_wilson_intervals(right, total, low, high):
    """Against the values of Newcombe, Statistics in Medicine 17 (1998), and R's prop.test without correction."""
    interval = wilson(right, total)
    assert (interval["low"], interval["high"]) == pytest.approx((low, high), abs=1e-4)
