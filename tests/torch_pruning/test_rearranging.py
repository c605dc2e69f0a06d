"""Channel spaces from torch-pruning's graph, and OneXNPruner(rearrange=True)."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from onexn_plugins import load_checkpoint, save_checkpoint
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.rearrangement.apply import Move, apply_moves
from onexn_plugins.rearrangement.proof import BAR, prove
from onexn_plugins.rearrangement.spaces import Space, check_spaces
from onexn_plugins.torch_pruning import OneXNPruner
from onexn_plugins.torch_pruning.graph import build_graph
from onexn_plugins.torch_pruning.rearranging import add_disjoint, find_all_spaces, some_permutation
from onexn_plugins.torch_pruning.spaces import graph_spaces
from onexn_plugins.zoo import load_model
from tests.torch_pruning.networks import IMAGES, Shuffling, SmallNet, assert_unchanged, small_net, snapshot

NO_TRACING = dict.fromkeys(("forward_fn", "output_transform", "unwrapped_parameters", "customized_pruners"))


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


def proposed(model: nn.Module, images: Tensor = IMAGES) -> tuple[list[Space], list[tuple[str, str]]]:
    return graph_spaces(build_graph(model, images), model)


def moved(spaces: list[Space]) -> list[Move]:
    generator = torch.Generator().manual_seed(1)
    return [Move(space, some_permutation(space, generator)) for space in spaces]


@pytest.mark.parametrize("kind", [SmallNet, Flattened])
def test_every_space_of_the_graph_moves_without_changing_the_function(kind):
    model = seeded(kind)
    spaces, refused = proposed(model)
    check_spaces(model, spaces)
    proof = prove(model, IMAGES, moved(spaces))
    assert not proof.failed
    assert proof.max_error < 1e-12
    assert refused == [({SmallNet: "classifier", Flattened: "out"}[kind], "it feeds an output of the model")]


def test_the_spaces_name_everything_that_follows():
    spaces, _ = proposed(small_net())
    members = {frozenset((member.name, member.dim) for member in space.members) for space in spaces}
    wide = {("wide.weight", 0), ("wide.bias", 0), ("depthwise.weight", 0), ("depthwise.bias", 0), ("grouped.weight", 1)}
    norm = {(f"norm.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")}
    assert frozenset(wide | norm) in members
    residual = next(space for space in spaces if "residual.weight" in {member.name for member in space.members})
    assert {name for name, _ in ((member.name, member.dim) for member in residual.members)} >= {
        "point.weight", "residual.weight", "residual.bias", "classifier.weight"}


def test_channels_of_grouped_convolutions_stay_in_their_group():
    spaces, _ = proposed(small_net())
    by_first = {space.members[0].name: space for space in spaces}
    into = next(space for space in spaces if ("grouped.weight", 1) in {(each.name, each.dim) for each in space.members})
    assert into.classes.bincount().tolist() == [4, 4, 4]
    assert by_first["grouped.weight"].classes.bincount().tolist() == [6, 6, 6]


@pytest.mark.parametrize("kind", [SmallNet, Flattened])
def test_a_space_without_one_of_its_members_never_passes_the_proof(kind):
    model = seeded(kind)
    spaces, _ = proposed(model)
    tried = 0
    for space in spaces:
        for left_out in range(len(space.members)):
            mutant = Space(space.members[:left_out] + space.members[left_out + 1 :], space.classes)
            assert prove(model, IMAGES, moved([mutant])).failed, space.members[left_out]
            tried += 1
    assert tried > 15


def test_what_the_graph_gets_wrong_comes_from_the_own_tracer():
    model = seeded(Chunked)
    spaces, _ = proposed(model)
    wrong = prove(model, IMAGES, moved(spaces)).failed
    assert {member.name for index in wrong for member in spaces[index].members} >= {"stem.weight", "first.weight"}
    spaces = find_all_spaces(model, IMAGES, NO_TRACING)
    check_spaces(model, spaces)
    rows = [space.producers({"stem": model.stem})["stem"] for space in spaces if space.producers({"stem": model.stem})]
    assert sorted(torch.cat(rows).flatten().tolist()) == list(range(12))
    assert not prove(model, IMAGES, moved(spaces)).failed


def test_a_model_the_graph_cannot_trace_is_rearranged_by_the_own_tracer():
    model = seeded(Shuffling)
    before = model(IMAGES)
    pruner = OneXNPruner(model, IMAGES, block_size=2, rearrange="sort")
    assert {"left.1", "left.2"} <= set(pruner.rearrangement.permutations)
    assert torch.allclose(model(IMAGES), before, rtol=1e-4, atol=1e-6)


def test_disjoint_spaces_are_added_and_overlapping_ones_not():
    model = small_net()
    spaces, _ = proposed(model)
    assert add_disjoint(model, spaces, spaces) == spaces
    assert add_disjoint(model, spaces[1:], spaces) == [*spaces[1:], spaces[0]]


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


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet121"])
def test_torchvision_networks_move_by_the_graph_alone(name):
    model = load_model(name)
    images = torch.randn(1, 3, 64, 64)
    spaces, refused = proposed(model, images)
    assert [reason for _, reason in refused] == ["it feeds an output of the model"]
    proof = prove(model, images, moved(spaces))
    assert not proof.failed
    before = model(images)
    apply_moves(model, moved(spaces))
    assert torch.allclose(model(images), before, rtol=1e-3, atol=1e-4)
