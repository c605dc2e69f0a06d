import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import onexn_plugins.torch_pruning as torch_pruning
from onexn_plugins import fold, measure, scores
from onexn_plugins.layers import groups_of
from onexn_plugins.masking import masks as masks_of
from onexn_plugins.nni import OneXNPruner
from onexn_plugins.pattern import BlockPattern, nonzero_blocks
from onexn_plugins.selection import keep_highest, limits, num_pruned
from onexn_plugins.zoo import load_model
from tests.nni.networks import LAYERS, SmallNet, images, small_nets
from tests.strategies import ratios

ALL_LAYERS = [{"op_names": list(LAYERS), "sparse_ratio": 0.5}]


def kept(pruner: OneXNPruner) -> dict[str, torch.Tensor]:
    """Blocks that the pruner's own masks keep, bool [block_rows, in / groups], by layer."""
    return {name: nonzero_blocks(targets["weight"], pruner._module_wrappers[name].pattern)
            for name, targets in pruner.get_masks().items()}


@settings(deadline=None, max_examples=40)
@given(small_nets(), st.integers(1, 4), ratios, st.sampled_from(["l1", "random"]), st.integers(0, 5))
def test_masks_are_those_of_the_core(model, block_size, ratio, score, seed):
    weights = {name: model.get_submodule(name).weight.detach().clone() for name in LAYERS}
    pruner = OneXNPruner(model, [{"op_names": list(LAYERS), "sparse_ratio": ratio}],
                         block_size=block_size, score=score, seed=seed)
    wrapped, masks = pruner.compress()
    assert wrapped is model
    assert list(masks) == list(LAYERS)
    for name, weight in weights.items():
        pattern = BlockPattern.of(weight, block_size, groups_of(model.get_submodule(name)))
        expected = scores.l1(weight, pattern) if score == "l1" else scores.random(pattern, seed=seed, layer=name)
        keep = keep_highest(expected, ratio)
        mask = masks[name]["weight"]
        assert list(masks[name]) == ["weight"] + ["bias"] * (model.get_submodule(name).bias is not None)
        assert mask.shape == weight.shape
        assert mask.dtype == weight.dtype
        assert torch.equal(mask, pattern.expand(keep).to(mask).reshape(*weight.shape[:2], *[1] * (weight.dim() - 2))
                           .expand_as(weight))
        assert int((~keep).sum()) == num_pruned(pattern.num_blocks, ratio)


@settings(deadline=None, max_examples=25)
@given(small_nets(), st.integers(1, 4), st.floats(0.05, 0.95), st.sampled_from(["l1", "random"]), st.booleans())
def test_masks_are_bit_for_bit_those_of_torch_pruning(model, block_size, ratio, score, competing):
    importance = torch_pruning.BlockL1Importance() if score == "l1" else torch_pruning.BlockRandomImportance(seed=3)
    twin = SmallNet(model.stem.out_channels, model.grouped.groups, model.classifier.out_features).eval()
    twin.load_state_dict(model.state_dict())
    theirs = torch_pruning.OneXNPruner(twin, images(), importance, block_size=block_size, pruning_ratio=ratio,
                                       full=True, scope="global" if competing else "layer")
    theirs.step()
    expected = {name: mask.keep for name, mask in masks_of(twin).items()}
    assert set(expected) == {"grouped", "pointwise", "classifier"}
    entry = {"op_names": list(expected), "sparse_ratio": ratio} | ({"global_group_id": 1} if competing else {})
    pruner = OneXNPruner(model, [entry], block_size=block_size, score=score, seed=3)
    pruner.compress()
    actual = kept(pruner)
    assert {name: keep.tolist() for name, keep in actual.items()} == {
        name: keep.tolist() for name, keep in expected.items()}
    pruner.unwrap_model()
    for (key, one), other in zip(fold(model).state_dict().items(), fold(twin).state_dict().values(), strict=True):
        assert torch.equal(one, other), key


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnext50_32x4d"])
def test_real_networks_agree_with_torch_pruning(name):
    inputs = torch.randn(1, 3, 64, 64)
    one, other = load_model(name), load_model(name)
    theirs = torch_pruning.OneXNPruner(other, inputs, block_size=4, pruning_ratio=0.5)
    theirs.step()
    stem = next(layer for layer, module in one.named_modules() if isinstance(module, nn.Conv2d))
    pruner = OneXNPruner(one, [{"op_types": ["Conv2d"], "exclude_op_names": [stem], "sparse_ratio": 0.5}])
    pruner.compress()
    expected = {layer: mask.keep for layer, mask in masks_of(other).items()}
    actual = kept(pruner)
    assert set(actual) == set(expected)
    assert all(torch.equal(actual[layer], keep) for layer, keep in expected.items())
    assert measure(fold(one)).sparsity == measure(fold(other)).sparsity
    with torch.no_grad():
        assert torch.equal(one(inputs), other(inputs))


