"""Channels arranged by something other than the L1 norm."""

import pytest
import torch
from torch import nn

from onexn_plugins import rearrange
from onexn_plugins.errors import OneXNError
from onexn_plugins.pattern import BlockPattern


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 8, 3))


def saliency_of(net: nn.Module) -> dict[str, torch.Tensor]:
    """Every fourth row of layer 2 finds the same two inputs a hundred times as important as the others."""
    rows, columns = torch.arange(16)[:, None], torch.arange(8)[None]
    noise = torch.rand(16, 8, generator=torch.Generator().manual_seed(0))
    return {"2": torch.where(columns // 2 == rows % 4, 100.0, 1.0) + noise, "4": torch.ones(8, 16)}


def kept(saliency: torch.Tensor) -> float:
    scores = BlockPattern(16, 8, 4).split(saliency).sum(1).flatten()
    return float(scores.sort(descending=True).values[: len(scores) // 4].sum())


def test_channels_gather_what_the_saliency_says():
    net, images = make_net(), torch.randn(1, 3, 6, 6)
    before, saliency = net(images), saliency_of(net)
    result = rearrange(net, images, pruning_ratio=0.75, saliency=saliency)
    by_l1 = rearrange(make_net(), images, pruning_ratio=0.75)
    orders = [found.permutations.get("2", torch.arange(16)) for found in (result, by_l1)]
    assert kept(saliency["2"][orders[0]]) > 3200  # all that matters
    assert kept(saliency["2"][orders[1]]) < 3200
    torch.testing.assert_close(net(images), before)


@pytest.mark.parametrize(("change", "message"), [
    ({"2": torch.ones(16, 7)}, "must be a tensor"), ({"2": torch.full((16, 8), -1.0)}, "negative"),
    ({"4": torch.full((8, 16), float("nan"))}, "NaN"), ({"4": None}, "must be a tensor")])
def test_bad_saliency_names_the_layer(change, message):
    net = make_net()
    with pytest.raises(OneXNError, match=message) as error:
        rearrange(net, torch.randn(1, 3, 6, 6), saliency=saliency_of(net) | change)
    assert error.value.layer == next(iter(change))


def test_saliency_must_be_a_mapping():
    with pytest.raises(OneXNError, match="must map layers"):
        rearrange(make_net(), torch.randn(1, 3, 6, 6), saliency=torch.ones(3))
