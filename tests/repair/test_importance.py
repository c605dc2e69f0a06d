"""What each output channel of a layer means to the network's outputs."""

import torch
from torch import nn

from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.elimination import eliminate, weighted
from onexn_plugins.repair.images import read_images
from onexn_plugins.repair.importance import IMAGES, _shrunk, channel_importance
from tests.repair.networks import photos, residual_net


def linear_importance(net, images):
    return channel_importance(net, read_images(images, net), {"1": net[1]})["1"]


def test_it_is_the_fisher_information_of_the_classes(monkeypatch):
    monkeypatch.setattr("onexn_plugins.repair.importance.IMAGES", 5000)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        net[1].bias.copy_(torch.tensor([2.0, 0.0, 0.0, -1.0]))
    images = torch.randn(5000, 3, 2, 2)
    chances = net(images).softmax(1)
    exact = (chances * (1 - chances)).mean(0)  # E (p − one-hot)²
    torch.testing.assert_close(linear_importance(net, images).float(), exact / exact.mean(), rtol=0.1, atol=0.02)


def test_of_other_outputs_it_is_what_their_squared_error_is():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1, bias=False), nn.Conv2d(4, 5, 3, bias=False))
    net[2].weight.data[:, 1] *= 3
    net[2].weight.data[:, 2] = 0
    found = channel_importance(net, read_images(photos(IMAGES), net), {"1": net[1]})["1"]
    expected = net[2].weight.detach().square().sum((0, 2, 3)).double()
    assert found[1] > 5 * found[0]
    assert 0 < found[2] < 1e-3
    torch.testing.assert_close(found, expected / expected.mean(), rtol=0.3, atol=1e-3)


def test_what_a_few_images_show_by_chance_is_not_taken_for_real():
    """Channels that each mean the same to one image in twenty: on 64 images some seem to be worth four times others."""
    generator = torch.Generator().manual_seed(0)
    squares = (torch.rand(64, 200, generator=generator) < 0.05).double()
    seen, shrunk = squares.mean(0) / squares.mean(), _shrunk(squares) / squares.mean()
    assert float(seen.std()) > 0.5
    assert float(shrunk.std()) < 0.15
    real = torch.linspace(0.2, 5, 200, dtype=torch.float64)
    plain, kept = (20 * squares * real).mean(0), _shrunk(20 * squares * real)
    assert float((kept - real).square().mean()) < 0.5 * float((plain - real).square().mean())


def test_what_all_images_show_stays():
    real = torch.linspace(0.01, 5, 200, dtype=torch.float64)
    squares = real * (1 + 0.1 * torch.randn(64, 200, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(_shrunk(squares), real, rtol=0.05, atol=0.01)
    assert torch.equal(_shrunk(squares[:1]), squares[0]), "one image tells nothing of chance"


def test_the_network_is_as_it_was():
    net = residual_net()
    net[3].expand.weight.requires_grad_(False)
    flags = {name: each.requires_grad for name, each in net.named_parameters()}
    layers = {name: net.get_submodule(name) for name in ("3.expand", "3.project", "5", "9")}
    found = channel_importance(net, read_images(photos(), net), layers)
    assert {name: len(each) for name, each in found.items()} == {"3.expand": 24, "3.project": 12, "5": 18, "9": 6}
    assert {name: each.requires_grad for name, each in net.named_parameters()} == flags
    assert all(each.grad is None for each in net.parameters())
    assert not any(each._forward_hooks for each in net.modules())


def test_it_does_not_hang_on_the_seed_much_nor_on_the_call():
    net = residual_net()
    layers, images = {"3.expand": net[3].expand}, read_images(photos(128), net)
    one, again, other = (channel_importance(net, images, layers, seed=seed)["3.expand"] for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert torch.corrcoef(torch.stack([one.log(), other.log()]))[0, 1] > 0.9


def test_a_network_without_gradients_counts_channels_alike():
    class Rounds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 8, 1)

        def forward(self, x):
            return torch.from_numpy(self.layer(x).detach().numpy().round()).mean((2, 3))

    net, notes = Rounds(), []
    assert channel_importance(net, read_images(photos(), net), {"layer": net.layer}, note=notes.append) == {}
    assert "no gradients" in notes[0]


def test_blocks_of_channels_that_mean_little_go_first():
    torch.manual_seed(0)
    weight, inputs = torch.randn(8, 10, 1, 1), torch.eye(10, dtype=torch.float64)[None]
    importance = torch.tensor([1e-4] * 4 + [1.0] * 4, dtype=torch.float64)
    pattern = BlockPattern.of(weight, 4)
    found = eliminate(weight, pattern, inputs, importance=importance)
    assert found.scores[0].max() < found.scores[1].min()
    same = eliminate(weighted(weight, importance), pattern, inputs)
    assert torch.equal(found.losses, same.losses)
