"""Filters really cut, by NNI where it can and by torch-pruning where it cannot."""

from __future__ import annotations

import copy
import functools
import logging
import warnings

import pytest
import torch
from nni.common.concrete_trace_utils import concrete_proxy, concrete_tracer
from nni.compression.pruning import FPGMPruner, L1NormPruner, L2NormPruner, LevelPruner
from torch import Tensor, nn

from benchmarks.common.filter_pruning import prune_filters
from onexn_plugins import fold
from onexn_plugins.errors import OneXNError
from onexn_plugins.nni import OneXNPruner, cut_filters
from onexn_plugins.nni.filters.stand_in import cut_by_torch_pruning
from onexn_plugins.nni.filters.tracer import tracing_on_this_torch
from onexn_plugins.zoo import load_model
from tests.nni.networks import assert_unchanged, snapshot

IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
CONFIG = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]


def plain_net() -> nn.Module:
    """No batch norm: a filter that is masked together with its bias contributes nothing."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


@pytest.mark.parametrize("pruner", [L1NormPruner, FPGMPruner])
def test_the_function_is_that_of_the_masked_model(pruner):
    model = plain_net()
    before, masked = snapshot(model), copy.deepcopy(model)
    pruner(masked, CONFIG).compress()
    fold(masked)
    cut = cut_filters(model, pruner, CONFIG, IMAGES)
    assert (cut.method, cut.reason) == ("ModelSpeedup", "")
    assert [tuple(module.weight.shape) for module in cut.model.modules() if isinstance(module, nn.Conv2d)] == [
        (8, 3, 3, 3), (8, 8, 3, 3)]
    assert cut.parameters_after == sum(parameter.numel() for parameter in cut.model.parameters())
    assert not any(module.training for module in cut.model.modules())
    assert torch.allclose(cut.model(IMAGES), masked(IMAGES), atol=1e-6)
    assert_unchanged(model, before)


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = (nn.Conv2d(inputs, 8, 3, padding=1) for inputs in (3, 8, 8))


class Unpack(Convolutions):
    """Iterates over a traced value."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        n, c, h, w = features.shape
        return self.third(self.second(features).reshape(n, c, h, w))


class Branch(Convolutions):
    """Decides by a traced value."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        if features.shape[2] > 4:
            features = self.second(features)
        return self.third(features)


class Assert(Convolutions):
    """As timm's layers check their inputs."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        torch._assert(features.shape[2] == 12, "size")
        return self.third(self.second(features))


@pytest.mark.parametrize("network", [Unpack, Branch, Assert])
def test_what_stopped_nnis_tracer_on_todays_python_is_cut_by_nni(network):
    cut = cut_filters(network(), L1NormPruner, [CONFIG[0] | {"exclude_op_names": ["third"]}], IMAGES)
    assert cut.reason == ""
    assert [layer.out_channels for layer in (cut.model.first, cut.model.second, cut.model.third)] == [4, 4, 8]
    assert cut.model(IMAGES).shape == (2, 8, 12, 12)


class Chunks(Convolutions):
    """A loop over chunk(): NNI cuts it inconsistently, without a word."""

    def forward(self, images: Tensor) -> Tensor:
        return self.third(torch.cat([self.second(part) for part in self.first(images).chunk(2, 0)], 0))


class Grouped(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3, groups=4), nn.ReLU(), nn.Conv2d(16, 8, 1))


@pytest.mark.parametrize(("network", "last"), [(Chunks, "third"), (Grouped, "4")])
@pytest.mark.parametrize("pruner", [L1NormPruner, L2NormPruner, FPGMPruner])
def test_what_nni_cannot_cut_is_cut_all_the_same(network, last, pruner):
    model = network()
    cut = cut_filters(model, pruner, [CONFIG[0] | {"exclude_op_names": [last]}], IMAGES)
    assert cut.method in ("ModelSpeedup", "torch-pruning")
    assert (cut.method == "torch-pruning") == bool(cut.reason)
    assert cut.parameters_after < 0.75 * cut.parameters_before
    assert cut.model(IMAGES).shape == model(IMAGES).shape
    cut.model.train()(IMAGES).square().mean().backward()  # it can be fine-tuned


