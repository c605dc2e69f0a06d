"""One network for each way in which channels travel, networks made up by hypothesis, and inputs of every form."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.rearrangement import check_spaces, find_spaces
from tests.rearrangement import networks
from tests.rearrangement.comparing import assert_rows_moved, largest_change, lively, outputs_in_double, rearranged_alike
from tests.rearrangement.networks import KINDS, build, conv, pictures

OUTPUT = "they are the model's output"
# network -> {layer that stays, besides the one that makes the output: why}
STAYS = {
    "FromInput": {"middle": "something that does not move"},
    "Tied": {"head": "computed weight", "code": "computed weight"},
}


@pytest.mark.parametrize("method", ["sort", "swap"])
@pytest.mark.parametrize("kind", KINDS)
def test_everything_but_the_output_moves(kind, method):
    model = build(kind)
    original = copy.deepcopy(model)
    result = rearranged_alike(model, pictures(), method=method, block_size=2, full=True)
    refused = dict(result.refused)
    stays = {"out": OUTPUT, **STAYS.get(kind.__name__, {})}
    assert set(refused) == set(stays)
    assert all(reason in refused[name] for name, reason in stays.items())
    assert_rows_moved(model, original, result)
    assert set(result.permutations) <= {layer.name for layer in result.layers} - set(refused)
    assert len(result.permutations) >= len(result.layers) - len(refused) - 1  # one may be in its best order already
    if method == "swap":
        assert result.retained_after >= result.retained_before


@pytest.mark.parametrize("kind", KINDS)
def test_the_comparison_of_these_tests_sees_two_rows_that_trade_places(kind):
    model = build(kind)
    before = outputs_in_double(model, pictures(5))
    with torch.no_grad():
        model.stem.weight[[1, 3]] = model.stem.weight[[3, 1]]
    assert largest_change(before, outputs_in_double(model, pictures(5))) > 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_spaces_are_consistent_and_leave_the_output_alone(kind):
    model = build(kind)
    found = find_spaces(model, pictures())
    check_spaces(model, found.spaces)
    carried = {(member.name, member.dim) for space in found.spaces for member in space.members}
    assert not carried & {("out.weight", 0), ("out.bias", 0), ("stem.weight", 1)}
    assert OUTPUT in found.still["out.weight", 0]


def members(kind: type[nn.Module], layer: str) -> set[tuple[str, int]]:
    """Everything that moves with the rows of a layer."""
    model = build(kind)
    spaces = find_spaces(model, pictures()).spaces
    rows = {layer: model.get_submodule(layer)}
    return {(member.name, member.dim) for space in spaces if space.producers(rows) for member in space.members}


def test_a_residual_couples_all_that_meets_in_it():
    assert members(networks.Residual, "second") >= {
        ("stem.weight", 0), ("second.weight", 0), ("third.weight", 0), ("third.weight", 1), ("first.weight", 1),
        ("head.weight", 1), ("norm.running_var", 0)}


def test_buffers_and_loose_parameters_follow():
    assert members(networks.Buffers, "stem") >= {("centre", 0), ("unsaved", 1), ("scale", 0), ("slope.weight", 0)}


def test_channels_stay_in_their_convolution_group():
    model = build(networks.Grouped)
    spaces = find_spaces(model, pictures()).spaces
    for layer in ("stem", "grouped"):
        space = next(space for space in spaces if space.producers({layer: model.get_submodule(layer)}))
        assert space.classes.unique_consecutive().tolist() == [0, 1, 2]


def test_a_transposed_layer_makes_its_second_dimension_and_reads_its_first():
    assert members(networks.Transposed, "up") == {("up.weight", 1), ("up.bias", 0), ("head.weight", 1)}
    assert members(networks.Transposed, "middle") == {("middle.weight", 0), ("middle.bias", 0), ("up.weight", 0)}
    model = build(networks.TransposedGroups)
    space = next(each for each in find_spaces(model, pictures()).spaces if each.producers({"up": model.up}))
    assert space.classes.tolist() == [0] * 6 + [1] * 6 + [2] * 6


def test_a_decoder_that_shares_the_encoders_weight_moves_with_it():
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.code = conv(5, 12, 3), conv(12, 8, 2, bias=False)
            self.back, self.out = nn.ConvTranspose2d(8, 12, 2, padding=1), conv(12, 4)
            self.back.weight = self.code.weight

        def forward(self, images: Tensor) -> Tensor:
            return self.out(self.back(self.code(self.stem(images).relu()).relu()).relu())

    torch.manual_seed(0)
    model = lively(Autoencoder())
    before = model.code.weight.detach().clone()
    result = rearranged_alike(model, pictures(), method="sort", block_size=2)
    assert {"code", "back"} <= set(result.permutations)
    assert torch.equal(model.back.weight, before[result.permutations["code"]][:, result.permutations["back"]])


def test_each_chunk_of_a_split_is_a_space_of_its_own():
    model = build(networks.Split)
    spaces = [space for space in find_spaces(model, pictures()).spaces if space.producers({"stem": model.stem})]
    assert sorted(space.channels for space in spaces) == [3, 4, 5]


def test_four_columns_follow_a_flattened_channel():
    model = build(networks.Flattened)
    space = next(space for space in find_spaces(model, pictures()).spaces if space.producers({"head": model.head}))
    columns = next(member.positions for member in space.members if member.name == "out.weight")
    assert columns.tolist() == torch.arange(32).reshape(8, 4).tolist()


def test_tied_layers_move_as_one_and_stay_tied():
    model = build(networks.Tied)
    result = rearranged_alike(model, pictures(), method="sort", block_size=2)
    assert torch.equal(result.permutations["one"], result.permutations["other"])
    assert model.other.weight is model.one.weight


@pytest.mark.parametrize("method", ["sort", "swap"])
@pytest.mark.parametrize("form", ["dict", "tuple"])
def test_several_inputs_and_outputs(form, method):
    torch.manual_seed(0)
    model = lively(networks.TwoInputs()).eval()
    inputs = {"picture": pictures(), "vector": torch.randn(2, 6)}
    result = rearranged_alike(model, inputs if form == "dict" else tuple(inputs.values()), method=method, block_size=2,
                              full=True)
    assert set(result.permutations) == {"stem", "middle", "code"}
    assert {name for name, reason in result.refused if OUTPUT in reason} == {"maps", "out"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes_are_kept(dtype):
    model = build(networks.Residual).to(dtype)
    assert rearranged_alike(model, pictures().to(dtype), method="sort", block_size=2).permutations
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


class Generated(nn.Module):
    """A network made of steps; each reads `width` channels and says how many it gives."""

    def __init__(self, steps: list[str], width: int, flatten: bool) -> None:
        super().__init__()
        self.stem, self.steps, self.layers = conv(5, width, 3), steps, nn.ModuleList()
        for step in steps:
            layer, width = self._layer(step, width)
            self.layers.append(layer)
        self.flatten = flatten
        self.out = nn.Linear(width * 4 if flatten else width, 3)

    @staticmethod
    def _layer(step: str, width: int) -> tuple[nn.Module, int]:
        half = width // 2
        return {
            "conv": lambda: (conv(width, 8, 3, bias=False), 8),
            "grouped": lambda: (conv(width, 2 * width, 3, groups=2), 2 * width),
            "depthwise": lambda: (conv(width, width, 3, groups=width), width),
            "norm": lambda: (nn.BatchNorm2d(width), width),
            "residual": lambda: (conv(width, width, 3), width),
            "concat": lambda: (conv(width, 4), width + 4),
            "half": lambda: (nn.Identity(), half),
            "gate": lambda: (nn.Identity(), half),
            "shuffle": lambda: (nn.ChannelShuffle(2), width),
            "excite": lambda: (nn.Sequential(conv(width, 4), nn.ReLU(), conv(4, width), nn.Sigmoid()), width),
            "mixed": lambda: (conv(half, half), width),
        }[step]()

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images).relu()
        for step, layer in zip(self.steps, self.layers, strict=True):
            features = F.leaky_relu(self._step(step, layer, features), 0.3)
        pooled = F.adaptive_avg_pool2d(features, 2).flatten(1) if self.flatten else features.mean((2, 3))
        return self.out(pooled)

    @staticmethod
    def _step(step: str, layer: nn.Module, features: Tensor) -> Tensor:
        low, high = features.chunk(2, dim=1)
        return {
            "residual": lambda x: x + layer(x).tanh(),
            "concat": lambda x: torch.cat([layer(x), x], dim=1),
            "half": lambda x: high,
            "gate": lambda x: low * high.sigmoid(),
            "excite": lambda x: x * layer(x.mean((2, 3), keepdim=True)),
            "mixed": lambda x: torch.cat([high, layer(low)], dim=1),
        }.get(step, layer)(features)


STEPS = ["conv", "grouped", "depthwise", "norm", "residual", "concat", "half", "gate", "shuffle", "excite", "mixed"]


@settings(max_examples=35, deadline=None)
@given(steps=st.lists(st.sampled_from(STEPS), min_size=1, max_size=6).filter(
           lambda steps: sum(step in ("half", "gate") for step in steps) <= 2),
       flatten=st.booleans(), seed=st.integers(0, 1000), method=st.sampled_from(["sort", "sort", "swap"]))
def test_made_up_networks_keep_their_function(steps, flatten, seed, method):
    torch.manual_seed(seed)
    model = lively(Generated(steps, 16, flatten), seed).eval()
    original = copy.deepcopy(model)
    result = rearranged_alike(model, pictures(), method=method, block_size=2, full=True, seed=seed)
    assert dict(result.refused) == {"out": f"its channels stay: {OUTPUT}"}
    assert "stem" in result.permutations or method == "swap"  # which may find no better order of a few channels
    assert_rows_moved(model, original, result)
