"""OneXNPruner(rearrange=True)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from onexn_plugins import load_checkpoint, save_checkpoint
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.rearrangement.proof import BAR
from onexn_plugins.torch_pruning import OneXNPruner
from tests.torch_pruning.networks import IMAGES, Shuffling, SmallNet, assert_unchanged, small_net, snapshot


class Chunked(nn.Module):
    """torch-pruning's graph meets the consumers of the chunks in reverse and takes that for the order of the chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3)
        self.first, self.second = nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 1)
        self.head = nn.Conv2d(8, 6, 1)

    def forward(self, images: Tensor) -> Tensor:
        low, high = self.stem(images).relu().chunk(2, dim=1)
        return self.head(self.first(low).relu() + self.second(high).relu()).mean((2, 3))


class AnchorHead(nn.Module):
    """A detection head on three levels, flattened per pixel and concatenated: walking its graph index by index took a
    time that grew with pixels × channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, 2, 1)
        self.levels = nn.ModuleList(nn.Conv2d(16, 16, 3, 2, 1) for _ in range(2))
        self.lateral = nn.Conv2d(16, 16, 1)
        self.tower, self.boxes = nn.Conv2d(16, 16, 3, padding=1), nn.Conv2d(16, 36, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        features, outputs = self.stem(images).relu(), []
        for level in (None, *self.levels):
            features = features if level is None else level(features).relu()
            boxes = self.boxes(self.tower(self.lateral(features)).relu())
            outputs.append(boxes.permute(0, 2, 3, 1).reshape(len(images), -1, 4))
        return torch.cat(outputs, dim=1)


class Flattened(nn.Module):
    """A 6×6 map flattened before a Linear layer, a concatenation, a LayerNorm, an unaffine norm, a shared layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm, self.plain = nn.BatchNorm2d(12), nn.BatchNorm2d(12, affine=False)
        self.again = nn.Conv2d(12, 12, 1)
        self.hidden, self.scale = nn.Linear(432, 16), nn.LayerNorm(16)
        self.out = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.plain(self.norm(torch.cat([self.left(images), self.right(images)], dim=1)))
        features = self.again(self.again(features).relu()).relu()
        return self.out(self.scale(self.hidden(features.flatten(1)).relu()))


def seeded(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return small_net() if kind is SmallNet else kind().eval()


@pytest.mark.parametrize(("kind", "moving"), [
    (Chunked, {"stem", "first", "second"}),
    (Flattened, {"left", "right", "again", "hidden"}),
    (Shuffling, {"left.1", "left.2"}),
    (AnchorHead, {"levels.0", "levels.1", "lateral", "tower"}),
])
def test_networks_that_a_dependency_graph_gets_wrong_or_cannot_trace(kind, moving):
    model = seeded(kind)
    before = model(IMAGES)
    ratios = {"stem": 0.5} if kind is Chunked else {"left": 0.5, "right": 0.5} if kind is Flattened else None
    pruner = OneXNPruner(model, IMAGES, block_size=2, rearrange="sort", full=True, pruning_ratio_dict=ratios)
    assert moving <= set(pruner.rearrangement.permutations)
    assert torch.allclose(model(IMAGES), before, rtol=1e-4, atol=1e-6)


def test_every_layer_is_arranged_for_its_own_ratio():
    one, other, reference = small_net(), small_net(), small_net().requires_grad_(False)
    OneXNPruner(one, IMAGES, pruning_ratio=0.5, rearrange="sort", pruning_ratio_dict={"wide": 0.9}).step()
    pruner = OneXNPruner(other, IMAGES, pruning_ratio=0.5, rearrange="sort", pruning_ratio_dict={"wide": 0.9})
    expected = {layer.name: layer.retained_after for layer in pruner.rearrangement.layers}
    total = {name: float(reference.get_submodule(name).weight.abs().sum()) for name in expected}
    assert {name: float(one.get_submodule(name).weight.detach().abs().sum()) / total[name] for name in expected} == (
        pytest.approx(expected, rel=1e-5))


def test_tracing_leaves_nothing_behind_on_a_model_that_caches_tensors():
    """LeViT keeps a computed attention bias; a trace with gradients would leave one that cannot be copied."""
    class Caching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.wide = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 16, 3)
            self.head = nn.Conv2d(16, 8, 1)
            self.bias, self.cache = nn.Parameter(torch.randn(1)), {}

        def forward(self, images: Tensor) -> Tensor:
            if "bias" not in self.cache:
                self.cache["bias"] = self.bias * 2
            return self.head(self.wide(self.stem(images)).relu()) + self.cache["bias"]

    torch.manual_seed(0)
    assert "wide" in OneXNPruner(Caching().eval(), IMAGES, rearrange=True).rearrangement.permutations


