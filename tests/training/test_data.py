"""Images from folders and zips: what is read, in which order, and what is refused."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from onexn_plugins.errors import OneXNError
from onexn_plugins.training import Recipe, read_data, read_evaluation, train
from onexn_plugins.training.data.images import IGNORED, Request, Requests
from onexn_plugins.training.log import read_lines
from tests.training.folders import CLASSES, make_folder
from tests.training.small import network


def zipped(folder: Path, path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            archive.write(file, file.relative_to(folder))
    return path


def test_a_folder_is_read_in_order(tmp_path):
    data = read_data(make_folder(tmp_path / "images", training=4, held_out=2), pixels=16)
    assert list(data.training.classes) == list(CLASSES)
    assert (len(data.training), len(data.held_out)) == (12, 6)
    batch = data.held_out[Request(0, [0, 5, 3])]
    assert batch.labels.tolist() == [0, 2, 1]
    assert batch.images.shape == (3, 3, 16, 16)
    assert batch.images.dtype == torch.float32


@pytest.mark.parametrize(("names", "training"), [(("ILSVRC2012_img_train", "val"), 4), (("train", "test"), 4)])
def test_the_papers_folder_names_are_known(tmp_path, names, training):
    folder = make_folder(tmp_path / "images", training=training)
    (folder / "train").rename(folder / names[0])
    (folder / "val").rename(folder / names[1])
    assert len(read_data(folder, pixels=16).training) == 12


def test_augmentation_depends_on_seed_epoch_and_image_alone(tmp_path):
    folder = make_folder(tmp_path / "images", training=4)
    for source in (folder, zipped(folder, tmp_path / "images.zip")):
        images = read_data(source, pixels=16, seed=3).training
        first = images[Request(2, [5, 1])].images
        torch.rand(3)
        images[Request(1, [0])]
        assert torch.equal(images[Request(2, [1, 5])].images, first.flip(0))
        assert not torch.equal(images[Request(3, [5, 1])].images, first)
        assert not torch.equal(read_data(source, pixels=16, seed=4).training[Request(2, [5, 1])].images, first)


def test_reading_leaves_the_global_random_stream_alone(tmp_path):
    data = read_data(make_folder(tmp_path / "images"), pixels=16)
    before = torch.get_rng_state()
    data.training[Request(0, [0, 1])]
    assert torch.equal(torch.get_rng_state(), before)


def test_a_zip_is_decoded_once_and_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = zipped(make_folder(tmp_path / "images", pixels=16), tmp_path / "images.zip")
    first = read_data(path).held_out
    kept = list((tmp_path / "cache" / "onexn-plugins").glob("images-*.safetensors"))
    assert len(kept) == 1
    again = read_data(path).held_out
    assert torch.equal(first.pixels, again.pixels)  # type: ignore[attr-defined]
    assert list(again.classes) == list(CLASSES)
    zipped(make_folder(tmp_path / "others", pixels=16, seed=9), path)
    assert not torch.equal(read_data(path).held_out.pixels, first.pixels)  # type: ignore[attr-defined]


def test_normalised_pixels_have_mean_zero(tmp_path):
    images = read_data(zipped(make_folder(tmp_path / "images", training=30, pixels=16), tmp_path / "i.zip")).held_out
    batch = images[Request(0, list(range(len(images))))]
    assert abs(float(batch.images.mean())) < 0.2
    assert float(batch.images.std()) == pytest.approx(1, abs=0.2)


def test_corrupt_images_are_skipped_and_counted(tmp_path):
    folder = make_folder(tmp_path / "images", training=8, held_out=4, pixels=16)
    broken = [folder / "train" / CLASSES[0] / "0.png", folder / "val" / CLASSES[1] / "2.png"]
    broken[0].write_bytes(b"no image")
    broken[1].write_bytes(broken[1].read_bytes()[:40])
    data = read_data(folder, pixels=16)
    batch = data.training[Request(0, [0, 1])]
    assert batch.unreadable == [str(broken[0])]
    assert batch.labels.tolist() == [0, 0]
    assert data.held_out[Request(0, [5, 6])].labels.tolist() == [1, IGNORED]
    trained = train(network(), data, Recipe(epochs=2, batch_size=24), tmp_path / "run")
    assert [entry["unreadable"] for entry in trained.history] == [1, 1]
    assert (trained.accuracy.images, trained.accuracy.unreadable) == (11, 1)
    named = [line for line in read_lines(tmp_path / "run" / "log.jsonl") if line["event"] == "unreadable"]
    assert named[0]["files"] == [str(broken[0])]


def test_a_folder_of_broken_images_is_an_error(tmp_path):
    folder = make_folder(tmp_path / "images")
    for file in folder.rglob("*.png"):
        file.write_bytes(b"x")
    data = read_data(folder, pixels=16)
    with pytest.raises(OneXNError, match="nor can the 49 files after it"):
        data.training[Request(0, [0])]
    with pytest.raises(OneXNError, match="none of 6 could be read"):
        from onexn_plugins.training import evaluate, start_fabric

        fabric = start_fabric(device="cpu")
        evaluate(fabric, fabric.setup(network()), data.held_out)


def test_held_out_images_alone(tmp_path):
    folder = make_folder(tmp_path / "images")
    assert len(read_evaluation(folder, pixels=16)) == len(read_evaluation(folder / "val", pixels=16)) == 6


def missing_part(folder: Path) -> None:
    (folder / "val").rename(folder / "other")


def empty_class(folder: Path) -> None:
    for file in (folder / "train" / CLASSES[1]).iterdir():
        file.unlink()


def missing_class(folder: Path) -> None:
    (folder / "val" / CLASSES[1]).rename(folder / "gone")


def no_classes(folder: Path) -> None:
    (folder / "train").rename(folder / "old")
    (folder / "train").mkdir()


@pytest.mark.parametrize(("harm", "message"), [
    (missing_part, "holds no folder val or test"), (empty_class, "holds no images, and 1 of 3"),
    (missing_class, "has 2 classes and the training images 3"), (no_classes, "has no class folders"),
])
def test_half_a_folder_is_refused(tmp_path, harm, message):
    folder = make_folder(tmp_path / "images")
    harm(folder)
    with pytest.raises(OneXNError, match=message):
        read_data(folder)


def test_a_missing_folder_or_zip_is_named(tmp_path):
    for name in ("nowhere", "nowhere.zip"):
        with pytest.raises(OneXNError, match="nowhere"):
            read_data(tmp_path / name)


def test_bad_zips_are_refused(tmp_path):
    folder = make_folder(tmp_path / "images", pixels=16)
    (tmp_path / "text.zip").write_text("no zip")
    with pytest.raises(OneXNError, match="cannot be read as a zip"):
        read_data(tmp_path / "text.zip")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "train" / CLASSES[0] / "0.png")
    with pytest.raises(OneXNError, match="differs in size"):
        read_data(zipped(folder, tmp_path / "odd.zip"))
    (folder / "train" / CLASSES[0] / "0.png").write_bytes(b"x")
    with pytest.raises(OneXNError, match="is no image"):
        read_data(zipped(folder, tmp_path / "broken.zip"))
    for file in (folder / "val" / CLASSES[0]).iterdir():
        file.unlink()
    with pytest.raises(OneXNError, match="has no images in val or test"):
        read_data(zipped(folder, tmp_path / "half.zip"))


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_processes_share_every_batch(ranks):
    whole = list(Requests(50, 8, epoch=3, seed=1))
    shares = [list(Requests(50, 8, epoch=3, seed=1, rank=rank, ranks=ranks)) for rank in range(ranks)]
    for step, request in enumerate(whole):
        assert sorted(number for share in shares for number in share[step].numbers) == sorted(request.numbers)
    assert len(whole) == 6, "the rest of the epoch is too few for a batch"


def test_evaluation_sees_each_image_once():
    numbers = [number for rank in range(3) for request in Requests(50, 9, rank=rank, ranks=3)
               for number in request.numbers]
    assert sorted(numbers) == list(range(50))
