"""What every adapter must do: `CONFORMANCE` is a list of checks, each called with an `Adapter`.

An adapter of a new toolkit passes them by bringing its own `Adapter` to tests/test_adapters.py.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from onexn_plugins import export_onnx, fold, load_checkpoint, measure, save_checkpoint, scores
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import out_first, pattern_of, weighted_layers
from onexn_plugins.pattern import BlockPattern, nonzero_blocks
from onexn_plugins.rearrangement.run import rearrange_layers
from onexn_plugins.selection import keep_highest, keep_highest_globally, num_pruned

IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(7))
CHOSEN = ("grouped", "narrow", "wide", "point", "up", "track", "back")  # by the default rule
BY_NAME = (*CHOSEN, "classifier")


@dataclass(frozen=True)
class Call:
    """One call in the words that all toolkits have.

    Attributes:
        layers: named one by one; None for the toolkit's rule for all convolutions but the stem.
        ratio: of every layer, or of all together.
        together: the layers compete for one budget of blocks.
        score: a name of the table, or a function.
    """

    layers: tuple[str, ...] | None = CHOSEN
    ratio: float = 0.5
    block_size: int = 4
    together: bool = False
    score: Any = "l1"
    seed: int = 0
    rearrange: bool | str = False


@dataclass(frozen=True)
class Adapter:
    """A toolkit's way to do a call: it prunes the model in place, up to where fine-tuning begins."""

    name: str
    prune: Callable[[nn.Module, Call], None]


class Net(nn.Module):
    """Tails, conv groups, a depthwise layer, one narrower than a block, one of a single channel, a residual.

    Then layers of other kinds: a grouped transposed one, one of one dimension, and one of both.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 12, 3, padding=1), nn.BatchNorm2d(12)
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.grouped = nn.Conv2d(12, 18, 3, padding=1, groups=2)
        self.narrow = nn.Conv2d(18, 3, 1)
        self.wide = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.point = nn.Conv2d(16, 16, 1)
        self.single = nn.Conv2d(16, 1, 1)
        self.up = nn.ConvTranspose2d(16, 12, 4, 2, 1, groups=2)
        self.track = nn.Conv1d(12, 14, 3, padding=2, dilation=2)
        self.back = nn.ConvTranspose1d(14, 14, 2, 2, bias=False)
        self.classifier = nn.Linear(14, 5)

    def forward(self, images: Tensor) -> Tensor:
        features = self.grouped(self.depthwise(self.norm(self.stem(images)).relu())).relu()
        features = self.wide(self.narrow(features))
        features = features + self.point(features).relu()
        features = self.up(features * self.single(features).sigmoid()).relu()
        return self.classifier(self.back(self.track(features.mean(2))).relu().mean(2))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def expected_masks(model: nn.Module, call: Call) -> dict[str, Tensor]:
    """Kept blocks by the core's own functions."""
    ranked = {}
    for name in CHOSEN if call.layers is None else call.layers:
        layer = model.get_submodule(name)
        ranked[name] = scores.make_score(call.score, scores.Sources(model, seed=call.seed))(
            out_first(layer, layer.weight), pattern_of(layer, call.block_size), name)
    if call.together:
        return keep_highest_globally(ranked, call.ratio)
    return {name: keep_highest(each, call.ratio) for name, each in ranked.items()}


def kept(model: nn.Module, layers: tuple[str, ...], block_size: int) -> dict[str, Tensor]:
    """Blocks with any weight in a folded model."""
    found = {}
    for name in layers:
        layer = model.get_submodule(name)
        found[name] = nonzero_blocks(out_first(layer, layer.weight), pattern_of(layer, block_size))
    return found


def assert_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value.nan_to_num(123.0), other[name].nan_to_num(123.0)), name


