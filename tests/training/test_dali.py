"""DALI's CPU pipeline, where it is installed, against Pillow and torchvision; a clear refusal where it is not."""

from __future__ import annotations

import importlib.util
import sys

import pytest
import torch

from onexn_plugins.errors import MissingDependencyError
from onexn_plugins.training import Recipe, read_data, train
from onexn_plugins.training.data.dali import read_folder_by_dali
from onexn_plugins.training.data.images import IGNORED, Request
from tests.training.folders import CLASSES, make_folder
from tests.training.small import network

INSTALLED = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
needs_dali = pytest.mark.skipif(not INSTALLED, reason="NVIDIA DALI is not installed")


def test_without_dali_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "nvidia.dali.fn", None)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(MissingDependencyError, match=r"onexn-plugins\[dali\]"):
        read_folder_by_dali(make_folder(tmp_path / "images"))


@needs_dali
def test_dali_reads_what_pillow_reads(tmp_path):
    folder = make_folder(tmp_path / "images", pixels=60)
    ours, theirs = (read(folder, pixels=32, seed=3) for read in (read_data, read_folder_by_dali))
    for one, other, epoch in ((ours.held_out, theirs.held_out, 0), (ours.training, theirs.training, 2)):
        request = Request(epoch, [4, 0, 3])
        mine, dali = one[request], other[request]
        assert torch.equal(mine.labels, dali.labels)
        assert mine.images.shape == dali.images.shape
        assert not torch.equal(mine.images, dali.images), "Pillow stood in for it"
        assert torch.corrcoef(torch.stack([mine.images.flatten(), dali.images.flatten()]))[0, 1] > 0.9
        assert torch.equal(other[Request(epoch, [0])].images[0], dali.images[1]), "alone or in a batch"


@needs_dali
def test_dali_passes_over_broken_images_and_trains(tmp_path):
    folder = make_folder(tmp_path / "images", training=8, held_out=4)
    broken = folder / "val" / CLASSES[1] / "2.png"
    broken.write_bytes(broken.read_bytes()[:60])
    data = read_folder_by_dali(folder, pixels=16)
    batch = data.held_out[Request(0, [6, 7])]
    assert batch.labels.tolist() == [IGNORED, 1]
    assert batch.unreadable == [str(broken)]
    trained = train(network(), data, Recipe(epochs=2, batch_size=8), tmp_path / "run", workers=2)
    assert (trained.accuracy.images, trained.accuracy.unreadable) == (11, 1)
