"""Options of torch-pruning's pruners, one by one: each test fails where its option is ignored."""

from __future__ import annotations

import pytest
import torch
import torch_pruning as tp
from torch import Tensor, nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.selection import keep_highest, limits, num_pruned
from onexn_plugins.torch_pruning import BlockL1Importance, OneXNPruner
from onexn_plugins.torch_pruning.groups import BlockGroup
from onexn_plugins.torch_pruning.importance import block_scores
from tests.torch_pruning.networks import IMAGES, SmallNet, small_net


def pruned(model: nn.Module) -> dict[str, int]:
    return {name: int((~mask.keep).sum()) for name, mask in masks(model).items()}


def blocks(model: nn.Module, block_size: int = 2) -> dict[str, int]:
    pruner = OneXNPruner(model, IMAGES, block_size=block_size)
    return {name: BlockGroup(name, layer, block_size).pattern.num_blocks for name, layer in pruner.layers.items()}


@pytest.mark.parametrize("scope", ["layer", "row"])
def test_no_layer_loses_more_than_the_largest_ratio(scope):
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=2, scope=scope, pruning_ratio=0.9, max_pruning_ratio=0.25).step()
    rows = {name: mask.keep.shape for name, mask in masks(model).items()}
    expected = {name: count * limits(width, 0.0, 0.25)[1] if scope == "row" else limits(count * width, 0.0, 0.25)[1]
                for name, (count, width) in rows.items()}
    assert pruned(model) == expected


def test_the_bounds_of_a_layer_follow_the_schedule():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, block_size=2, scope="global", pruning_ratio=0.6, min_pruning_ratio=0.4,
                         max_pruning_ratio=0.7, iterative_steps=2)
    counts = blocks(small_net())
    for lowest in (0.2, 0.4):
        pruner.step()
        assert all(num_pruned(count, lowest) <= pruned(model)[name] <= num_pruned(count, 0.7)
                   for name, count in counts.items())
        assert sum(pruned(model).values()) == num_pruned(sum(counts.values()), 0.6 * lowest / 0.4)


def test_a_named_ratio_follows_the_schedule_too():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, block_size=2, pruning_ratio=0.5, iterative_steps=2,
                         pruning_ratio_dict={model.point: 0.9, "residual": 0.0})
    counts = blocks(small_net())
    for part in (0.5, 1.0):
        pruner.step()
        ratios = dict.fromkeys(counts, 0.5) | {"point": 0.9, "residual": 0.0}
        assert pruned(model) == {name: num_pruned(count, ratios[name] * part) for name, count in counts.items()}


def test_a_container_gives_its_ratio_to_what_is_inside():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)))
    OneXNPruner(model, IMAGES, block_size=2, pruning_ratio_dict={model[1]: 0.25}).step()
    assert pruned(model) == {"1.0": 8, "1.1": 8}


def test_deprecated_dictionary_of_ratios():
    model = small_net()
    with pytest.warns(UserWarning, match="ch_sparsity_dict is deprecated"):
        OneXNPruner(model, IMAGES, block_size=2, ch_sparsity_dict={"point": 0.25}).step()
    assert pruned(model)["point"] == num_pruned(blocks(small_net())["point"], 0.25)


@pytest.mark.parametrize("importance", [
    tp.importance.MagnitudeImportance(p=2), tp.importance.MagnitudeImportance(p=1, normalizer="max"),
    tp.importance.TaylorImportance(), tp.importance.HessianImportance(), tp.importance.LAMPImportance(),
], ids=["l2", "l1", "taylor", "hessian", "lamp"])
def test_the_blocks_that_stay_are_those_the_importance_ranks_highest(importance):
    def with_gradients():
        model = small_net()
        model(IMAGES).square().sum().backward()
        if isinstance(importance, tp.importance.HessianImportance):
            importance.zero_grad()
            importance.accumulate_grad(model)
        return model

    reference = with_gradients()
    expected = {name: keep_highest(block_scores(importance, BlockGroup(name, reference.get_submodule(name), 2)), 0.5)
                for name in blocks(small_net())}
    model = with_gradients()
    OneXNPruner(model, IMAGES, importance, block_size=2).step()
    found = {name: mask.keep for name, mask in masks(model).items()}
    assert all(torch.equal(found[name], keep) for name, keep in expected.items())
    plain = small_net()
    OneXNPruner(plain, IMAGES, BlockL1Importance(), block_size=2).step()
    same = all(torch.equal(found[name], mask.keep) for name, mask in masks(plain).items())
    assert same == (isinstance(importance, tp.importance.MagnitudeImportance) and importance.p == 1)


def test_importance_of_a_group_of_torch_prunings_own():
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, block_size=3)
    group = pruner.DG.get_pruning_group(model.point, tp.prune_conv_out_channels, list(range(22)))
    expected = BlockL1Importance(block_size=3)(BlockGroup("point", model.point, 3))
    assert torch.equal(pruner.estimate_importance(group), expected)


class Odd(nn.Module):
    """A kind of layer that torch-pruning does not know."""

    def forward(self, features: Tensor) -> Tensor:
        return features * 2.0


class Wrapped(SmallNet):
    """Gives its logits inside an object, which torch-pruning's graph cannot open, and has a loose parameter."""

    class Answer:
        def __init__(self, logits: Tensor) -> None:
            self.logits = logits

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, 10))
        self.odd = Odd()

    def forward(self, images: Tensor) -> Wrapped.Answer:
        return Wrapped.Answer(self.odd(super().forward(images)) + self.shift)


class NothingPruner(tp.BasePruningFunc):
    """torch-pruning's contract for a layer of one's own."""

    def prune_out_channels(self, layer, idxs):
        return layer

    def get_out_channels(self, layer):
        return None

    prune_in_channels, get_in_channels = prune_out_channels, get_out_channels


def test_what_concerns_the_trace_reaches_the_graph():
    torch.manual_seed(0)
    model = Wrapped()
    custom = NothingPruner()
    pruner = OneXNPruner(model, IMAGES, block_size=2, output_transform=lambda answer: answer.logits,
                         unwrapped_parameters={model.shift: 1}, customized_pruners={Odd: custom})
    graph = pruner.DG
    assert model.classifier in graph.module2node
    assert [(parameter is model.shift, dim) for parameter, dim in graph.unwrapped_parameters] == [(True, 1)]
    assert graph.CUSTOMIZED_PRUNERS[Odd] is custom
    assert Odd not in OneXNPruner(small_net(), IMAGES, block_size=2).DG.CUSTOMIZED_PRUNERS
    with pytest.raises(OneXNError, match="cannot trace"):
        _ = OneXNPruner(model, IMAGES, block_size=2).DG  # without output_transform
    pruner.step()
    assert set(masks(model)) == {"wide", "grouped", "point", "residual"}


def test_a_pattern_of_one_prunes_single_kernels():
    model = small_net()
    OneXNPruner(model, IMAGES, block_size=1, pruning_ratio=0.5).step()
    norms = model.point.parametrizations.weight.original.detach().abs().sum((2, 3))
    keep = masks(model)["point"].keep
    assert keep.shape == BlockPattern(22, 18, 1).shape
    assert float(norms[keep].min()) >= float(norms[~keep].max())
