"""Whole hidden channels and blocks together."""

import copy

import pytest
import torch
from torch import nn

from onexn_plugins import fold, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import prunable_layers
from onexn_plugins.masking import masks
from onexn_plugins.rearrangement import applied_moves, find_spaces
from onexn_plugins.rearrangement.apply import apply_moves
from onexn_plugins.repair import Budget, repair
from onexn_plugins.repair.budget import GRID
from onexn_plugins.repair.channels import cut, hidden_spaces, kept_channels, to_front
from onexn_plugins.repair.elimination import Elimination
from onexn_plugins.repair.harm import Harm
from onexn_plugins.repair.together import shares_of_channels
from tests.repair.networks import photos, residual_net


def test_hidden_channels_are_those_inside_a_block():
    net = residual_net()
    found = hidden_spaces(net, list(find_spaces(net, photos(1)).spaces), prunable_layers(net))
    assert {reader: (each.maker, each.passing) for reader, each in found.items()} == {
        "3.project": ("3.expand", ("3.depthwise",)), "4.project": ("4.expand", ("4.depthwise",))}


def test_channels_that_nothing_reads_can_be_taken_out():
    net, images = residual_net().double(), photos(4).double()
    hidden = hidden_spaces(net, list(find_spaces(net, images[:1]).spaces), prunable_layers(net))["4.project"]
    kept = torch.tensor([1, 2, 5, 7, 11, 13, 17, 23])
    net[4].project.weight.data[:, [each for each in range(24) if each not in kept.tolist()]] = 0
    before, parameters = net(images), {id(each) for each in net.parameters()}
    apply_moves(net, [to_front(hidden, kept)])
    cut(net, hidden, len(kept))
    torch.testing.assert_close(net(images), before)
    assert net[4].expand.out_channels == net[4].depthwise.groups == net[4].project.in_channels == 8
    assert net[4].norms[0].num_features == 8
    assert {id(each) for each in net.parameters()} == parameters


def test_kept_channels_come_in_multiples_of_the_block_size():
    scores = torch.arange(24.0)
    assert kept_channels(scores, 0.5, 4).tolist() == list(range(12, 24))
    assert len(kept_channels(scores, 0.4, 8)) == 16
    assert len(kept_channels(scores, 0.99, 4)) == 4


def test_channels_and_blocks_together():
    net, images = residual_net(), photos()
    dense = copy.deepcopy(net)
    parameters = {id(each) for each in net.parameters()}
    whole = sum(layer.dense_macs for layer in measure(net, 4, images[:1]).layers if layer.prunable)
    result = repair(net, images, channels=0.2, pruning_ratio=0.5)
    assert [step.name for step in result.steps][:3] == ["channels removed", "blocks removed", "least squares"]
    assert result.steps[2].kl <= result.steps[1].kl
    assert net[3].expand.out_channels + net[4].expand.out_channels < 48
    assert net[3].expand.out_channels % 4 == 0
    assert len(masks(net)) == 5
    fold(net)
    left = sum(layer.macs for layer in measure(net, 4, images[:1]).layers if layer.prunable)
    assert left == pytest.approx(0.5 * whole, rel=0.1)
    assert {id(each) for each in net.parameters()} == parameters
    assert net(images).shape == dense(images).shape
    net.train()
    net(images).sum().backward()
    assert net[3].expand.weight.grad.shape == net[3].expand.weight.shape


def test_channels_are_planned_with_the_blocks():
    net, images = residual_net(), photos()
    whole = sum(layer.dense_macs for layer in measure(net, 4, images[:1]).layers if layer.prunable)
    result = repair(net, images, channels="auto", pruning_ratio=0.6)
    assert set(result.channels) <= {"3.expand", "4.expand"}
    for name, share in result.channels.items():
        assert net.get_submodule(name).out_channels == round(24 * (1 - share))
    left = sum(layer.macs for layer in measure(fold(net), 4, images[:1]).layers if layer.prunable)
    assert left == pytest.approx(0.4 * whole, rel=0.1)


