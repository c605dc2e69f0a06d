"""Networks written to escape the labels: channels move or are refused by name, and the function never changes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.rearrangement import rearrange
from onexn_plugins.torch_pruning import OneXNPruner
from tests.rearrangement.comparing import fresh, largest_change, outputs_in_double, rearranged_alike
from tests.rearrangement.networks import Small, build, conv, pictures


class SliceWrites(Small):
    """Writes into a slice, which autograd and labels may both miss."""

    def between(self, features: Tensor) -> Tensor:
        features = features.clone()
        features[:, 2:5] = features[:, 7:10] * 2.0
        features[:, 0].add_(1.5)
        return features


class WritesIntoZeros(Small):
    """Channels are copied into a new tensor, in another order."""

    def between(self, features: Tensor) -> Tensor:
        target = torch.zeros_like(features)
        target[:, :6], target[:, 6:] = features[:, 6:], features[:, :6]
        return target


class Numpy(Small):
    """Leaves torch and comes back with a factor per channel."""

    def between(self, features: Tensor) -> Tensor:
        values = features.detach().cpu().numpy().copy()
        values[:, :4] *= 3.0
        return torch.from_numpy(values)


class Lists(Small):
    """Leaves torch through a Python list."""

    def between(self, features: Tensor) -> Tensor:
        factors = torch.tensor(features.mean((0, 2, 3)).tolist())
        return features * (factors + torch.arange(12.0))[None, :, None, None]


class OneValue(Small):
    """One channel's mean scales everything."""

    def between(self, features: Tensor) -> Tensor:
        return features * (1.0 + features[0, 3].mean().item())


class Branch(Small):
    """What happens to the channels depends on the picture."""

    def between(self, features: Tensor) -> Tensor:
        return features.flip(1) if features.mean() > self.limit else features * 2.0

    limit = 0.0


class EarlyExit(Small):
    """Where the first head is sure, the second is never reached."""

    def __init__(self) -> None:
        super().__init__()
        self.late = nn.Linear(12, 5)
        self.limit = 0.0

    def forward(self, images: Tensor) -> Tensor:
        features = self.norm(self.stem(images)).relu()
        first = self.out(self.head(features).relu().mean((2, 3)))
        if features.mean().item() > self.limit:
            return first
        return self.late(features.mean((2, 3)))


class Largest(Small):
    """The number of the strongest channel decides which one is read."""

    def between(self, features: Tensor) -> Tensor:
        strongest = features.mean((0, 2, 3)).argmax()
        return features + features[:, strongest : strongest + 1] + strongest


class Sorted(Small):
    """Channels are weighted by their position."""

    def between(self, features: Tensor) -> Tensor:
        return features.cumsum(1) * torch.linspace(0.5, 1.5, 12)[None, :, None, None]


class Neighbours(Small):
    """Local response normalisation and a convolution across channels."""

    def __init__(self) -> None:
        super().__init__()
        self.across = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def between(self, features: Tensor) -> Tensor:
        weights = self.across(features.mean((2, 3))[:, None]).sigmoid()[:, 0]
        return F.local_response_norm(features, 3, alpha=1.0) * weights[:, :, None, None]


class ComputedWeight(Small):
    """A standardised weight, as in weight-standardised ResNets."""

    def __init__(self) -> None:
        super().__init__()
        self.middle = conv(12, 12, 3)

    def between(self, features: Tensor) -> Tensor:
        weight = self.middle.weight
        return F.conv2d(features, (weight - weight.mean((1, 2, 3), keepdim=True)) * 2.0, padding=1)


class Einsum(Small):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Parameter(torch.randn(12, 12))

    def between(self, features: Tensor) -> Tensor:
        return torch.einsum("nchw,dc->ndhw", features, self.mix)


class Attention(Small):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)

    def between(self, features: Tensor) -> Tensor:
        tokens = features.flatten(2).transpose(1, 2)
        return self.attention(tokens, tokens, tokens)[0].transpose(1, 2).unflatten(2, features.shape[2:])


class Recurrent(Small):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(12, 12, batch_first=True)

    def between(self, features: Tensor) -> Tensor:
        return self.lstm(features.flatten(2).transpose(1, 2))[0].transpose(1, 2).unflatten(2, features.shape[2:])


class Counting(Small):
    """Its own state changes what it does from one call to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def between(self, features: Tensor) -> Tensor:
        self.calls += 1
        return features * (1.0 + self.calls)


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = conv(12, 12, 3), conv(12, 12, 3)

    def forward(self, features: Tensor) -> Tensor:
        return self.two(self.one(features).relu())


class Scripted(Small):
    """A scripted submodule, whose calls nobody sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = torch.jit.script(Inner())

    def between(self, features: Tensor) -> Tensor:
        return self.inner(features)


# network -> what may not move for sure: rows of these layers
HOSTILE = {
    SliceWrites: (), WritesIntoZeros: ("stem",), Numpy: ("stem",), Lists: ("stem",), OneValue: (),
    Largest: ("stem",), Sorted: ("stem",), Neighbours: ("stem",), ComputedWeight: ("middle",), Einsum: (),
    Attention: (), Recurrent: (), Scripted: ("stem",),
}


LEAVING = (Numpy, Lists, OneValue, Largest)  # values become Python numbers


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("method", ["sort", "swap"])
def test_channels_move_or_are_refused_and_the_function_stays(kind, method):
    model = build(kind)
    result = rearranged_alike(model, pictures(), method=method, block_size=2, full=True)
    refused = dict(result.refused)
    assert set(HOSTILE[kind]) <= set(refused)
    if kind in LEAVING:  # a value may choose the path
        assert all("path depend on values" in reason for reason in refused.values())
    else:  # what the trick does not touch moves
        assert "head" in result.permutations
    assert not set(refused) & set(result.permutations)
    assert {layer.name for layer in result.layers} >= set(refused) | set(result.permutations)
    assert all(len(reason) > 15 for reason in refused.values())


@pytest.mark.parametrize("kind", HOSTILE)
def test_spaces_of_torch_prunings_graph_are_held_to_the_same(kind):
    model = build(kind)
    before = outputs_in_double(model, fresh(pictures()))
    result = OneXNPruner(model, pictures(), block_size=2, full=True, rearrange="sort").rearrangement
    assert largest_change(before, outputs_in_double(model, fresh(pictures()))) < 1e-9
    assert set(HOSTILE[kind]) <= set(dict(result.refused))
    assert (kind in LEAVING) == ("head" not in result.permutations)


@pytest.mark.parametrize("limit", [-1e9, 1e9])
@pytest.mark.parametrize("kind", [Branch, EarlyExit])
def test_a_path_that_depends_on_values_keeps_everything_in_its_place(kind, limit):
    """The example takes one path alone; the channels must be right on the other one too."""
    model = build(kind)
    model.limit = limit
    other = copy.deepcopy(model)
    other.limit = -limit
    before = outputs_in_double(other, pictures(5))
    result = rearranged_alike(model, pictures(), method="sort", block_size=2, full=True)
    assert not result.permutations
    assert {"stem", "head"} <= {name for name, reason in result.refused if "path depend on values" in reason}
    model.limit = -limit
    assert largest_change(before, outputs_in_double(model, pictures(5))) == 0.0


def test_a_model_that_differs_from_call_to_call_is_never_moved():
    model = build(Counting)
    before = copy.deepcopy(model.state_dict())
    refused = dict(rearrange(model, pictures(), method="sort", block_size=2).refused)
    assert set(refused) == {"stem", "head"}
    assert all("changes the output" in reason for reason in refused.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
