"""Gradual and alternating pruning, blocks that come back, decay of pruned weights, repair, and distillation."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from onexn_plugins import fold, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import dense_weight, masks
from onexn_plugins.training import AlternatingBlocks, Blocks, Distilled, GradualBlocks, Method, RepairedBlocks, train
from onexn_plugins.training.data.images import Request
from tests.training.small import RECIPE, data, images, network
from tests.training.test_loop import StopError, same

EXAMPLE = torch.zeros(1, 3, 8, 8)


def ratios(method: Blocks, steps: int) -> list[float]:
    model = method.prepare(network(), EXAMPLE)
    seen = []
    for step in range(steps):
        method.before_step(step, steps)
        keep = torch.cat([mask.keep.flatten() for mask in masks(model).values()])
        seen.append(1 - float(keep.float().mean()))
    return seen


def test_the_ratio_grows_along_a_cubic_and_stays():
    seen = ratios(GradualBlocks(pruning_ratio=0.8, until=0.5), 20)
    expected = [0.8 * (1 - (1 - min(1.0, step / 10)) ** 3) for step in range(20)]
    assert seen == pytest.approx(expected, abs=0.02)
    assert seen[-1] == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("until", [0.01, 0.5, 1.0])
def test_the_ratio_is_reached_before_the_last_step(steps, until):
    seen = ratios(GradualBlocks(pruning_ratio=0.8, until=until), steps)
    assert seen[-1] == pytest.approx(0.8, abs=0.02)
    assert seen == sorted(seen)


def test_pruned_blocks_stay_pruned_without_straight_through():
    method = GradualBlocks(pruning_ratio=0.8, until=1.0)
    model = method.prepare(network(), EXAMPLE)
    before = {name: mask.keep.clone() for name, mask in masks(model).items()}
    for step in range(10):
        with torch.no_grad():
            for name, _ in masks(model).items():
                dense_weight(model.get_submodule(name)).normal_()
        method.before_step(step, 10)
        for name, mask in masks(model).items():
            assert not (mask.keep & ~before[name]).any()
            before[name] = mask.keep.clone()


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradients_reach_pruned_weights_with_straight_through_alone(straight_through):
    method = GradualBlocks(pruning_ratio=0.5, until=1.0, straight_through=straight_through, rearrange="none")
    model = method.prepare(network(), EXAMPLE)
    method.before_step(9, 10)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for name, mask in masks(model).items():
        gradient = dense_weight(model.get_submodule(name)).grad
        assert bool((gradient[~mask.mask.expand_as(gradient)] != 0).any()) == straight_through


def test_blocks_come_back_with_straight_through():
    method = GradualBlocks(pruning_ratio=0.5, until=1.0, straight_through=True)
    model = method.prepare(network(), EXAMPLE)
    method.before_step(8, 10)
    name, mask = next(iter(masks(model).items()))
    pruned = (~mask.keep).nonzero()[0]
    with torch.no_grad():
        weight = dense_weight(model.get_submodule(name))
        weight[4 * pruned[0] : 4 * pruned[0] + 4, pruned[1]] = 100.0
    method.before_step(9, 10)
    assert mask.keep[tuple(pruned)]


def test_decay_pulls_pruned_weights_alone():
    method = GradualBlocks(pruning_ratio=0.5, until=1.0, straight_through=True, decay=0.1)
    model = method.prepare(network(), EXAMPLE)
    method.before_step(9, 10)
    for name, mask in masks(model).items():
        weight = dense_weight(model.get_submodule(name))
        weight.grad = torch.zeros_like(weight)
        method.before_update()
        pruned = ~mask.mask.expand_as(weight)
        assert torch.equal(weight.grad[pruned], 0.1 * weight.detach()[pruned])
        assert not weight.grad[~pruned].any()


@pytest.mark.parametrize(("kind", "options"), [
    (GradualBlocks, {}), (GradualBlocks, {"straight_through": True, "score": "angular", "scope": "row"}),
    (GradualBlocks, {"straight_through": True, "decay": 2e-4}), (AlternatingBlocks, {"dense_phases": 3})])
def test_a_run_reaches_its_ratio_and_goes_on_where_it_was_stopped(tmp_path, kind, options):
    class Stops(kind):
        def before_step(self, step: int, steps: int) -> None:
            super().before_step(step, steps)
            if step == 10:
                raise StopError

        def settings(self) -> dict[str, object]:
            return {**super().settings(), "method": kind.__name__}

    options = {"pruning_ratio": 0.6, "until": 0.7, **options}
    often = {"save_seconds": 0.0, "log_steps": 1}
    whole = train(network(), data(), RECIPE, tmp_path / "whole", method=kind(**options))
    with pytest.raises(StopError):
        train(network(), data(), RECIPE, tmp_path / "cut", method=Stops(**options), **often)
    resumed = train(network(), data(), RECIPE, tmp_path / "cut", method=kind(**options))
    assert same(whole.model, resumed.model)
    assert measure(fold(whole.model), 4).sparsity.blocks == pytest.approx(0.6, abs=0.03)


def test_dense_and_sparse_phases_take_turns_and_the_last_is_sparse():
    seen = ratios(AlternatingBlocks(pruning_ratio=0.8, until=0.6, dense_phases=2), 15)
    assert [round(ratio / 0.8) for ratio in seen] == [0] * 3 + [1] * 3 + [0] * 3 + [1] * 6
    assert seen[-1] == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("until", [0.01, 1.0])
@pytest.mark.parametrize("phases", [1, 5])
def test_alternating_ends_at_its_ratio_however_few_steps_there_are(steps, until, phases):
    seen = ratios(AlternatingBlocks(pruning_ratio=0.8, until=until, dense_phases=phases), steps)
    assert seen[-1] == pytest.approx(0.8, abs=0.02)


def test_what_was_pruned_starts_from_zero_and_learns_again():
    method = AlternatingBlocks(pruning_ratio=0.5, until=0.5, dense_phases=2)
    model = method.prepare(network(), EXAMPLE)
    method.before_step(2, 12)  # the first sparse phase
    pruned = {name: ~mask.mask.expand_as(dense_weight(model.get_submodule(name))) for name, mask in
              masks(model).items()}
    method.before_step(4, 12)
    model(torch.randn(4, 3, 8, 8)).square().sum().backward()
    for name, each in pruned.items():
        weight = dense_weight(model.get_submodule(name))
        assert not weight[each].any()
        assert weight[~each].all()
        assert weight.grad[each].any()


def divergence(method: Method) -> float:
    """Of what the method makes of a network from what the network gave."""
    start = network().eval()
    inputs = images(augment_seed=None)[Request(0, list(range(60)))].images
    with torch.no_grad():
        before = start(inputs)
        return float((method.prepare(start, EXAMPLE).eval()(inputs) - before).square().mean())


def test_repair_is_a_better_start_and_leaves_as_much():
    repaired = RepairedBlocks(images(), count=40, pruning_ratio=0.5)
    assert divergence(repaired) < divergence(Blocks(pruning_ratio=0.5)) / 2
    model = repaired.prepare(network().eval(), EXAMPLE)
    assert measure(fold(model), 4).sparsity.blocks >= 0.49


def test_channels_go_first_and_training_keeps_what_is_left(tmp_path):
    method = RepairedBlocks(images(), count=40, pruning_ratio=0.6, channels=0.3)
    dense = measure(network(), 4, EXAMPLE).dense_macs
    trained = train(network(), data(), RECIPE, tmp_path / "whole", method=method)
    model = fold(trained.model)
    assert model[3].out_channels == model[5].in_channels < 16
    report = measure(model, 4, EXAMPLE)
    prunable = sum(layer.dense_macs for layer in measure(network(), 4, EXAMPLE).layers if layer.prunable)
    assert dense - report.macs >= 0.59 * prunable
    recipe = dataclasses.replace(RECIPE, epochs=3)
    again = train(network(), data(), recipe, tmp_path / "whole",
                  method=RepairedBlocks(images(), count=40, pruning_ratio=0.6, channels=0.3))
    assert same(model, fold(again.model)), "a run that goes on is cut to the same shapes"


def test_distillation_pulls_towards_the_network_one_started_from(tmp_path):
    recipe = dataclasses.replace(RECIPE, epochs=4, warmup_epochs=0, lr=0.05)
    start = network().eval()
    images = torch.randn(64, 3, 8, 8)

    def distance(method: Method, name: str) -> float:
        trained = train(copy.deepcopy(start), data(), recipe, tmp_path / name, method=method)
        with torch.no_grad():
            return float((trained.model(images) - start(images)).square().mean())

    plain = distance(Blocks(pruning_ratio=0.5), "plain")
    taught = distance(Distilled(Blocks(pruning_ratio=0.5), weight=1.0), "taught")
    assert taught < plain / 2


@pytest.mark.parametrize(("make", "named"), [
    (lambda: GradualBlocks(until=0), "until"), (lambda: GradualBlocks(decay=1.0), "decay"),
    (lambda: GradualBlocks(decay=-1.0, straight_through=True), "decay"),
    (lambda: GradualBlocks(score="random"), "score"), (lambda: AlternatingBlocks(score="obs"), "score"),
    (lambda: AlternatingBlocks(until=2.0), "until"), (lambda: AlternatingBlocks(dense_phases=0), "dense_phases"),
    (lambda: RepairedBlocks(images(), count=61), "repair"), (lambda: RepairedBlocks(images(), count=0), "repair"),
    (lambda: RepairedBlocks(images(), count=9, rearrange="sort"), "rearrange"),
    (lambda: RepairedBlocks(images(), count=9, pruning_ratio=0.5, channels=0.5), "channels"),
    (lambda: RepairedBlocks(images(), count=9, block_size=33), "block_size"),
    (lambda: Distilled(Method(), weight=0), "distillation"),
    (lambda: Distilled(Method(), temperature=0), "distillation"),
    (lambda: Blocks(score="l7"), "score"), (lambda: Blocks(rearrange="shuffle"), "rearrange"),
    (lambda: Blocks(pruning_ratio=2), "pruning_ratio"),
])
def test_bad_options_are_named(make, named):
    with pytest.raises(OneXNError) as caught:
        make()
    assert caught.value.layer == named