class Shuffled(nn.Module):
    """A channel shuffle, as in ShuffleNet V2: neither NNI nor torch-pruning follows the whole network."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.branch = nn.Sequential(nn.Conv2d(4, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1, groups=16),
                                    nn.Conv2d(16, 4, 1))
        self.last = nn.Conv2d(8, 8, 1)

    def forward(self, images: Tensor) -> Tensor:
        left, right = self.first(images).chunk(2, dim=1)
        joined = torch.cat([left, self.branch(right)], 1)
        count, channels, height, width = joined.shape
        shuffled = joined.view(count, 2, channels // 2, height, width).transpose(1, 2).contiguous()
        return self.last(shuffled.view(count, -1, height, width))


def test_parts_of_a_network_with_a_channel_shuffle_are_cut_inside():
    model = Shuffled()
    cut = cut_filters(model, L1NormPruner, [CONFIG[0] | {"exclude_op_names": ["last"]}], IMAGES)
    assert cut.method == "torch-pruning"
    layers = [layer for layer in cut.model.modules() if isinstance(layer, nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in layers] == [(3, 8), (4, 8), (8, 8), (8, 4), (8, 8)]
    assert cut.model.first.weight.equal(model.first.weight)
    cut.model.train()(IMAGES).square().mean().backward()


@pytest.mark.parametrize("criterion", ["L1NormPruner", "L2NormPruner", "FPGMPruner"])
def test_the_stand_in_cuts_the_selected_layers_alone(criterion):
    entry = {"op_names": ["0"], "target_settings": {"weight": {"sparse_ratio": 0.75}}}
    model = cut_by_torch_pruning(plain_net(), criterion, [entry], IMAGES)
    assert [tuple(module.weight.shape[:2]) for module in model.modules() if isinstance(module, nn.Conv2d)] == [
        (4, 3), (16, 4)]


def test_a_residual_network_is_cut():
    model = load_model("resnet18")
    images = torch.randn(2, 3, 32, 32)
    cut = cut_filters(model, L1NormPruner, [CONFIG[0] | {"exclude_op_names": ["conv1"]}], images)
    assert cut.method == "ModelSpeedup"
    assert cut.parameters_after < 0.6 * cut.parameters_before


@pytest.mark.parametrize(("pruner", "config", "images"), [
    (L1NormPruner, CONFIG, torch.randn(2, 5, 12, 12)),
    (L1NormPruner, CONFIG, "images"),
    (LevelPruner, CONFIG, IMAGES),
])
def test_what_cannot_be_cut_is_refused_and_the_model_is_as_it_was(pruner, config, images):
    model = Grouped()
    before = snapshot(model)
    with pytest.raises(OneXNError):
        cut_filters(model, pruner, config, images)
    assert_unchanged(model, before)


def test_nnis_tracer_is_left_as_it_was():
    tracer = concrete_tracer.ConcreteTracer
    before = (tracer.default_autowrap_leaf_function, dict(tracer.default_autowrap_leaf_function),
              concrete_tracer.node_is_impure_wrapper, concrete_tracer.functools, concrete_proxy.dis, torch._assert)
    with tracing_on_this_torch():
        assert set(tracer.default_autowrap_leaf_function) < set(before[1])
        assert concrete_tracer.functools.wraps(len)(lambda x: x).__name__ == "len"
    after = (tracer.default_autowrap_leaf_function, dict(tracer.default_autowrap_leaf_function),
             concrete_tracer.node_is_impure_wrapper, concrete_tracer.functools, concrete_proxy.dis, torch._assert)
    assert before[0] is after[0]
    assert before == after
    assert concrete_tracer.functools is functools


@pytest.mark.parametrize("order", ["masked", "unwrapped", "folded"])
@pytest.mark.parametrize("block_size", [4, 8])
def test_model_speedup_given_blocks_says_what_to_do_instead(order, block_size):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nni.compression.speedup import ModelSpeedup
    model = plain_net()
    pruner = OneXNPruner(model, CONFIG, block_size=block_size)
    _, masks = pruner.compress()
    if order != "masked":
        pruner.unwrap_model()
    if order == "folded":
        fold(model)
    with pytest.raises(OneXNError, match=r"fold\(model\).*compile_model"):
        ModelSpeedup(model, IMAGES, masks)


class Auxiliary(Convolutions):
    """A branch that runs in training alone, so that no tracer sees it."""

    def forward(self, images: Tensor) -> Tensor:
        features = self.first(images)
        return self.third(features) + (self.second(features) if self.training else 0)


def test_a_branch_of_training_alone_is_not_forgotten():
    with pytest.raises(OneXNError, match="train mode"):
        cut_filters(Auxiliary(), L1NormPruner, [CONFIG[0] | {"exclude_op_names": ["third"]}], IMAGES)


@pytest.mark.parametrize("network", [Unpack, Branch, Assert, Chunks])
def test_a_selected_layer_that_gives_the_output_is_cut_with_a_word(network, caplog):
    with caplog.at_level(logging.WARNING, "onexn_plugins"):
        cut = cut_filters(network(), L1NormPruner, CONFIG, IMAGES)
    assert cut.model(IMAGES).shape == (2, 4, 12, 12)
    assert "exclude that one" in caplog.text


def test_the_short_form_returns_the_network():
    small = prune_filters(plain_net(), L1NormPruner, CONFIG, IMAGES)
    assert [module.out_channels for module in small.modules() if isinstance(module, nn.Conv2d)] == [8, 8]
