"""An optimizer that the user already has goes on training, whatever is done to the model."""

from __future__ import annotations

import pytest
import torch
from nni.compression.pruning import L1NormPruner
from torch import nn

from onexn_plugins import fold
from onexn_plugins.nni import OneXNPruner
from tests.nni.networks import SmallNet, images

NAMES = ("stem", "grouped", "pointwise", "classifier")
CONFIG = [{"op_names": list(NAMES), "sparse_ratio": 0.5}]


def trains(model: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> bool:
    """One step moves the weights that the layer computes with, and the optimizer's alone."""
    model(images())
    before = model.get_submodule(name).weight.detach().clone()
    optimizer.zero_grad()
    model(images()).square().mean().backward()
    optimizer.step()
    model(images())
    after = model.get_submodule(name).weight.detach()
    assert torch.equal(after == 0, before == 0), "pruned weights came back"
    return not torch.equal(before, after)


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.AdamW])
@pytest.mark.parametrize("when", ["dense", "wrapped", "unwrapped"])
def test_it_trains_from_then_on_in_every_state(make, when):
    model = SmallNet()
    parameters = list(model.parameters())
    optimizer = make(parameters, lr=0.01) if when == "dense" else None
    pruner = OneXNPruner(model, CONFIG)
    pruner.compress()
    optimizer = make(model.parameters(), lr=0.01) if when == "wrapped" else optimizer
    if optimizer is not None:
        assert all(trains(model, optimizer, name) for name in NAMES)
    pruner.unwrap_model()
    optimizer = make(model.parameters(), lr=0.01) if when == "unwrapped" else optimizer
    assert all(trains(model, optimizer, name) for name in NAMES)
    pruner.wrap_model()
    assert all(trains(model, optimizer, name) for name in NAMES)
    pruner.unwrap_model()
    fold(model)
    assert {id(parameter) for parameter in model.parameters()} == {id(parameter) for parameter in parameters}
    model(images()).square().mean().backward()
    before = model.pointwise.weight.detach().clone()
    optimizer.step()
    assert not torch.equal(before, model.pointwise.weight)


def test_so_does_one_of_nnis_pruners_after_fold():
    model = SmallNet()
    L1NormPruner(model, [{"op_names": ["pointwise"], "sparse_ratio": 0.5}]).compress()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)  # NNI wraps copies: one made before has lost them
    fold(model)
    before = model.pointwise.weight.detach().clone()
    assert int((before == 0).sum()) > 0
    model(images()).square().mean().backward()
    optimizer.step()
    assert not torch.equal(before, model.pointwise.weight)
