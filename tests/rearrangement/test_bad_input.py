"""Bad calls end in OneXNError, and the model is bit-equal to before."""

from __future__ import annotations

import contextlib
import copy
import math
import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import attach
from onexn_plugins.rearrangement import Member, Space, check_spaces, rearrange
from tests.rearrangement.networks import Concat, Residual, Small, build, conv, pictures


def refuses(model: nn.Module, inputs: object, reason: str, **arguments: object) -> None:
    """rearrange fails for this reason and leaves values, modes, hooks and the random state alone."""
    values = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    modes = {name: (module.training, len(module._forward_hooks)) for name, module in model.named_modules()}
    random_state = torch.get_rng_state()
    with pytest.raises(OneXNError, match=reason) as caught:
        rearrange(model, inputs, **arguments)
    assert caught.value.layer
    assert caught.value.fix
    assert {name: (module.training, len(module._forward_hooks)) for name, module in model.named_modules()} == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    after = model.state_dict()
    assert list(after) == list(values)
    assert all(torch.equal(after[name].nan_to_num(7.0), value.nan_to_num(7.0)) for name, value in values.items())


@pytest.mark.parametrize(("arguments", "reason"), [
    ({"block_size": 0}, "integer from 1 to 32"), ({"block_size": -4}, "integer from 1 to 32"),
    ({"block_size": 33}, "integer from 1 to 32"), ({"block_size": 4.0}, "integer from 1 to 32"),
    ({"block_size": True}, "integer from 1 to 32"), ({"block_size": "4"}, "integer from 1 to 32"),
    ({"pruning_ratio": 1.01}, "from 0 to 1"), ({"pruning_ratio": -0.1}, "from 0 to 1"),
    ({"pruning_ratio": math.nan}, "from 0 to 1"), ({"pruning_ratio": "half"}, "from 0 to 1"),
    ({"pruning_ratio": None}, "from 0 to 1"),
    ({"method": "best"}, "must be one of swap, sort"), ({"method": None}, "must be one of"),
    ({"method": True}, "must be one of"),
    ({"ignored_layers": ["haed"]}, "no layer of this name.*Did you mean head"),
    ({"ignored_layers": [nn.Conv2d(3, 3, 1)]}, "no layer of the model"),
    ({"ignored_layers": ["stem", "first", "second", "third", "head"], "full": False}, "no layer that 1×N pruning"),
])
def test_bad_arguments(arguments, reason):
    refuses(build(Residual), pictures(), reason, **arguments)


JUNK = st.one_of(st.text(max_size=4), st.floats().filter(lambda x: not 0 <= x <= 1), st.integers(max_value=-1),
                 st.just({}), st.just((4,)), st.just(nn.ReLU()), st.builds(object))
STRANGERS = st.one_of(st.text(max_size=4), st.integers(), st.none(), st.builds(lambda: conv(3, 8)))
WRONG = {
    "block_size": JUNK | st.none() | st.booleans() | st.integers(min_value=33),
    "pruning_ratio": JUNK.filter(lambda value: not isinstance(value, bool)) | st.none() | st.booleans(),
    "method": JUNK | st.none() | st.booleans(),
    "seed": JUNK | st.none() | st.booleans() | st.integers(min_value=2**63),
    "full": JUNK | st.sampled_from([0, 1]),
    "spaces": JUNK.filter(bool) | st.lists(STRANGERS, min_size=1, max_size=2),
    "progress": JUNK.filter(lambda value: not callable(value)),
    "ignored_layers": st.one_of(
        st.integers(), st.none(), st.floats(), st.sampled_from(["stem", "head", nn.Conv2d]),
        st.lists(STRANGERS.filter(lambda name: name != ""), min_size=1, max_size=2)),
}


@st.composite
def wrong_arguments(draw):
    names = draw(st.lists(st.sampled_from(sorted(WRONG)), min_size=1, max_size=3, unique=True))
    return {name: draw(WRONG[name]) for name in names}


@settings(max_examples=250, deadline=None)
@given(arguments=wrong_arguments())
def test_generated_bad_arguments(arguments):
    refuses(build(Small), pictures(), "must be|block_size|no layer of", **arguments)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_generated_bad_spaces(data):
    """A space of the stem in which one thing is wrong, or which is not all that must move."""
    sizes = {"stem.weight": (12, 5, 3, 3), "stem.bias": (12,), "head.weight": (8, 12, 1, 1), "out.bias": (5,)}
    name = data.draw(st.sampled_from([*sizes, "stem", "nothing.weight", ""]))
    dim, channels = data.draw(st.integers(-2, 5)), data.draw(st.integers(2, 14))
    positions = torch.tensor(data.draw(st.lists(st.integers(-2, 14), min_size=channels, max_size=channels)))
    space = Space.of([Member(name, dim, positions.reshape(-1, 1), data.draw(st.sampled_from([1, 1, 2, 5])))], channels)
    model = build(Small)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with contextlib.suppress(OneXNError):
        assert rearrange(model, pictures(), method="sort", block_size=2, spaces=[space]).permutations == {}
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


