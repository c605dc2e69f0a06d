"""Whatever holds images, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

pytest.importorskip("PIL")

from PIL import Image

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import tensors_in
from onexn_plugins.masking import masks
from onexn_plugins.repair import repair
from onexn_plugins.repair.images import FEW, Images, Preprocess, read_images
from tests.repair.networks import photos, residual_net


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for number in range(30):
        pixels = generator.integers(0, 255, (24, 30, 3)).astype(np.uint8)
        (tmp_path / f"class{number % 2}").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(tmp_path / f"class{number % 2}" / f"{number}.png")
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 cut")
    (tmp_path / "notes.txt").write_text("no photo")
    return tmp_path


def test_a_folder_with_a_file_that_is_no_image(folder):
    found = read_images(folder, residual_net(), Preprocess(16))
    assert found.count == 30
    assert [path for path, _ in found.skipped] == [str(folder / "cut.jpg")]
    assert found.batches[0].shape == (25, 3, 16, 16)
    assert repair(residual_net(), str(folder), preprocess=Preprocess(16)).skipped == found.skipped


def test_preprocessing_is_that_of_imagenet():
    image = Image.new("RGB", (40, 30), (124, 116, 104))
    assert Preprocess(16)(image).abs().max() < 0.02


@pytest.mark.parametrize("kind", ["tensor", "loader", "pairs", "singles", "tuples", "dicts"])
def test_kinds_of_images(kind):
    images, labels = photos(30), torch.arange(30)
    given = {"tensor": images, "loader": DataLoader(TensorDataset(images, labels), batch_size=8),
             "pairs": [(images[:20], labels[:20]), (images[20:], labels[20:])],
             "singles": TensorDataset(images, labels), "tuples": [(images,)],
             "dicts": [{"input": images[:20]}, {"input": images[20:]}]}[kind]
    found = read_images(given, residual_net())
    assert found.count == 30
    assert sum(len(batch["input"] if isinstance(batch, dict) else batch) for batch in found.batches) == 30


def test_models_with_several_inputs():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, a, b):
            return self.last(torch.relu(self.one(a) + self.two(b))).mean((2, 3))

    net = Two()
    batches = [(torch.randn(10, 8, 4, 4), torch.randn(10, 8, 4, 4)) for _ in range(3)]
    result = repair(net, batches)
    assert result.images == 30
    assert result.steps[1].kl <= result.steps[0].kl


def test_one_image_is_taken_and_said_to_be_few():
    net = residual_net()
    result = repair(net, photos(1, side=4))
    assert any("samples" in note for note in result.notes)
    assert all(bool(torch.isfinite(each).all()) for each in net.state_dict().values())


@pytest.mark.parametrize(("images", "message"), [
    (torch.empty(0, 3, 16, 16), "there are none"), ([], "there are none"), (None, "must be a folder"),
    ("nowhere", "is no folder"), (torch.full((4, 3, 16, 16), float("nan")), "NaN"),
    (torch.randn(4, 5, 16, 16), "forward fails"), ([torch.randn(3, 16, 16), torch.randn(3, 8, 8)], "different shapes"),
    (7, "must be a folder")])
def test_bad_images_leave_the_model_alone(images, message):
    net = residual_net()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(OneXNError, match=message):
        repair(net, images)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_a_folder_without_images(tmp_path):
    with pytest.raises(OneXNError, match="holds no photos"):
        repair(residual_net(), tmp_path)
    (tmp_path / "broken.png").write_bytes(b"")
    with pytest.raises(OneXNError, match="none of its 1 photos can be read"):
        repair(residual_net(), tmp_path)


@pytest.mark.parametrize(("options", "message"), [
    ({"block_size": 40}, "block_size"), ({"pruning_ratio": 1.5}, "from 0 to 1"), ({"pruning_ratio": "much"}, "number"),
    ({"pruning_ratio": {"nothing": 0.5}}, "no layer of this name"), ({"distil_minutes": -1}, "distil_minutes"),
    ({"channels": -0.5}, "channels"), ({"ignored_layers": ["nothing"]}, "no layer of this name")])
def test_bad_options(options, message):
    net = residual_net()
    with pytest.raises(OneXNError, match=message):
        repair(net, photos(), **options)
    assert not masks(net)


def test_activations_that_are_not_finite_name_the_layer():
    net = residual_net()
    with torch.no_grad():
        net[3].norms[1].weight[0] = float("inf")
    with pytest.raises(OneXNError) as error:
        repair(net, photos())
    assert error.value.layer == "3.project"


def test_a_masked_model_is_refused():
    net = residual_net()
    repair(net, photos())
    with pytest.raises(OneXNError, match="fold"):
        repair(net, photos())


def test_dead_channels():
    net = residual_net()
    with torch.no_grad():
        net[3].norms[1].weight[:12] = 0
        net[3].norms[1].bias[:12] = 0
    result = repair(net, photos())
    assert result.steps[1].kl <= result.steps[0].kl
    assert all(bool(torch.isfinite(each).all()) for each in net.state_dict().values())


@pytest.mark.parametrize("batches", [[torch.arange(50.0)[:, None]], [{"x": torch.full((2, 1), float(place))}
                                                                     for place in range(25)]])
def test_images_apart_are_others(batches):
    images = Images(batches, 50)
    rest, few = images.apart(10)
    assert (rest.count, few.count) == (40, 10)
    own, other = ({float(value) for batch in part.batches for value in tensors_in(batch)[0].flatten()}
                  for part in (rest, few))
    assert not own & other
    assert own | other == {float(value) for batch in batches for value in tensors_in(batch)[0].flatten()}


def test_few_images_cannot_be_told_apart():
    images = Images([torch.zeros(3, 1)], 3)
    assert images.apart(10) == (images, images)
    assert [part.count for part in Images([torch.zeros(20, 1)], 20).apart(10)] == [15, 5]


def test_shuffled_images_are_the_same_in_small_batches():
    images = Images([torch.arange(30.0)[:, None], torch.arange(30.0, 50.0)[:, None]], 50)
    found = images.shuffled()
    assert found.count == 50
    assert max(len(batch) for batch in found.batches) == FEW
    values = torch.cat(found.batches).flatten()
    assert not torch.equal(values, torch.arange(50.0))
    assert torch.equal(values.sort().values, torch.arange(50.0))
    assert all(torch.equal(one, other) for one, other in zip(found.batches, images.shuffled().batches, strict=True))