@pytest.mark.parametrize("method", ["sort", True])
def test_rearranging_keeps_the_function_and_more_of_the_weights(method):
    model = small_net().train()
    model.wide.requires_grad_(False)
    reference = small_net()
    pruner = OneXNPruner(model, IMAGES, block_size=2, rearrange=method, full=True)
    moved_channels = pruner.rearrangement
    assert moved_channels.max_error < BAR
    assert moved_channels.retained_after > moved_channels.retained_before
    assert set(moved_channels.permutations) == {"wide", "grouped", "point", "residual"}
    assert model.training
    assert not model.wide.weight.requires_grad
    assert torch.allclose(model.eval()(IMAGES), reference.eval()(IMAGES), rtol=1e-4, atol=1e-6)
    pruner.step()
    kept = sum(float(model.get_submodule(name).weight.detach().abs().sum()) for name in masks(model))
    OneXNPruner(reference, IMAGES, block_size=2, full=True).step()
    kept_before = sum(float(reference.get_submodule(name).weight.detach().abs().sum()) for name in masks(reference))
    assert kept > kept_before


def test_gradients_move_with_their_weights():
    model, reference = small_net().eval(), small_net().eval()
    for each in (model, reference):
        each(IMAGES).square().sum().backward()
    order = OneXNPruner(model, IMAGES, block_size=2, rearrange="sort").rearrangement.permutations["residual"]
    assert torch.equal(model.residual.bias.grad, reference.residual.bias.grad[order])


@pytest.mark.parametrize(("arguments", "reason"), [
    ({"rearrange": "best"}, "must be one of"),
    ({"rearrange": True, "forward_fn": lambda model, images: model(images)}, "proved by running"),
])
def test_bad_calls_leave_the_model_alone(arguments, reason):
    model = small_net()
    before = snapshot(model)
    with pytest.raises(OneXNError, match=reason):
        OneXNPruner(model, IMAGES, **arguments)
    assert_unchanged(model, before)


def test_a_masked_model_is_not_rearranged():
    model = small_net()
    OneXNPruner(model, IMAGES).step()
    before = snapshot(model)
    with pytest.raises(OneXNError, match="already masked"):
        OneXNPruner(model, IMAGES, rearrange=True)
    assert_unchanged(model, before)


def test_a_rearranged_run_resumes_with_its_permutations(tmp_path):
    def start():
        model = small_net()
        return model, OneXNPruner(model, IMAGES, block_size=2, iterative_steps=2, rearrange="sort")

    model, pruner = start()
    pruner.step()
    save_checkpoint(model, tmp_path / "run.safetensors", pruner=pruner.state_dict())
    pruner.step()
    resumed, second = start()
    second.load_state_dict(load_checkpoint(resumed, tmp_path / "run.safetensors")["pruner"])
    assert all(torch.equal(order, second.permutations[name]) for name, order in pruner.permutations.items())
    second.step()
    assert all(torch.equal(tensor, resumed.state_dict()[name]) for name, tensor in model.state_dict().items())
    other = OneXNPruner(small_net(), IMAGES, block_size=4, iterative_steps=2)
    with pytest.raises(OneXNError, match="block_size: was 2 when the state was saved and is 4 now"):
        other.load_state_dict(pruner.state_dict())
    for state in ({}, None, {"step": 1, "recipe": {}}, {"step": 1, "recipe": 3}, {"step": 1},
                  other.state_dict() | {"step": 3}, other.state_dict() | {"step": "1"}):
        with pytest.raises(OneXNError, match="no state"):
            other.load_state_dict(state)