class Patches(nn.Module):
    """Its only convolution is the stem, as in a vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.wide, self.out = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.out(self.wide(self.patch(images).flatten(2).transpose(1, 2)).relu()).mean(1)


def test_linear_layers_count_by_default_only_where_no_convolution_is_pruned():
    model = build(Small)
    assert [layer.name for layer in rearrange(model, pictures(), block_size=2).layers] == ["stem", "head"]
    refuses(model, pictures(), "no layer that 1×N pruning applies to", block_size=2, ignored_layers=["stem", "head"])
    assert [layer.name for layer in rearrange(model, pictures(), block_size=2, ignored_layers=["stem", "head"],
                                              full=True).layers] == ["out"]
    images = torch.randn(2, 3, 8, 8)
    assert [layer.name for layer in rearrange(build(Patches), images, block_size=2).layers] == ["wide", "out"]
    refuses(build(Patches), images, "no layer that 1×N pruning applies to", full=False)


@pytest.mark.parametrize("inputs", [
    None, 3, "image", (), {}, torch.randn(1, 3, 8, 8), torch.randn(5, 8), (pictures(), pictures()),
    {"pictures": pictures()},
], ids=["none", "number", "text", "no tuple", "no dict", "channels", "dimensions", "too many", "name"])
def test_bad_example_inputs(inputs):
    refuses(build(Small), inputs, "example_inputs")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_cannot_be_ranked(value):
    model = build(Concat)
    with torch.no_grad():
        model.second.weight[0, 0] = value
    refuses(model, pictures(), "^second: its weight holds NaN or infinite")


def test_an_infinite_bias_cannot_be_proved():
    model = build(Concat)
    with torch.no_grad():
        model.out.bias[0] = math.inf
    refuses(model, pictures(), "not finite")


def test_masked_parametrized_and_wrapped_models():
    model = build(Residual)
    attach(model.head, torch.ones(4, 12, dtype=torch.bool), 2)
    refuses(model, pictures(), "^head: already masked")
    normed = build(Residual)
    nn.utils.parametrizations.weight_norm(normed.first)
    refuses(normed, pictures(), "^first: its weight is parametrized")
    refuses(nn.DataParallel(build(Residual)), pictures(), "wrapped in DataParallel")


class Fails(Small):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("out of order")


class Locked(Small):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Dense(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images


@pytest.mark.parametrize(("make", "reason"), [
    (lambda: build(Fails), "out of order"),
    (lambda: build(Locked), "cannot be copied"),
    (Dense, "no layer that 1×N pruning applies to"),
    (lambda: nn.Sequential(nn.LazyConv2d(8, 3)), "no shape yet|no values yet"),
    (lambda: nn.Sequential(conv(5, 8), conv(8, 8)).to("meta"), "no values yet"),
], ids=["fails", "locked", "nothing to prune", "lazy", "meta"])
def test_models_that_cannot_be_rearranged(make, reason):
    model = make()
    before = None if any(tensor.is_meta or nn.parameter.is_lazy(tensor) for tensor in model.parameters()) else (
        copy.deepcopy(dict(model.named_parameters())))
    with pytest.raises(OneXNError, match=reason):
        rearrange(model, pictures())
    if before is not None:
        assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())


@pytest.mark.parametrize("model", [None, "resnet18", torch.ones(3), lambda images: images])
def test_what_is_no_model(model):
    with pytest.raises(OneXNError, match="must be a torch module"):
        rearrange(model, pictures())


def member(name: str = "stem.weight", dim: int = 0, positions: object = None, groups: int = 1) -> Member:
    return Member(name, dim, torch.arange(12)[:, None] if positions is None else positions, groups)


@pytest.mark.parametrize(("members", "reason"), [
    ([member("stem.wieght")], "no parameter or buffer"),
    ([member(dim=4)], "has no dimension 4"),
    ([member(dim=-1)], "has no dimension -1"),
    ([member(positions=torch.arange(12))], "positions of shape"),
    ([member(positions=torch.arange(11)[:, None])], "positions of shape"),
    ([member(positions=torch.arange(12.0)[:, None])], "positions of shape"),
    ([member(positions=torch.arange(1, 13)[:, None])], "outside 0..11"),
    ([member(positions=torch.arange(-1, 11)[:, None])], "outside 0..11"),
    ([member(positions=torch.zeros(12, 1, dtype=torch.int64))], "two channels at one position"),
    ([member(), member()], "two channels at one position"),
    ([member(groups=2)], "cannot be the channels of 2 conv groups"),
])
def test_spaces_from_elsewhere_are_checked(members, reason):
    model, space = build(Small), Space.of(members, 12)
    with pytest.raises(OneXNError, match=reason):
        check_spaces(model, [space])
    refuses(model, pictures(), reason, spaces=[space])


def test_a_space_that_takes_the_classes_of_another_size_is_refused():
    refuses(build(Small), pictures(), "positions of shape", spaces=[Space.of([member()], 10)])
