"""What users of torch-pruning's own pruners write, and expect to work here too."""

from __future__ import annotations

import copy
import io
import json

import pytest
import torch
import torch_pruning as tp
from torch import nn
from torch_pruning.pruner.algorithms.scheduler import linear_scheduler

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.torch_pruning import BlockL1Importance, BlockRandomImportance, BlockScoreImportance, OneXNPruner
from tests.torch_pruning.networks import IMAGES, assert_unchanged, small_net, snapshot


def kept(model: nn.Module) -> dict[str, list[list[bool]]]:
    return {name: mask.keep.tolist() for name, mask in masks(model).items()}


def test_arguments_by_position_stand_in_the_order_of_base_pruner():
    model, other = small_net(), small_net()
    pruner = OneXNPruner(model, IMAGES, BlockL1Importance(), True, 0.6, {"wide": 0.25}, 0.9, 2, linear_scheduler,
                         ["residual"], 2, True, block_size=2)
    same = OneXNPruner(other, IMAGES, block_size=2, global_pruning=True, pruning_ratio=0.6, isomorphic=True,
                       pruning_ratio_dict={"wide": 0.25}, max_pruning_ratio=0.9, iterative_steps=2,
                       ignored_layers=["residual"])
    assert pruner.state_dict() == same.state_dict()
    for each in (pruner, same):
        each.step()
        each.step()
    assert kept(model) == kept(other)
    with pytest.raises(TypeError):
        OneXNPruner(model, IMAGES, BlockL1Importance(), True, 0.6, None, 1.0, 1, linear_scheduler, None, None, False, 4)


def test_round_to_is_accepted_where_the_widths_are_multiples_already():
    model, other = small_net(), small_net()
    OneXNPruner(model, IMAGES, round_to=2).step()
    OneXNPruner(other, IMAGES).step()
    assert kept(model) == kept(other)
    before = snapshot(fresh := small_net())
    with pytest.raises(OneXNError, match="wide keeps its 12 channels, no multiple of 8"):
        OneXNPruner(fresh, IMAGES, round_to=8)
    assert_unchanged(fresh, before)
    OneXNPruner(fresh, IMAGES, round_to=12, ignored_layers=["grouped", "point", "residual"])


def saved_and_loaded(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


@pytest.mark.parametrize("straight_through", [False, True])
def test_a_masked_model_can_be_saved_whole_and_goes_on_training(straight_through):
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, rearrange="sort", straight_through=straight_through)
    pruner.step()
    model.head = model.point  # one layer under two names
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    loaded, its_optimizer = saved_and_loaded((model, optimizer))
    assert loaded.head is loaded.point
    assert kept(loaded) == kept(model)
    assert list(loaded.state_dict()) == list(model.state_dict())
    for each, steps in ((model, optimizer), (loaded, its_optimizer)):
        each.train()(IMAGES).square().sum().backward()
        steps.step()
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    again = copy.deepcopy(loaded)
    OneXNPruner(again, IMAGES, pruning_ratio=0.75).step()
    assert kept(again) != kept(loaded) == kept(model)


def test_a_history_is_replayed_on_a_fresh_model_before_its_state_is_loaded():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, BlockRandomImportance(3), block_size=4, rearrange="sort")
    pruner.step()
    dense = {name: model.get_submodule(name).weight.detach().clone() for name in masks(model)}
    with torch.no_grad():
        model.wide.parametrizations.weight.original.mul_(2)  # training
    history = saved_and_loaded(pruner.pruning_history())
    fresh = small_net()
    second = OneXNPruner(fresh, IMAGES)
    second.load_pruning_history(history)
    assert kept(fresh) == kept(model)
    for name, weight in dense.items():
        assert torch.equal(fresh.get_submodule(name).weight, weight)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh.wide.weight, model.wide.weight)
    assert {name: order.tolist() for name, order in second.permutations.items()} == {
        name: order.tolist() for name, order in pruner.permutations.items()}
    second.load_pruning_history(history)
    assert kept(fresh) == kept(model)


def test_a_history_without_rearrangement_is_json():
    model, fresh = small_net(), small_net()
    pruner = OneXNPruner(model, IMAGES)
    assert pruner.pruning_history() == []
    pruner.step()
    OneXNPruner(fresh, IMAGES).load_pruning_history(json.loads(json.dumps(pruner.pruning_history())))
    assert kept(fresh) == kept(model)


@pytest.mark.parametrize("change", [
    lambda history: 3, lambda history: [["wide", True, [0]]], lambda history: [*history, {}],
    lambda history: [*history, history[1] | {"layer": "wide.0"}],
    lambda history: [*history, history[1] | {"layer": 3}],
    lambda history: [*history, history[1] | {"layer": "norm"}],
    lambda history: [*history, history[1] | {"pruned": [10**6]}],
    lambda history: [*history, history[1] | {"pruned": [-1]}],
    lambda history: [*history, history[1] | {"pruned": ["a"]}],
    lambda history: [*history, history[1] | {"blocks": [1, 2]}],
    lambda history: [*history, history[1] | {"block_size": 64}],
    lambda history: [{"moves": [3]}, *history], lambda history: [{"moves": 3}, *history],
    lambda history: [{"moves": [{"permutation": torch.tensor([0, 0]), "members": []}]}, *history],
])
def test_a_history_that_does_not_fit_is_refused_and_changes_nothing(change):
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, rearrange="sort")
    pruner.step()
    fresh = small_net()
    second, before = OneXNPruner(fresh, IMAGES), snapshot(fresh)
    with pytest.raises(OneXNError):
        second.load_pruning_history(change(pruner.pruning_history()))
    assert_unchanged(fresh, before)


def test_torch_prunings_own_replay_cannot_mistake_a_history_for_channels_to_remove():
    model, fresh = small_net(), small_net()
    pruner = OneXNPruner(model, IMAGES)
    pruner.step()
    graph, before = tp.DependencyGraph().build_dependency(fresh, IMAGES), snapshot(fresh)
    with pytest.raises(ValueError, match="too many values"):
        graph.load_pruning_history(pruner.pruning_history())
    assert_unchanged(fresh, before)


def test_a_history_of_moved_channels_needs_a_model_as_it_was():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, rearrange="sort")
    pruner.step()
    masked = small_net()
    second = OneXNPruner(masked, IMAGES)
    second.step()
    with pytest.raises(OneXNError, match="have moved or carry masks"):
        second.load_pruning_history(pruner.pruning_history())


def test_an_importance_put_in_place_later_scores_this_model():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, iterative_steps=2)
    pruner.importance = BlockScoreImportance("random", seed=4)
    pruner.step()
    assert pruner.importance._model is model