def masks_are_those_of_the_core(adapter: Adapter) -> None:
    calls = [Call(), Call(None), Call(BY_NAME, 0.7, 3), Call(ratio=0.9, block_size=32), Call(ratio=0.0),
             Call(ratio=1.0), Call(BY_NAME, 0.37, 5, together=True), Call(score="random", seed=3, ratio=0.61)]
    for seed, call in enumerate(calls):
        model = net(seed)
        expected = expected_masks(model, call)
        dense = copy.deepcopy(model)
        adapter.prune(model, call)
        found = kept(fold(model), tuple(expected), call.block_size)
        for name, keep in expected.items():
            assert torch.equal(found[name], keep), (call, name)
            weight, whole = model.get_submodule(name).weight, dense.get_submodule(name).weight
            assert torch.equal(weight[weight != 0], whole[weight != 0])
        assert torch.equal(model.single.weight, dense.single.weight)
        assert torch.equal(model.depthwise.weight, dense.depthwise.weight)


def the_mask_survives_training(adapter: Adapter) -> None:
    model = net()
    before = copy.deepcopy(model)
    adapter.prune(model, Call())
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=0.1)
    model.train()
    for _ in range(3):
        optimizer.zero_grad()
        model(IMAGES).square().sum().backward()
        optimizer.step()
    fold(model)
    for name, keep in expected_masks(before, Call()).items():
        assert torch.equal(kept(model, (name,), 4)[name], keep)
        weight, old = model.get_submodule(name).weight, before.get_submodule(name).weight
        assert not torch.equal(weight[weight != 0], old[weight != 0]), "it was trained"


def fold_gives_a_plain_model_of_the_same_function(adapter: Adapter) -> None:
    model = net()
    keys, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    adapter.prune(model, Call())
    with torch.no_grad():
        masked = model.eval()(IMAGES)
    assert fold(model) is model
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == kinds
    assert not any("forward" in vars(module) or hasattr(module, "parametrizations") for module in model.modules())
    with torch.no_grad():
        assert torch.equal(model(IMAGES), masked)


def rearranged_models_are_those_of_the_core(adapter: Adapter) -> None:
    for call in (Call(rearrange=True), Call(None, 0.7, 3, rearrange="sort"), Call(BY_NAME, 0.75, 2, rearrange="sort")):
        model, reference = net(), net()
        with torch.no_grad():
            before = model(IMAGES)
        layers = {name: layer for name, layer in weighted_layers(reference).items() if name in (call.layers or CHOSEN)}
        rearrange_layers(reference, IMAGES, layers, block_size=call.block_size, pruning_ratio=call.ratio,
                         method="sort" if call.rearrange == "sort" else "swap")
        adapter.prune(model, call)
        expected = expected_masks(reference, call)
        found = kept(fold(model), tuple(expected), call.block_size)
        for name, keep in expected.items():
            assert torch.equal(found[name], keep), (call, name)
            reference.get_submodule(name).weight.data.mul_(model.get_submodule(name).weight != 0)
        assert_same(model.state_dict(), reference.state_dict())
        again = net()
        adapter.prune(again, replace(call, ratio=0.0))
        with torch.no_grad():
            assert torch.allclose(fold(again)(IMAGES), before, rtol=1e-4, atol=1e-6)


def refusals_name_the_place_and_change_nothing(adapter: Adapter) -> None:
    def spoil(name: str, value: float) -> Callable[[nn.Module], None]:
        return lambda model: model.get_submodule(name).weight.data.view(-1)[3:4].fill_(value)  # type: ignore[operator,union-attr]

    cases: list[tuple[str, Call, Callable[[nn.Module], Any]]] = [
        ("points", Call((*CHOSEN, "points")), lambda model: None),
        ("depthwise", Call((*CHOSEN, "depthwise")), lambda model: None),
        ("single", Call((*CHOSEN, "single")), lambda model: None),
        ("point", Call(), spoil("point", float("nan"))),
        ("point", Call(rearrange=True), spoil("point", float("inf"))),
        ("point", Call(), lambda model: parametrizations.weight_norm(model.point)),
        ("score", Call(score="l7"), lambda model: None),
        ("ratio", Call(ratio=1.5), lambda model: None),
        ("ratio", Call(ratio=float("nan")), lambda model: None),
        ("block_size", Call(block_size=33), lambda model: None),
        ("block_size", Call(block_size=0, rearrange=True), lambda model: None),
        ("method", Call(rearrange="best"), lambda model: None),
    ]
    for place, call, change in cases:
        model = net()
        change(model)
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(OneXNError) as refused:
            adapter.prune(model, call)
        assert place in str(refused.value), place
        assert refused.value.reason, place
        assert refused.value.fix, place
        assert_same(model.state_dict(), before)
        assert not any("forward" in vars(module) for module in model.modules())


