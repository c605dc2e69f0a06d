"""repair() as a user calls it."""

import copy
import threading

import pytest
import torch
from torch import nn

from onexn_plugins import fold, measure, rearrange
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.pattern import is_block_sparse
from onexn_plugins.repair import repair
from onexn_plugins.repair.divergence import divergence
from onexn_plugins.repair.surroundings import surroundings
from tests.repair.networks import Sequences, photos, residual_net

PRUNED = ["3.expand", "3.project", "4.expand", "4.project", "5"]


def kl(dense, model, images) -> float:
    with torch.no_grad():
        return divergence([dense(images)], [model(images)]).kl


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_repaired_network_is_nearer_to_the_dense_one(dtype):
    net, images = residual_net().to(dtype), photos().to(dtype)
    dense, unrepaired = copy.deepcopy(net), copy.deepcopy(net)
    result = repair(net, images)
    assert sorted(masks(net)) == PRUNED
    for name, mask in masks(net).items():
        unrepaired.get_submodule(name).weight.data.mul_(mask.mask)
    removed, fitted = result.steps[:2]
    assert [step.name for step in result.steps] == [
        "blocks removed", "least squares", "scale of the outputs", "batch-norm statistics"]
    assert fitted.kl <= removed.kl
    assert kl(dense, net, images) < 0.7 * removed.kl
    assert kl(dense, net, photos(seed=9).to(dtype)) < removed.kl
    assert next(net.parameters()).dtype == dtype
    report = measure(fold(net), 4, images[:1])
    assert report.sparsity.blocks == pytest.approx(0.5, abs=0.01)
    assert fitted.macs == report.macs
    dense_macs = sum(layer.dense_macs for layer in report.layers if layer.prunable)
    assert sum(layer.macs for layer in report.layers if layer.prunable) <= 0.53 * dense_macs


def test_every_step_that_is_kept_is_no_worse_than_the_one_before():
    result = repair(residual_net(), photos(), distil_minutes=0.01)
    kept = [step for step in result.steps if step.kept]
    assert [step.kl for step in kept] == sorted((step.kl for step in kept), reverse=True)
    assert [step.agreement for step in kept] == sorted(step.agreement for step in kept)
    assert all(step.seconds >= 0 and 0 <= step.agreement <= 1 for step in result.steps)


def test_ratios_by_name_are_kept_exactly_and_other_layers_stay_dense():
    net = residual_net()
    stem, dense = net[0].weight.clone(), net[3].project.weight.clone()
    result = repair(net, photos(), pruning_ratio={"3.expand": 0.5, "5": 0.25}, rearrange=False)
    assert result.ratios == {"3.expand": 0.5, "5": 0.25}
    found = {layer.name: layer.kept / layer.blocks for layer in measure(net, 4).layers}
    assert found["3.expand"] == 0.5
    assert found["5"] == pytest.approx(0.75, abs=0.02)
    assert torch.equal(net[0].weight, stem)
    assert torch.equal(net[3].project.weight, dense)
    assert result.retained_before is None


def test_depthwise_layers_lose_nothing_and_make_up_for_what_reaches_them():
    net, images = residual_net(), photos()
    dense, pruned = copy.deepcopy(net), copy.deepcopy(net)
    result = repair(net, images, pruning_ratio={"3.expand": 0.5}, rearrange=False)
    assert not torch.equal(net[3].depthwise.weight, dense[3].depthwise.weight)
    assert "3.depthwise" not in masks(net)
    assert torch.equal(net[0].weight, dense[0].weight), "before the first pruned layer nothing changes"
    repair(pruned, images, pruning_ratio={"3.expand": 0.5}, rearrange=False,
           ignored_layers=["3.depthwise", "4.depthwise"])
    assert torch.equal(pruned[3].depthwise.weight, dense[3].depthwise.weight)
    assert kl(dense, net, images) < kl(dense, pruned, images)
    assert result.steps[1].kept


def test_masks_last_through_training():
    net, images = residual_net(), photos()
    repair(net, images)
    optimizer = torch.optim.SGD(net.parameters(), 0.05, momentum=0.9, weight_decay=0.01)
    net.train()
    for _ in range(3):
        optimizer.zero_grad()
        net(images).square().mean().backward()
        optimizer.step()
    for name in PRUNED:
        assert is_block_sparse(net.get_submodule(name).weight, masks(net)[name].pattern)


