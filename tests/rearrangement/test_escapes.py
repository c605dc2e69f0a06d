"""Values that leave torch, or decide what is done: the example shows one path, and the function holds on the other too.

Each network has a limit that chooses the path. It is rearranged by an example on one side of it and compared on both,
with channel spaces from the package's own tracer and from torch-pruning's graph.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from onexn_plugins.rearrangement import Member, Space, find_spaces, rearrange
from onexn_plugins.torch_pruning import OneXNPruner
from tests.rearrangement.comparing import fresh, largest_change, outputs_in_double
from tests.rearrangement.networks import Small, build, conv, pictures


class Either(Small):
    """Two paths between stem and head, of which one mirrors the channels."""

    limit = 0.0

    def between(self, features: Tensor) -> Tensor:
        return features.flip(1) if self.above(features) else features * 2.0

    def above(self, features: Tensor) -> bool:
        raise NotImplementedError


class ByComparison(Either):
    def above(self, features):
        return features[:, 0].mean() * 0.0 + self.limit > features[:, 1].mean()


class ByList(Either):
    def above(self, features):
        return features.mean().tolist() > self.limit


class ByNumpy(Either):
    def above(self, features):
        return features.mean().numpy() > self.limit


class ByArray(Either):
    def above(self, features):
        return np.asarray(features).mean() > self.limit


class ByExchange(Either):
    def above(self, features):
        return np.from_dlpack(features.mean().reshape(1))[0] > self.limit


class ByText(Either):
    def above(self, features):
        return float(f"{features.mean():.9f}") > self.limit


class ByMemory(Either):
    def above(self, features):
        return features.mean().reshape(1).untyped_storage().tolist() and self.limit < 0


class ByLoop(Either):
    def above(self, features):
        return all(value > self.limit for value in features.mean((2, 3)).flatten())


class ByCount(Either):
    """The size of a result depends on values."""

    def above(self, features):
        return (features > self.limit).nonzero().shape[0] > 10


class BySelection(Either):
    def above(self, features):
        return features[features > self.limit].shape[0] > 10


class ByPlaces(Either):
    def above(self, features):
        return torch.where(features > self.limit)[0].shape[0] > 10


@torch.jit.script
def scripted_above(features: Tensor, limit: float) -> bool:
    return bool(features.mean() > limit)


class ByScript(Either):
    def above(self, features):
        return scripted_above(features, self.limit)


class ScriptedGate(nn.Module):
    """Reads all channels, or one of them."""

    def forward(self, features: Tensor, limit: float) -> Tensor:
        if bool(features.mean() > limit):
            return features.mean([1, 2, 3])
        return features[:, 0].mean([1, 2])


class Gated(Either):
    """A branch inside a scripted submodule."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = torch.jit.script(ScriptedGate())

    def between(self, features):
        return features * self.gate(features, self.limit)[:, None, None, None]


class Rolled(Either):
    def between(self, features):
        return torch.roll(features, int((features.mean() > self.limit).long() * 3), 1)


class Repeated(Either):
    def between(self, features):
        counts = (features.mean((0, 2, 3)) * 0.0 > self.limit).long() + 1
        return features.repeat_interleave(counts, dim=1)[:, :12]


class Picking(Either):
    """One channel, whose number depends on the picture, is read twice."""

    def __init__(self) -> None:
        super().__init__(13)

    def between(self, features):
        return torch.cat([features, self.pick(features, (features.mean() > self.limit).long() * 3)], dim=1)

    def pick(self, features, number):
        return features[:, number][:, None]


class PickingSlice(Picking):
    def pick(self, features, number):
        return features[:, number : number + 1]


class PickingSelected(Picking):
    def pick(self, features, number):
        return features.index_select(1, number.reshape(1))


class PickingGathered(Picking):
    def pick(self, features, number):
        return features.gather(1, number.expand(len(features), 1, *features.shape[2:]))


class Writing(Either):
    """One channel, whose number depends on the picture, is put out."""

    def between(self, features):
        features = features.clone()
        features[:, ((features.mean() > self.limit).long() * 3).reshape(1)] = 0.0
        return features


class Strongest(Either):
    """The number of the strongest channel is a factor: a lucky order may hide it from every probe."""

    def between(self, features):
        return features * (1.0 + features.mean((2, 3)).argmax(1))[:, None, None, None]