def a_score_that_fails_half_way_leaves_no_mask(adapter: Adapter) -> None:
    def failing(weight: Tensor, pattern: BlockPattern, layer: str) -> Tensor:
        if layer == "wide":
            raise ValueError("no moments")
        return scores.l1(weight, pattern)

    for score, reason in ((failing, "no moments"), (lambda weight, pattern, layer: torch.ones(3), "not"),
                          (lambda weight, pattern, layer: torch.full(pattern.shape, torch.nan), "NaN")):
        model = net()
        before = copy.deepcopy(model.state_dict())
        with pytest.raises(OneXNError, match=reason):
            adapter.prune(model, Call(score=score))
        assert_same(fold(model).state_dict(), before)


def a_layer_without_blocks_stays_dense_with_a_note(adapter: Adapter) -> None:
    notes: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: notes.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("onexn_plugins")
    logger.addHandler(handler)
    try:
        adapter.prune(net(), Call(None))
    finally:
        logger.removeHandler(handler)
    assert any("stay dense" in note and "one output channel" in note and note.endswith("single") for note in notes)


def a_score_of_the_users_own_is_followed(adapter: Adapter) -> None:
    def largest(weight: Tensor, pattern: BlockPattern, layer: str) -> Tensor:
        return pattern.blocks(weight).abs().amax(-1)

    model = net()
    expected = expected_masks(model, Call(score=largest))
    adapter.prune(model, Call(score=largest))
    found = kept(fold(model), CHOSEN, 4)
    assert all(torch.equal(found[name], keep) for name, keep in expected.items())


def a_new_entry_of_the_table_is_followed(adapter: Adapter) -> None:
    """One that gathers state of the model when the first layer is scored, and one that lacks what it needs."""
    def make(sources: scores.Sources) -> scores.BlockScore:
        if sources.seed == 13:
            raise OneXNError("score toy", "needs luck", "Use another seed")
        return lambda weight, pattern, layer: (
            scores.l1(weight, pattern) * -1 - next(sources.model.parameters()).abs().sum())  # type: ignore[union-attr]

    scores.SCORES["toy"] = scores.ScoreEntry(make, "the smallest first")
    try:
        model, call = net(), Call(score="toy")
        expected = expected_masks(model, call)
        adapter.prune(model, call)
        found = kept(fold(model), CHOSEN, 4)
        assert all(torch.equal(found[name], keep) for name, keep in expected.items())
        unlucky = net()
        with pytest.raises(OneXNError, match="needs luck"):
            adapter.prune(unlucky, replace(call, seed=13, rearrange=True))
        assert_same(unlucky.state_dict(), net().state_dict())
    finally:
        del scores.SCORES["toy"]


def what_was_pruned_is_measured_saved_and_exported(adapter: Adapter, folder: Any) -> None:
    model, call = net(), Call(block_size=32, rearrange="sort")
    adapter.prune(model, call)
    fold(model)
    report = {layer.name: layer for layer in measure(model, 32).layers}
    for name in CHOSEN:
        assert report[name].block_sparse
        assert report[name].blocks - report[name].kept == num_pruned(report[name].blocks, call.ratio)
    save_checkpoint(model, folder / "pruned.safetensors")
    again = net(1)
    load_checkpoint(again, folder / "pruned.safetensors")
    assert_same(fold(again).state_dict(), model.state_dict())
    assert export_onnx(model, IMAGES, folder / "pruned.onnx", block_size=32)


CONFORMANCE = (
    masks_are_those_of_the_core,
    the_mask_survives_training,
    fold_gives_a_plain_model_of_the_same_function,
    rearranged_models_are_those_of_the_core,
    refusals_name_the_place_and_change_nothing,
    a_score_that_fails_half_way_leaves_no_mask,
    a_layer_without_blocks_stays_dense_with_a_note,
    a_score_of_the_users_own_is_followed,
    a_new_entry_of_the_table_is_followed,
)
