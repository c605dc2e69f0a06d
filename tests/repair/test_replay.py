"""A forward from the middle gives what a whole one gives."""

import pytest
import torch
from torch import nn

from onexn_plugins.repair.replay import Recording
from onexn_plugins.repair.surroundings import surroundings
from tests.repair.networks import photos, residual_net


class InPlace(nn.Module):
    """Changes results in place: right away, and one of before a layer behind it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x):
        x = self.first(x).relu_()
        x = x.add_(self.second(x))
        x[:, 0] = 1.0
        return self.third(x)


@pytest.mark.parametrize("make", [residual_net, InPlace])
def test_a_forward_from_the_middle_gives_what_a_whole_one_gives(make):
    net, images = make().eval(), photos(4)
    weights = {name: each.weight for name, each in net.named_modules() if isinstance(each, (nn.Conv2d, nn.Linear))}
    recording = Recording.of(net, images)
    for name, around in surroundings(net, images, weights).items():
        before = weights[name].detach().clone()
        with torch.no_grad():
            weights[name].mul_(0.7)
            assert torch.equal(recording.again(around.number), net(images)), name
            weights[name].copy_(before)
            assert torch.equal(recording.again(around.number), recording.output), name


def test_what_comes_before_is_not_computed_again():
    net, images = residual_net(), photos(4)
    weights = {"3.project": net[3].project.weight}
    recording = Recording.of(net, images)
    with torch.no_grad():
        net[0].weight.zero_()
    assert torch.equal(recording.again(surroundings(net, images, weights)["3.project"].number), recording.output)
    assert not torch.equal(recording.again(0), recording.output)
