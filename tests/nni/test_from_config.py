"""Pruners from plain data, and what finish reports of them."""

from __future__ import annotations

import copy
import json
import math

import nni
import numpy as np
import onnx
import pytest
import torch
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, FPGMPruner, L1NormPruner, LevelPruner
from torch import nn

from onexn_plugins import fold, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.nni import FilterPruner, OneXNPruner, finish, pruner_from_config
from onexn_plugins.nni.finishing import _difference
from onexn_plugins.nni.from_config import _plain
from tests.nni.networks import assert_unchanged, snapshot

IMAGE = torch.randn(1, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3),
                         nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(16, 4)).eval()


@pytest.mark.parametrize(("pruner", "expected"), [
    ("OneXNPruner", OneXNPruner), ("L1NormPruner", L1NormPruner), ({"_name": "LevelPruner"}, LevelPruner),
    (FPGMPruner, FPGMPruner), ("path:nni.compression.pruning.FPGMPruner", FPGMPruner),
    ({"__nni_type__": "path:onexn_plugins.nni.OneXNPruner"}, OneXNPruner),
    ({"_name": "onexn_plugins.nni.OneXNPruner", "block_size": 8}, OneXNPruner),
    ({"_name": "L1NormPruner", "cut": True}, FilterPruner)])
def test_a_pruner_by_name_path_or_class(pruner, expected):
    made = pruner_from_config(make_net(), {"pruner": pruner, "sparse_ratio": 0.5, "learning_rate": 0.1},
                              example_inputs=IMAGE)
    assert type(made) is expected
    model, _ = made.compress()
    assert isinstance(model, nn.Module)


def test_the_mask_is_that_of_the_pruner_made_by_hand():
    by_hand, from_data = make_net(), make_net()
    OneXNPruner(by_hand, [{"op_names": ["3"], "sparse_ratio": 0.75}], block_size=8).compress()
    pruner_from_config(from_data, {"pruner": {"_name": "OneXNPruner", "block_size": 8}, "sparse_ratio": 0.75},
                       layers=["3"]).compress()
    assert torch.equal(fold(by_hand)[3].weight, fold(from_data)[3].weight)
    assert int((from_data[3].weight == 0).sum()) == 0.75 * from_data[3].weight.numel()
    assert int((from_data[6].weight == 0).sum()) == 0


def test_parameters_go_before_defaults_and_options_may_stand_beside_the_pruner():
    made = pruner_from_config(make_net(), {"block_size": 8, "sparse_ratio": 0.5}, pruner="OneXNPruner", block_size=4)
    assert made.block_size == 8
    other = pruner_from_config(make_net(), {"pruner": "LevelPruner", "block_size": 8, "sparse_ratio": 0.5})
    assert type(other) is LevelPruner  # block_size is another pruner's, and left out


def test_a_config_list_takes_the_ratio_that_its_entries_lack():
    model = make_net()
    entries = [{"op_names": ["3"]}, {"op_names": ["6"], "sparse_ratio": 0.25}]
    pruner_from_config(model, {"pruner": "LevelPruner", "config_list": entries, "sparse_ratio": 0.5}).compress()
    fold(model)
    assert [float((model[index].weight == 0).float().mean()) for index in (3, 6)] == [0.5, 0.25]
    assert entries[0] == {"op_names": ["3"]}


def test_a_scheduler_holds_its_pruner():
    model = make_net()
    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=0.01)

    def training_step(batch, model):
        return model(batch).square().mean()

    def train(model, optimizer, training_step, lr_scheduler=None, max_steps=None, max_epochs=None):
        for _ in range(max_steps):
            optimizer.zero_grad()
            training_step(IMAGE, model).backward()
            optimizer.step()

    parameters = {"pruner": {"_name": "AGPPruner", "interval_steps": 1, "total_times": 2,
                             "pruner": {"_name": "OneXNPruner", "block_size": 8}}, "sparse_ratio": 0.5}
    made = pruner_from_config(model, parameters, layers=["3"],
                              evaluator=TorchEvaluator(train, optimizer, training_step))
    assert type(made) is AGPPruner
    made.compress(4, None)
    reported = finish(made, IMAGE)
    assert reported["pruner"] == "AGPPruner(OneXNPruner)"
    assert reported["zero_blocks"] == 0.5
    assert reported["block_size"] == 8


