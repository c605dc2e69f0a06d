import itertools

import nni
import pytest
import torch
from nni.compression import TorchEvaluator
from nni.compression.pruning import AGPPruner, LinearPruner
from torch import nn

from onexn_plugins import fold
from onexn_plugins.masking import masks as masks_of
from onexn_plugins.nni import OneXNPruner
from onexn_plugins.selection import num_pruned
from tests.nni.networks import SmallNet

INTERVAL, TIMES = 2, 5
LAYERS = ("grouped", "pointwise", "classifier")


def train(model: nn.Module, steps: int, optimizer: torch.optim.Optimizer | None = None) -> None:
    generator = torch.Generator().manual_seed(1)
    optimizer = optimizer or torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    for _ in range(steps):
        batch = torch.randn(4, 3, 8, 8, generator=generator)
        optimizer.zero_grad()
        model(batch).square().mean().backward()
        optimizer.step()


def torch_evaluator(model: nn.Module, learning_rate: float = 0.05, after_step=lambda: None) -> TorchEvaluator:
    """Trains for max_steps as NNI asks, and calls after_step after each."""

    def training_step(batch, model):
        return (model(batch) - 1).square().mean()

    def training_func(model, optimizer, training_step, lr_scheduler=None, max_steps=None, max_epochs=None):
        generator = torch.Generator().manual_seed(1)
        for _ in range(max_steps):
            optimizer.zero_grad()
            training_step(torch.randn(4, 3, 8, 8, generator=generator), model).backward()
            optimizer.step()
            after_step()

    optimizer = nni.trace(torch.optim.SGD)(model.parameters(), lr=learning_rate, momentum=0.9)
    return TorchEvaluator(training_func, optimizer, training_step)


@pytest.mark.parametrize("scheduler", [LinearPruner, AGPPruner])
@pytest.mark.parametrize("options", [
    {}, {"score": "random", "seed": 4}, {"block_size": 3},
    {"config": {"global_group_id": 0, "max_sparse_ratio": 0.9}},
], ids=str)
def test_schedulers_end_exactly_and_never_revive_a_block(scheduler, options):
    model = SmallNet(16)
    history: list[dict[str, torch.Tensor]] = []
    options = dict(options)
    config = {"op_names": list(LAYERS), "sparse_ratio": 0.77} | options.pop("config", {})
    pruner = OneXNPruner(model, [config], **options)
    evaluator = torch_evaluator(model, after_step=lambda: history.append(
        {name: pruner._module_wrappers[name].keep for name in LAYERS}))
    scheduled = scheduler(pruner, interval_steps=INTERVAL, total_times=TIMES, evaluator=evaluator)
    returned, masks = scheduled.compress(max_steps=INTERVAL * TIMES + 3, max_epochs=None)
    assert returned is model

    for earlier, later in itertools.pairwise(history):
        assert all(bool((earlier[name] | ~later[name]).all()) for name in LAYERS)
    counts = [sum(int((~keep).sum()) for keep in step.values()) for step in history]
    assert counts[0] == 0
    assert len(set(counts)) == TIMES + 1  # every interval prunes some more
    blocks = {name: keep.numel() for name, keep in history[-1].items()}
    if "global_group_id" in config:
        assert counts[-1] == num_pruned(sum(blocks.values()), 0.77)
    else:
        assert {name: int((~keep).sum()) for name, keep in history[-1].items()} == {
            name: num_pruned(blocks[name], 0.77) for name in LAYERS}

    scheduled.unwrap_model()
    assert {name: mask.keep.tolist() for name, mask in masks_of(model).items()} == {
        name: keep.tolist() for name, keep in history[-1].items()}
    fold(model)
    for name in LAYERS:
        weight = model.get_submodule(name).weight
        assert not weight[masks[name]["weight"] == 0].any()
        assert weight[masks[name]["weight"] == 1].all()


@pytest.mark.parametrize("scheduler", [LinearPruner, AGPPruner])
def test_without_learning_a_schedule_ends_where_one_shot_does(scheduler):
    scheduled_model, model = SmallNet(), SmallNet()
    config = [{"op_names": list(LAYERS), "sparse_ratio": 0.6}]
    _, expected = OneXNPruner(model, config).compress()
    evaluator = torch_evaluator(scheduled_model, learning_rate=0.0)
    _, masks = scheduler(OneXNPruner(scheduled_model, config, evaluator), interval_steps=1, total_times=4).compress(
        max_steps=4, max_epochs=None)
    assert all(torch.equal(masks[name]["weight"], expected[name]["weight"]) for name in LAYERS)


def test_a_threshold_is_scheduled_too():
    model = SmallNet()
    pruner = OneXNPruner(model, [{"op_names": ["pointwise"], "sparse_threshold": 0.5}], torch_evaluator(model))
    LinearPruner(pruner, interval_steps=1, total_times=2).compress(max_steps=2, max_epochs=None)
    assert int((~pruner._module_wrappers["pointwise"].keep).sum()) > 0
