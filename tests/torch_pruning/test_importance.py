"""Block importances on their own, torch-pruning's importances over blocks, and registration."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch_pruning as tp
from torch import Tensor

from onexn_plugins import scores
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.torch_pruning import (
    BlockGroup,
    BlockImportance,
    BlockL1Importance,
    BlockRandomImportance,
    OneXNPruner,
    register,
)
from onexn_plugins.torch_pruning.importance import block_scores
from tests.torch_pruning.networks import IMAGES, small_net


def group_of_the_graph(model, name):
    graph = tp.DependencyGraph().build_dependency(model, IMAGES)
    layer = model.get_submodule(name)
    return graph.get_pruning_group(layer, tp.prune_conv_out_channels, list(range(layer.out_channels)))


def with_gradients(model):
    model(IMAGES).square().sum().backward()
    return model


def test_l1_on_a_group_of_torch_prunings_own_graph():
    model = small_net()
    group = group_of_the_graph(model, "wide")
    expected = model.wide.weight.detach().double().abs().sum((2, 3))
    by_hand = torch.stack([expected[:5].sum(0), expected[5:10].sum(0), expected[10:].sum(0) * 5 / 2])
    assert torch.allclose(BlockL1Importance(block_size=5)(group), by_hand)
    assert BlockL1Importance()(group).shape == (3, 8)


def test_the_pruners_block_size_holds():
    model = small_net()
    OneXNPruner(model, IMAGES, BlockL1Importance(block_size=4), block_size=2).step()
    assert masks(model)["wide"].keep.shape == (6, 8)


def test_random_scores_depend_on_seed_and_layer_alone():
    model = small_net()
    group = group_of_the_graph(model, "wide")
    assert torch.equal(BlockRandomImportance(3)(group), BlockRandomImportance(3)(group))
    assert not torch.equal(BlockRandomImportance(3)(group), BlockRandomImportance(4)(group))
    assert torch.equal(BlockRandomImportance(3)(group), scores.random(BlockPattern(12, 8, 4), seed=3, layer="wide"))


@pytest.mark.parametrize("name", ["wide", "grouped", "point"])
def test_torch_prunings_importances_read_blocks_as_channels(name):
    model = with_gradients(small_net())
    layer, weight = model.get_submodule(name), model.get_submodule(name).weight.detach().double()
    grad = layer.weight.grad.double()
    group = BlockGroup(name, layer, 4)

    def per_block(per_weight: Tensor) -> Tensor:
        return scores.aggregate(per_weight.sum((2, 3)), group.pattern)

    expected = {
        tp.importance.MagnitudeImportance(p=1, normalizer=None): per_block(weight.abs()),
        tp.importance.MagnitudeImportance(p=2, normalizer=None): per_block(weight.square()),
        tp.importance.TaylorImportance(normalizer=None): per_block((weight * grad).abs()),
        tp.importance.TaylorImportance(normalizer=None, multivariable=True): per_block(weight * grad).abs(),
        tp.importance.HessianImportance(normalizer=None): per_block(weight.square() * grad),
    }
    for importance, wanted in expected.items():
        assert torch.allclose(block_scores(importance, group), wanted, rtol=1e-4, atol=1e-7), type(importance)


def test_hessian_importance_uses_the_gradients_it_accumulated():
    model = with_gradients(small_net())
    importance = tp.importance.HessianImportance(normalizer=None)
    importance.accumulate_grad(model)
    group = BlockGroup("wide", model.wide, 4)
    curvature = (model.wide.weight.detach() * model.wide.weight.grad).square().double()
    expected = scores.aggregate(curvature.sum((2, 3)), group.pattern)
    model.zero_grad(set_to_none=False)
    assert torch.allclose(block_scores(importance, group), expected, rtol=1e-4)


def test_lamp_ranks_blocks_as_the_paper_does():
    model = small_net()
    group = BlockGroup("point", model.point, 2)
    energy = scores.aggregate(model.point.weight.detach().double().square().sum((2, 3)), group.pattern).flatten()
    order = energy.argsort()
    remaining = energy[order].flip(0).cumsum(0).flip(0)
    expected = torch.empty_like(energy)
    expected[order] = energy[order] / remaining
    found = block_scores(tp.importance.LAMPImportance(), group).flatten()
    assert torch.allclose(found, expected, rtol=1e-4)


def test_global_scope_trusts_a_normalizer_the_user_chose():
    model = small_net()
    with torch.no_grad():
        model.wide.weight.mul_(100)
    OneXNPruner(model, IMAGES, tp.importance.MagnitudeImportance(p=1, normalizer=None), block_size=2,
                scope="global").step()
    assert bool(masks(model)["wide"].keep.all())
    model = small_net()
    with torch.no_grad():
        model.wide.weight.mul_(100)
    OneXNPruner(model, IMAGES, BlockL1Importance(), block_size=2, scope="global").step()
    assert not bool(masks(model)["wide"].keep.all())


def test_an_importance_of_the_users_own():
    class Largest(BlockImportance):
        def score(self, weight, pattern, name):
            return pattern.blocks(weight).abs().amax(-1)

    model = small_net()
    OneXNPruner(model, IMAGES, Largest(), block_size=2).step()
    blocks = BlockPattern(12, 8, 2).blocks(model.wide.weight).abs().amax(-1)
    assert int((blocks > 0).sum()) == 24


@pytest.mark.parametrize(("importance", "reason"), [
    (tp.importance.TaylorImportance(), "loss.backward"),
    (tp.importance.HessianImportance(), "loss.backward"),
    (lambda group: torch.ones(3), "no score for each"),
    (lambda group: torch.full((len(group[0].idxs),), torch.nan), "NaN or infinite"),
    (lambda group: [][0], "fails on its blocks"),
])
def test_an_importance_that_cannot_score_is_refused_in_the_step(importance, reason):
    model = small_net()
    pruner = OneXNPruner(model, IMAGES, importance)
    with pytest.raises(OneXNError, match=reason) as refused:
        pruner.step()
    assert refused.value.layer == "wide"
    assert not masks(model)
    assert pruner.current_step == 0


def test_layers_without_blocks_have_no_scores():
    with pytest.raises(OneXNError, match="is a depthwise Conv2d, which has no 1×N blocks"):
        BlockL1Importance()(BlockGroup("depthwise", small_net().depthwise, 4))


def test_register_is_explicit_repeatable_and_never_overwrites():
    command = (
        "import torch_pruning as tp, onexn_plugins.torch_pruning as ours\n"
        "assert not hasattr(tp.pruner, 'OneXNPruner')\n"
        "ours.register(); ours.register()\n"
        "assert tp.pruner.OneXNPruner is ours.OneXNPruner\n"
        "assert tp.importance.BlockL1Importance is ours.BlockL1Importance\n"
        "tp.importance.BlockRandomImportance = int\n"
        "try: ours.register()\n"
        "except ours.OneXNError as error: print(error)\n"
        "ours.register(replace=True)\n"
        "assert tp.importance.BlockRandomImportance is ours.BlockRandomImportance\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=True)
    assert "the name is taken by <class 'int'>" in done.stdout


def test_registered_names_are_the_classes():
    register()
    assert tp.pruner.OneXNPruner is OneXNPruner