@pytest.mark.parametrize("spec", [
    {"_name": "AGPPruner", "pruner": "L1NormPruner"},
    {"_name": "AGPPruner", "pruner": L1NormPruner},
    {"__nni_type__": "path:nni.compression.pruning.AGPPruner",
     "pruner": {"__nni_type__": "path:nni.compression.pruning.L1NormPruner"}}])
def test_a_scheduler_is_labelled_with_its_pruner(spec):
    assert _plain({}, spec) == {"pruner": "AGPPruner(L1NormPruner)"}


def test_a_difference_keeps_nan_and_refuses_other_shapes():
    one, two = np.ones((2, 1), np.float32), np.float32([[2], [np.nan]])
    assert _difference([one, one * 3], [one, one * 2]) == 0.5
    assert math.isnan(_difference([one, two], [one, two]))
    assert math.isnan(_difference([two, one], [two, one]))
    with pytest.raises(OneXNError, match="shapes"):
        _difference([one], [one.T])
    with pytest.raises(OneXNError, match="shapes"):
        _difference([one], [one, one])


@pytest.mark.parametrize(("parameters", "message"), [
    ({"pruner": "L1NormPrunner"}, "Did you mean L1NormPruner"),
    ({"pruner": "NoSuch"}, "Known are AGPPruner"),
    ({"pruner": "onexnpruner"}, "Did you mean OneXNPruner"),
    ({"pruner": {"name": "OneXNPruner"}}, "names no pruner"),
    ({"pruner": {"_name": "L1NormPruner", "cut": "no"}}, "cut must be true or false"),
    ({"pruner": 7}, "is unknown"),
    ({"pruner": "path:no.such.Pruner"}, "cannot be imported"),
    ({"pruner": {"_name": "OneXNPruner", "block_sise": 4}}, "Did you mean block_size"),
    ({"pruner": {"_name": "LevelPruner", "block_size": 4}}, "has no option 'block_size'"),
    ({"pruner": {"_name": "OneXNPruner", "block_size": 64}}, "64"),
    ({"pruner": {"_name": "OneXNPruner", "cut": True}}, "no whole filters"),
    ({"pruner": {"_name": "L1NormPruner", "cut": True}}, "example_inputs"),
    ({"pruner": {"_name": "AGPPruner"}}, "schedules another pruner"),
    ({"pruner": {"_name": "LevelPruner", "pruner": "L1NormPruner"}}, "schedules no other"),
    ({"pruner": "TaylorPruner"}, "training_steps"),
    ({"sprase_ratio": 0.5}, "Did you mean sparse_ratio"),
    ({"sparse_ratio": None}, "say no sparse_ratio"),
    ({"sparse_ratio": 1.5}, "between 0 and 1"),
    ({"sparse_ratio": "half"}, "between 0 and 1"),
    ({"layers": "3"}, "must be a list of names"),
    ({"layers": 5}, "must be a list of names"),
    ({"config_list": 5}, "must be a list of dicts"),
    ({"config_list": {"op_names": ["3"]}}, "must be a list of dicts"),
    ({"layers": ["no such layer"]}, "no such layer"),
    ({"pruner": "LevelPruner", "layers": ["no such layer"]}, "no such layer"),
])
def test_what_cannot_be_made_is_refused_and_nothing_is_changed(parameters, message):
    model = make_net()
    before = snapshot(model)
    with pytest.raises(OneXNError, match=message):
        pruner_from_config(model, {"sparse_ratio": 0.5} | parameters)
    assert_unchanged(model, before)


def test_parameters_that_are_none_outside_an_experiment_are_refused():
    with pytest.raises(OneXNError, match="get_next_parameter"):
        pruner_from_config(make_net(), None)