@settings(deadline=None, max_examples=25)
@given(small_nets(), ratios, ratios, ratios)
@example(SmallNet(), 0.5, 0.0, 0.0)
@example(SmallNet(), 0.5, 1.0, 1.0)
def test_a_layers_limits_clamp_its_ratio(model, ratio, high, low):
    low = min(low, high)
    entry = {"op_names": ["pointwise"], "sparse_ratio": ratio, "max_sparse_ratio": high, "min_sparse_ratio": low}
    pruner = OneXNPruner(model, [entry])
    pruner.compress()
    keep = kept(pruner)["pointwise"]
    least, most = limits(keep.numel(), low, high)
    assert int((~keep).sum()) == min(most, max(least, num_pruned(keep.numel(), ratio)))
    assert int((~keep).sum()) <= high * keep.numel() + 1e-6


def test_limits_hold_inside_a_global_group_where_nni_ignores_them():
    model = SmallNet(16)
    with torch.no_grad():
        model.grouped.weight[:8].mul_(1e-6)  # without a limit this half of the layer would go entirely
    pruner = OneXNPruner(model, [
        {"op_names": ["grouped"], "sparse_ratio": 0.4, "global_group_id": "a", "max_sparse_ratio": 0.25},
        {"op_names": ["pointwise", "stem"], "sparse_ratio": 0.4, "global_group_id": "a", "min_sparse_ratio": 0.1}])
    pruner.compress()
    keep = kept(pruner)
    pruned = {name: int((~layer).sum()) for name, layer in keep.items()}
    assert pruned["grouped"] == num_pruned(keep["grouped"].numel(), 0.25)
    assert all(pruned[name] >= num_pruned(keep[name].numel(), 0.1) for name in ("pointwise", "stem"))
    assert sum(pruned.values()) == num_pruned(sum(layer.numel() for layer in keep.values()), 0.4)


@settings(deadline=None, max_examples=25)
@given(small_nets(), st.floats(0.0, 20.0), st.floats(0.0, 0.5), st.floats(0.5, 1.0))
def test_a_threshold_prunes_the_blocks_below_it_within_limits(model, threshold, low, high):
    weight = model.pointwise.weight.detach().clone()
    entry = {"op_names": ["pointwise"], "sparse_threshold": threshold, "min_sparse_ratio": low,
             "max_sparse_ratio": high}
    pruner = OneXNPruner(model, [entry])
    pruner.compress()
    keep = kept(pruner)["pointwise"]
    below = int((scores.l1(weight, BlockPattern.of(weight, 4)) < threshold).sum())
    smallest, largest = limits(keep.numel(), low, high)
    assert int((~keep).sum()) == min(largest, max(smallest, below))


def test_an_entry_may_have_its_own_block_size_here_or_in_target_settings():
    pruner = OneXNPruner(SmallNet(), [
        {"op_names": ["pointwise"], "sparse_ratio": 0.5},
        {"op_names": ["grouped"], "sparse_ratio": 0.5, "block_size": 2},
        {"op_names": ["classifier"], "target_names": ["weight"],
         "target_settings": {"weight": {"sparse_ratio": 0.25, "block_size": 3}}}], block_size=8)
    pruner.compress()
    patterns = {name: wrapper.pattern.block_size for name, wrapper in pruner._module_wrappers.items()}
    assert patterns == {"pointwise": 8, "grouped": 2, "classifier": 3}
    classifier = kept(pruner)["classifier"]
    assert int((~classifier).sum()) == num_pruned(classifier.numel(), 0.25)


def test_a_second_compress_never_revives_a_block():
    pruner = OneXNPruner(SmallNet(), [{"op_names": ["pointwise"], "sparse_ratio": 0.3}])
    pruner.compress()
    first = kept(pruner)["pointwise"]
    wrapper = pruner._module_wrappers["pointwise"]
    with torch.no_grad():
        wrapper.weight[:, ~first.all(0)] += 100.0  # pruned blocks would now win
    wrapper.target.sparse_ratio = 0.6
    pruner.compress()
    second = kept(pruner)["pointwise"]
    assert bool((first | ~second).all())
    assert int((~second).sum()) == num_pruned(second.numel(), 0.6)


def test_depthwise_layers_selected_by_type_stay_dense_and_are_named(caplog):
    pruner = OneXNPruner(SmallNet(), [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}])
    _, masks = pruner.compress()
    assert set(masks) == {"stem", "grouped", "pointwise"}
    assert "stay dense" in caplog.text
    assert "depthwise" in caplog.text


def test_subclasses_of_conv_and_modules_under_two_names_are_pruned_once():
    class Conv2dSame(nn.Conv2d):
        pass

    model = nn.Sequential(Conv2dSame(8, 8, 1), nn.ReLU())
    model.alias = model[0]
    _, masks = OneXNPruner(model, [{"op_names_re": ["0", "alias"], "sparse_ratio": 0.5}]).compress()
    assert list(masks) == ["0"]
    assert masks["0"]["weight"].mean() == 0.5


def test_a_lone_layer_is_a_model_too():
    layer = nn.Linear(16, 8)
    pruner = OneXNPruner(layer, [{"op_types": ["Linear"], "sparse_ratio": 0.5}])
    pruner.compress()
    assert (fold(layer).weight == 0).float().mean() == 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_the_models_dtype_stays(dtype):
    model = SmallNet().to(dtype)
    _, masks = OneXNPruner(model, ALL_LAYERS).compress()
    assert all(targets["weight"].dtype == dtype for targets in masks.values())
    assert all(parameter.dtype == dtype for parameter in fold(model).parameters())