def test_the_same_seed_gives_the_same_network():
    one, other = residual_net(), residual_net()
    steps = [repair(net, photos(), seed=3).steps for net in (one, other)]
    assert [step.kl for step in steps[0]] == [step.kl for step in steps[1]]
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_the_module_stays_the_one_it_was():
    net = residual_net()
    parameters, keys = {id(each) for each in net.parameters()}, list(net.state_dict())
    net[0].weight.requires_grad_(False)
    net.train()
    repair(net, photos())
    assert net.training
    fold(net)
    assert {id(each) for each in net.parameters()} == parameters
    assert list(net.state_dict()) == keys
    assert not net[0].weight.requires_grad


def test_a_sum_tells_its_layer_what_was_there_before():
    net = residual_net()
    weights = {name: net.get_submodule(name).weight for name in PRUNED}
    found = surroundings(net, photos(1), weights)
    assert [name for name, around in found.items() if around.skip is not None] == ["3.project", "4.project"]
    assert found["3.project"].norm is net[3].norms[2]
    assert found["5"].norm is None


def test_a_layer_behind_a_damaged_skip_makes_up_for_it():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)

        def forward(self, x):
            x = self.first(x)
            return x + self.second(x)

    net, images = Sum(), torch.randn(20, 8, 6, 6)
    dense, plain = copy.deepcopy(net), copy.deepcopy(net)
    repair(net, images, pruning_ratio={"first": 0.5, "second": 0.0}, rearrange=False)
    repair(plain, images, pruning_ratio={"first": 0.5}, rearrange=False)
    assert kl(dense, net, images) < 0.9 * kl(dense, plain, images)


def test_linear_layers_and_outputs_without_classes():
    net, tokens = Sequences(), torch.randn(40, 7, 10)
    result = repair(net, tokens, pruning_ratio=0.5)
    assert sorted(masks(net)) == ["first", "head", "second"]
    mapped = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
    result = repair(mapped, photos(30))
    assert result.steps[1].agreement is None
    assert result.steps[1].kl < result.steps[0].kl


def test_a_rearranged_model_is_repaired_as_well():
    net = residual_net()
    rearrange(net, photos(1))
    result = repair(net, photos())
    assert result.steps[1].kl <= result.steps[0].kl


def test_networks_without_a_place_for_a_shift():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1, bias=False), nn.ReLU(),
                        nn.Conv2d(8, 6, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    result = repair(net, photos(30), block_size=2)
    assert result.steps[1].kl <= result.steps[0].kl


@pytest.mark.parametrize("kind", ["interrupted", "failed"])
def test_the_model_is_as_it_was_after_a_failure(kind, monkeypatch):
    from onexn_plugins.repair import commit

    net = residual_net()
    before = copy.deepcopy(net.state_dict())
    attached = []

    def attach(layer, keep, block_size, name):
        if attached:
            raise KeyboardInterrupt if kind == "interrupted" else OneXNError(name, "fails", "Try again")
        attached.append(inner(layer, keep, block_size, name))

    inner = commit.attach
    monkeypatch.setattr(commit, "attach", attach)
    with pytest.raises((KeyboardInterrupt, OneXNError)):
        repair(net, photos())
    assert not masks(net)
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())


def test_memory_is_bounded_by_fitting_on_fewer_images(monkeypatch):
    net, images = residual_net(), photos()
    around = surroundings(net, images[:1], {name: net.get_submodule(name).weight for name in PRUNED})
    assert around["3.project"].bytes == 24 * 8 * 8 * 4
    monkeypatch.setattr("onexn_plugins.repair.abreast.MEMORY", 20 * 2 * 3 * 24 * 8 * 8 * 4)
    result = repair(net, images)
    assert result.notes[0].startswith("20 of 48 images are fitted on")
    assert result.steps[1].kl <= result.steps[0].kl


def test_an_interruption_in_the_middle_of_a_pass_ends_its_threads():
    before = threading.active_count()

    def interrupt(done, total, what):
        if what == "correction: 4.expand":
            raise KeyboardInterrupt

    net = residual_net()
    with pytest.raises(KeyboardInterrupt):
        repair(net, photos(), progress=interrupt)
    assert threading.active_count() == before
    assert not masks(net)