@pytest.mark.parametrize("pruner", ["OneXNPruner", "L1NormPruner", "LevelPruner"])
def test_finish_counts_what_is_there(pruner, tmp_path):
    made = pruner_from_config(make_net(), {"pruner": pruner, "sparse_ratio": 0.5}, layers=["3", "6"])
    made.compress()
    path = tmp_path / "network.onnx"
    reported = finish(made, IMAGE, path=path)
    json.dumps(reported, allow_nan=False)
    model = made.bound_model
    nonzero = {index: int(torch.count_nonzero(model[index].weight)) for index in (0, 3, 6, 9)}
    assert reported["macs"] == nonzero[0] * 144 + nonzero[3] * 100 + nonzero[6] * 100 + nonzero[9]
    assert reported["dense_macs"] == 432 * 144 + 4608 * 100 + 512 * 100 + 64
    assert reported["zero_weights"] == 0.5
    assert reported["zero_blocks"] == pytest.approx(0.5 if pruner == "OneXNPruner" else measured_blocks(model))
    assert reported["parameters"] == sum(parameter.numel() for parameter in make_net().parameters())
    assert reported["onnx_bytes"] == path.stat().st_size
    assert reported["max_error"] < 1e-4
    assert reported["latency_ms"] > 0
    assert reported["default"] == reported["dense_macs"] / reported["macs"]
    assert reported["sparse_ratio"] == 0.5
    onnx.checker.check_model(onnx.load(path))


def measured_blocks(model: nn.Module) -> float:
    layers = [layer for layer in measure(model).layers if layer.name in ("3", "6")]
    return 1 - sum(layer.kept for layer in layers) / sum(layer.blocks for layer in layers)


def test_finish_tells_what_cut_filters_were():
    made = pruner_from_config(make_net(), {"pruner": {"_name": "L1NormPruner", "cut": True}, "sparse_ratio": 0.5},
                              layers=["0", "3"], example_inputs=IMAGE.repeat(2, 1, 1, 1))
    with pytest.raises(OneXNError, match="compress"):
        finish(made, IMAGE)
    model, masks = made.compress()
    assert masks == {}
    assert [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)] == [8, 16, 16]
    reported = finish(made, IMAGE)
    assert reported["cut_by"] == "ModelSpeedup"
    assert reported["macs"] == 216 * 144 + 1152 * 100 + 256 * 100 + 64
    assert reported["dense_macs"] == 432 * 144 + 4608 * 100 + 512 * 100 + 64
    assert reported["parameters"] < reported["dense_parameters"]
    with pytest.raises(OneXNError, match="already"):
        made.compress()


def test_finish_takes_turns_with_the_dense_network_and_leaves_it_alone():
    dense = make_net()
    before = {name: tensor.clone() for name, tensor in dense.state_dict().items()}
    modes = [module.training for module in dense.modules()]
    made = pruner_from_config(copy.deepcopy(dense), {"sparse_ratio": 0.5}, layers=["3", "6"])
    made.compress()
    reported = finish(made, IMAGE, dense=dense)
    times = ("latency_ms", "onnxruntime_ms", "dense_latency_ms", "dense_onnxruntime_ms", "faster", "onnxruntime_faster")
    assert all(reported[name] > 0 for name in times)
    assert len({reported[name] for name in times}) == len(times), "one was timed for another"
    assert all(torch.equal(tensor, before[name]) for name, tensor in dense.state_dict().items())
    assert [module.training for module in dense.modules()] == modes
    assert "faster" not in finish(made, IMAGE)


def test_finish_takes_another_target_and_leaves_out_what_it_cannot_measure():
    made = pruner_from_config(make_net(), {"sparse_ratio": 0.5}, layers=["3"])
    made.compress()
    reported = finish(made, IMAGE, target="cortex-a72", dense=make_net())
    assert reported["latency_ms"] is None
    assert reported["faster"] is None
    assert reported["compiled_bytes"] > 0


@pytest.mark.parametrize("change", [
    {"target": "cortex-a1"}, {"path": "/no/such/folder/network.onnx"}, {"example_inputs": None},
    {"pruner": object()}, {"dense": "mobilenet_v2"}])
def test_finish_refuses_before_it_folds(change):
    made = pruner_from_config(make_net(), {"sparse_ratio": 0.5}, layers=["3"])
    made.compress()
    arguments = {"pruner": made, "example_inputs": IMAGE} | change
    with pytest.raises(OneXNError):
        finish(**arguments)
    assert hasattr(made.bound_model[3], "_nni_wrapper")
