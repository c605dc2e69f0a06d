"""What NNI users already write is taken, and means what it means in NNI."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pytest
import torch
from nni.compression.pruning import L1NormPruner, LevelPruner
from torch import nn

from onexn_plugins import fold
from onexn_plugins.errors import OneXNError
from onexn_plugins.nni import OneXNPruner
from tests.nni.networks import SmallNet, assert_unchanged, snapshot


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.Flatten(), nn.Linear(32, 8))


def masks(entries, pruner=OneXNPruner, **options) -> dict[str, torch.Tensor]:
    _, found = pruner(net(), entries, **options).compress()
    return {name: targets["weight"] for name, targets in found.items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    shapes = {name: module.weight for name, module in net().named_modules() if name in one}
    return one.keys() == other.keys() and all(
        torch.equal(one[name].expand_as(weight), other[name].expand_as(weight)) for name, weight in shapes.items())


@pytest.mark.parametrize("size", [2, 4, 8])
def test_nnis_granularity_is_the_block_size_and_gives_nnis_mask(size):
    entries = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "granularity": [size, 1, -1, -1]}]
    assert same(masks(entries), masks([{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "block_size": size}]))
    assert same(masks(entries), masks(entries, L1NormPruner))


@pytest.mark.parametrize("granularity", ["default", (4, 1, -1, -1), [4, 1], np.array([4, 1, -1, -1]),
                                         torch.tensor([4, 1, -1, -1]), [np.int64(4), 1, -1, -1]])
def test_other_ways_to_write_it(granularity):
    entries = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    assert same(masks([entries[0] | {"granularity": granularity}]), masks(entries))


def test_the_words_of_nni_2():
    modern = [{"op_types": ["Conv2d"], "exclude_op_names": ["0"], "sparse_ratio": 0.5}]
    assert same(masks([{"op_types": ["Conv2d"], "sparsity": 0.5}, {"op_names": ["0"], "exclude": True}]), masks(modern))
    assert same(masks([{"op_names": ["0"], "exclude": True}, {"op_types": ["Conv2d"], "sparsity_per_layer": 0.5}]),
                masks(modern))
    shared = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "max_sparse_ratio": 0.6, "global_group_id": 0}]
    assert same(masks([{"op_types": ["Conv2d"], "total_sparsity": 0.5, "max_sparsity_per_layer": 0.6}]), masks(shared))


@pytest.mark.parametrize("old", ["sparsity", "sparsity_per_layer", "total_sparsity"])
def test_a_ratio_said_in_old_and_new_words_is_refused(old):
    with pytest.raises(OneXNError, match=f"{old}, NNI 2.x's word"):
        OneXNPruner(net(), [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, old: 0.4}])


def test_nnis_standard_entry_with_keys_that_are_none():
    standard = {
        "op_names": ["2"], "op_types": None, "exclude_op_names": None, "target_names": ["weight", "bias"],
        "target_settings": {
            "weight": {"sparse_ratio": 0.5, "max_sparse_ratio": None, "min_sparse_ratio": None,
                       "sparse_threshold": None, "granularity": "default", "global_group_id": None,
                       "dependency_group_id": None, "internal_metric_block": None, "apply_method": "mul",
                       "align": None},
            "bias": {"align": {"target_name": "weight", "dims": [0]}, "granularity": None, "apply_method": "mul"}}}
    assert same(masks([standard]), masks([{"op_names": ["2"], "sparse_ratio": 0.5}]))


@pytest.mark.parametrize("number", [np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5)])
def test_numbers_of_numpy_and_torch(number):
    entries = [{"op_types": ["Conv2d"], "sparse_ratio": number, "block_size": np.int64(4)}]
    assert same(masks(entries), masks([{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]))


def test_a_score_of_ones_own():
    kept = masks([{"op_names": ["2"], "sparse_ratio": 0.5}], block_size=8, score=lambda weight, pattern, layer:
                 torch.arange(pattern.num_blocks, dtype=torch.float64).reshape(pattern.shape))["2"]
    assert bool((kept[:16] == 0).all())
    assert bool((kept[16:] == 1).all())


def test_dependency_groups_are_taken_with_a_word(caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nni.compression.speedup import auto_set_denpendency_group_ids
        from torch.fx import symbolic_trace

    entries = auto_set_denpendency_group_ids(symbolic_trace(net()), [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}])
    entries[0]["dependency_group_id"] = "a"
    with caplog.at_level(logging.WARNING, "onexn_plugins"):
        assert same(masks(entries), masks([{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]))
    assert "remove none" in caplog.text


def test_an_excluded_name_that_this_network_lacks_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "onexn_plugins"):
        kept = masks([{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "exclude_op_names": ["0", "features.0"]}])
    assert set(kept) == {"2"}
    assert "features.0" in caplog.text


def test_an_excluded_type_that_this_network_lacks_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, "onexn_plugins"):
        masks([{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "exclude_op_types": ["Linear", "Conv2D"]}])
    assert "no Conv2D" in caplog.text
    assert "no Linear" not in caplog.text


def test_masks_have_the_keys_that_nnis_own_have():
    entries = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    ours, theirs = OneXNPruner(net(), entries), LevelPruner(net(), entries)
    found = ours.compress()[1]
    assert {name: set(targets) for name, targets in found.items()} == {
        name: set(targets) for name, targets in L1NormPruner(net(), entries).compress()[1].items()}
    assert set(found) == set(theirs.compress()[1])
    assert bool((found["0"]["bias"] == 1).all())
    ours.update_masks(found)
    found["0"]["bias"][0] = 0
    with pytest.raises(OneXNError):
        ours.update_masks(found)


@pytest.mark.parametrize("group", [None, 1])
@pytest.mark.parametrize(("low", "high"), [(0.0, 0.34), (0.34, 1.0), (0.3, 0.4), (0.7, 0.7), (0.0, 0.0), (1.0, 1.0)])
@pytest.mark.parametrize("ratio", [0.0, 0.5, 1.0])
def test_limits_hold_exactly(group, low, high, ratio):
    model = SmallNet(10, 2, 7)  # tails everywhere
    entry = {"op_names": ["stem", "grouped", "pointwise", "classifier"], "sparse_ratio": ratio,
             "min_sparse_ratio": low, "max_sparse_ratio": high, "global_group_id": group}
    _, found = OneXNPruner(model, [entry]).compress()
    for name, targets in found.items():
        blocks = OneXNPruner(SmallNet(10, 2, 7), [entry])._module_wrappers[name].pattern.num_blocks
        wrapper = model.get_submodule(name)._nni_wrapper
        share = 1 - float(wrapper.keep.float().mean())
        assert share <= high + 1e-6, name
        assert share >= min(low, int(blocks * high + 1e-9) / blocks) - 1e-6, name
        assert targets["weight"].shape[0] == wrapper.weight.shape[0]


def test_a_refusal_leaves_the_model_alone():
    model = net()
    before = snapshot(model)
    with pytest.raises(OneXNError, match="granularity"):
        OneXNPruner(model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5, "granularity": "out_channel"}])
    assert_unchanged(model, before)
    fold(model)
