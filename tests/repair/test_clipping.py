"""Layers with a ReLU behind them: fitted to what is seen of them behind it."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from onexn_plugins.layers import mask_for, pattern_of
from onexn_plugins.repair import clipping as clipping_module
from onexn_plugins.repair import sequential
from onexn_plugins.repair.clipping import clipping, unclipped
from onexn_plugins.repair.images import Images
from onexn_plugins.repair.surroundings import Surroundings, clip_limits, surroundings

INF = float("inf")


def test_the_target_is_the_nearest_that_is_clipped_alike():
    generator = torch.Generator().manual_seed(0)
    targets, now = (torch.randn(1, 60, 3, generator=generator, dtype=torch.float64) * 3 for _ in range(2))
    low, high = torch.tensor([[[-1.0, -INF, 0.0]]]), torch.tensor([[[2.0, 1.0, INF]]])
    found = unclipped(targets, now, (low, high))
    torch.testing.assert_close(found.clamp(low, high), targets.clamp(low, high))
    every = torch.linspace(-15, 15, 3001, dtype=torch.float64)[:, None, None, None]
    alike = (every.clamp(low, high) - targets.clamp(low, high)).abs() < 1e-9
    nearest = torch.where(alike, (every - now).abs(), torch.tensor(INF, dtype=torch.float64)).amin(0)
    clipped = (targets < low) | (targets > high)
    assert bool(((found - now).abs() <= nearest + 1e-9)[clipped].all())
    assert torch.equal(found[~clipped], targets[~clipped])


def test_limits_before_a_norm_are_those_behind_it():
    norm = nn.BatchNorm2d(3).eval()
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([2.0, -0.5, 0.0]))
        norm.bias.copy_(torch.tensor([0.3, 1.0, 0.2]))
        norm.running_var.copy_(torch.tensor([0.5, 2.0, 1.0]))
    mean = torch.tensor([0.1, -0.2, 0.4])
    norm.running_mean.copy_(mean)
    low, high = clipping(Surroundings(0, 0, (), norm, None, (0.0, 6.0)), mean, (1, 3))
    values = torch.linspace(-40, 40, 801)[:, None].expand(-1, 3)
    behind = norm.double()(values[:, :, None, None].double())[:, :, 0, 0]
    inside = (values > low[0]) & (values < high[0])
    assert torch.equal(inside[:, :2], ((behind > 0) & (behind < 6))[:, :2])
    assert bool(inside[:, 2].all()), "a channel that the norm switches off is left as it is"
    assert clipping(Surroundings(0, 0, (), norm), mean, (1, 3)) is None


class Clipped(nn.Module):
    """A layer, perhaps a norm, and something behind."""

    def __init__(self, behind, normed: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Conv2d(12, 16, 1, bias=not normed)
        self.norm, self.behind = nn.BatchNorm2d(16) if normed else nn.Identity(), behind
        if normed:
            nn.init.normal_(self.norm.weight)
            nn.init.normal_(self.norm.running_mean)

    def forward(self, x):
        return self.behind(self.norm(self.layer(x)))


@pytest.mark.parametrize("normed", [True, False])
@pytest.mark.parametrize(("behind", "bounds"), [
    (nn.ReLU(), (0, INF)), (nn.ReLU(inplace=True), (0, INF)), (nn.ReLU6(inplace=True), (0, 6)), (F.relu6, (0, 6)),
    (nn.Hardtanh(-2, 3), (-2, 3)), (lambda x: x.clamp(max=4), (-INF, 4)), (lambda x: torch.clip(x, 0, 5), (0, 5)),
    (nn.SiLU(), None), (lambda x: x.clamp(x.mean()), None), (lambda x: torch.relu(x) + x, None),
    (lambda x: x + torch.relu(x), None), (lambda x: (2 * x, torch.relu_(x))[1], None)])
def test_what_clips_a_layer_is_found_where_nothing_else_reads_it(behind, bounds, normed):
    net = Clipped(behind, normed).eval()
    found = surroundings(net, torch.randn(2, 12, 3, 3), {"layer": net.layer.weight})["layer"]
    assert found.bounds == bounds


def test_a_norm_that_is_not_alone_is_not_looked_behind():
    net = Clipped(nn.ReLU()).eval()
    net.forward = lambda x: (lambda y: net.behind(net.norm(y)) + y)(net.layer(x))
    assert surroundings(net, torch.randn(2, 12, 3, 3), {"layer": net.layer.weight})["layer"].bounds is None


def test_functions_that_do_not_clip():
    assert clip_limits("sigmoid", (), {}) is None
    assert clip_limits("hardtanh_", (), {}) == (-1, 1)


@pytest.mark.parametrize("normed", [True, False])
def test_the_error_behind_the_activation_falls(normed, monkeypatch):
    dense = Clipped(nn.ReLU6(), normed).eval()
    with torch.no_grad():  # most outputs are clipped
        (dense.norm if normed else dense.layer).bias.fill_(-0.5)
    images = torch.randn(40, 12, 4, 4) @ torch.randn(4, 4)
    pattern = pattern_of(dense.layer, 4, "layer")
    keep = torch.rand(pattern.shape, generator=torch.Generator().manual_seed(1)) < 0.5

    def error(rounds: int) -> float:
        monkeypatch.setattr(clipping_module, "ROUNDS", rounds)
        pruned = copy.deepcopy(dense)
        around = surroundings(pruned, images[:1], {"layer": pruned.layer.weight})
        sequential.correct_layers(dense, pruned, Images(list(images.split(10)), 40), {"layer": pruned.layer},
                                  {"layer": keep}, around, {"layer": pattern})
        assert bool((pruned.layer.weight[~mask_for(pruned.layer, keep, pattern)] == 0).all())
        with torch.no_grad():
            return float((pruned(images) - dense(images)).square().mean())

    errors = [error(rounds) for rounds in (0, 1, 3)]
    assert errors[1] < errors[0]
    assert errors[2] < errors[1]