PATHS = (ByComparison, ByList, ByNumpy, ByArray, ByExchange, ByText, ByMemory, ByLoop, ByCount, BySelection, ByPlaces,
         ByScript, Gated, Rolled, Repeated, Picking, PickingSlice)
READS = (PickingSelected, PickingGathered, Writing, Strongest)


def reordered(model: nn.Module, source: str) -> dict[str, str]:
    """Rearrange by the spaces of one source; (layer, reason) of what stays."""
    if source == "tracer":
        return dict(rearrange(model, pictures(), method="sort", block_size=2, full=True).refused)
    pruner = OneXNPruner(model, pictures(), block_size=2, full=True, rearrange="sort")
    return dict(pruner.rearrangement.refused)


@pytest.mark.parametrize("source", ["tracer", "graph"])
@pytest.mark.parametrize("kind", [*PATHS, *READS])
def test_the_path_that_the_example_does_not_take_stays_right_too(kind, source):
    for taken in (-1e9, 1e9):
        model = build(kind)
        twin = copy.deepcopy(model)
        model.limit = taken
        refused = reordered(model, source)
        assert "stem" in refused
        assert (kind in READS) == ("head" not in refused)
        assert all("path depend on values" in reason for reason in refused.values()) == (kind in PATHS)
        for limit in (-1e9, 1e9):
            model.limit = twin.limit = limit
            images = fresh(pictures())
            assert largest_change(outputs_in_double(twin, images), outputs_in_double(model, images)) < 1e-9


def test_the_module_that_decides_is_named():
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(conv(5, 12), ByList())

        def forward(self, images):
            return self.body[1](self.body[0](images)[:, :5])

    reasons = dict(rearrange(build(Outer), pictures(), method="sort", block_size=2).refused)
    assert "tolist in module body.1 lets the model's path depend on values" in reasons["body.0"]


def test_channels_that_enter_a_script_stay_and_the_others_move():
    class Scripted(Small):
        def __init__(self) -> None:
            super().__init__()
            self.inner = torch.jit.script(nn.Sequential(conv(12, 12), nn.ReLU()))

        def between(self, features):
            return self.inner(features)

    result = rearrange(build(Scripted), pictures(), method="sort", block_size=2)
    reasons = dict(result.refused)
    assert "visible to code that cannot be read" in reasons["stem"]
    assert "head" in result.permutations


def everything_follows(model: nn.Module) -> Space:
    """The stem's channels with all that carries them in Small."""
    names = [("stem.weight", 0), ("stem.bias", 0), ("head.weight", 1)]
    names += [(f"norm.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")]
    return Space.of([Member(name, dim, torch.arange(12)[:, None]) for name, dim in names], 12)


def test_spaces_from_elsewhere_meet_the_same_check():
    for kind in (Strongest, ByList):
        model = build(kind)
        space = everything_follows(model)
        assert find_spaces(model, pictures()).objection(space)
        result = rearrange(model, pictures(), method="sort", block_size=2, spaces=[space])
        assert result.moves == []
        assert "stem" in dict(result.refused)
    plain = build(Small)
    space = everything_follows(plain)
    assert find_spaces(plain, pictures()).objection(space) is None
    assert "stem" in rearrange(plain, pictures(), method="sort", block_size=2, spaces=[space]).permutations
    unseen = Space.of([Member("spare.weight", 0, torch.arange(8)[:, None])], 8)
    plain.spare = conv(8, 8)
    assert "was not seen" in find_spaces(plain, pictures()).objection(unseen)


class WantsTargets(Small):
    """An auxiliary head reads the stem in training, where the forward fails without targets."""

    def __init__(self) -> None:
        super().__init__()
        self.aux = conv(12, 4)

    def forward(self, images, targets=None):
        features = self.norm(self.stem(images)).relu()
        logits = self.out(self.head(features).relu().mean((2, 3)))
        if not self.training:
            return logits
        return logits, self.aux(features).mean((2, 3)) - targets.mean()


@pytest.mark.parametrize("source", ["tracer", "graph"])
def test_a_branch_that_cannot_be_run_keeps_everything_in_its_place(source):
    model = build(WantsTargets).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    refused = reordered(model, source)
    assert set(refused) >= {"stem", "head", "aux"}
    assert all("aux may read them in training" in reason for reason in refused.values())
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