@pytest.mark.parametrize("rearrange", [True, False])
def test_channels_are_weighed_against_blocks_of_the_rearranged_network(rearrange, monkeypatch):
    from onexn_plugins.repair import run

    seen = []

    def planned(work, share, ratio):
        seen.append(bool(applied_moves(work.student)))
        with torch.no_grad():
            torch.testing.assert_close(work.dense(photos(4)), residual_net()(photos(4)))
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "remove_channels", planned)
    with pytest.raises(KeyboardInterrupt):
        repair(residual_net(), photos(), channels="auto", rearrange=rearrange)
    assert seen == [rearrange]


def test_channels_and_blocks_meet_one_budget():
    net, images = residual_net(), photos()
    wanted = 0.6 * measure(net, 4, images[:1]).dense_macs
    repair(net, images, channels="auto", pruning_ratio=Budget(macs=wanted))
    assert measure(fold(net), 4, images[:1]).macs == pytest.approx(wanted, rel=0.03)  # a block of 5 is 2 %


@pytest.mark.parametrize("cheap", ["columns", "blocks"])
def test_the_plan_takes_what_loses_less(cheap):
    """Columns that mean nothing go whole; where single blocks mean nothing and no column does, channels stay."""
    net = residual_net()
    hidden = {"4.project": hidden_spaces(net, list(find_spaces(net, photos(1)).spaces), prunable_layers(net))[
        "4.project"]}
    generator = torch.Generator().manual_seed(0)
    makes = torch.rand(6, 12, generator=generator, dtype=torch.float64) + 1
    reads = torch.rand(3, 24, generator=generator, dtype=torch.float64) + 1
    if cheap == "columns":
        reads[:, ::2], column = 1e-6, torch.tensor([1e-6, 3.0] * 12, dtype=torch.float64)[None]
    else:
        reads[torch.arange(24) % 3, torch.arange(24)] = makes[:, ::2] = 1e-6
        column = torch.full((1, 24), 50.0, dtype=torch.float64)
    blocks = {"4.expand": Elimination(makes, makes), "4.project": Elimination(reads, reads)}
    prices, columns = dict.fromkeys(blocks, 100 * (1 - GRID)), {"4.project": Elimination(column, column)}
    shares, whole = (shares_of_channels(hidden, blocks, columns, dict.fromkeys(blocks, Harm((1.0,), (1.0,))), prices,
                                        {"4.depthwise": 30.0}, budget) for budget in (0.6 * 230, 230.0))
    assert (shares["4.project"] > 0.35) is (cheap == "columns")
    assert whole == {"4.project": 0.0}


def test_a_failure_gives_the_channels_back(monkeypatch):
    from onexn_plugins.repair import commit

    net = residual_net()
    net(photos(2)).sum().backward()
    before, gradient = copy.deepcopy(net.state_dict()), net[3].expand.weight.grad.clone()

    def attach(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(commit, "attach", attach)
    with pytest.raises(KeyboardInterrupt):
        repair(net, photos(), channels=0.2)
    assert net[3].expand.out_channels == net[3].depthwise.groups == 24
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert torch.equal(net[3].expand.weight.grad, gradient)


@pytest.mark.parametrize(("options", "message"), [
    ({"channels": "auto", "pruning_ratio": {"5": 0.5}}, "planned together"),
    ({"channels": 0.6}, "leaves nothing to blocks"), ({"channels": "some"}, "channels"),
    ({"channels": 0.2, "checkpoint": "x.safetensors"}, "no longer fits")])
def test_bad_shares(options, message):
    with pytest.raises(OneXNError, match=message):
        repair(residual_net(), photos(), **options)


def test_a_model_without_hidden_channels():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(OneXNError, match="no hidden channels"):
        repair(net, photos(), channels=0.2)
    result = repair(net, photos(), channels="auto")
    assert not result.channels
    assert any("no channels are removed" in note for note in result.notes)
