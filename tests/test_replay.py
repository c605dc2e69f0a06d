"""Rearrangements in a checkpoint: recorded without being passed, and replayed with or without weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import nn

pytest.importorskip("nni")
pytest.importorskip("torch_pruning")

from onexn_plugins import fold, load_checkpoint, rearrange, save_checkpoint
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import masks
from onexn_plugins.nni import OneXNPruner as NniPruner
from onexn_plugins.rearrangement import applied_moves, applied_permutations
from onexn_plugins.torch_pruning import OneXNPruner
from tests.rearrangement.networks import Buffers, Flattened, Grouped, Residual, Small, build, pictures
from tests.test_checkpoint import resealed


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Every value, also those outside the state_dict, and the record."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {"values": {name: tensor.detach().clone() for name, tensor in named.items()},
            "orders": {name: order.tolist() for name, order in applied_permutations(model).items()}}


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return (one["orders"] == other["orders"] and list(one["values"]) == list(other["values"])
            and all(torch.equal(value, other["values"][name]) for name, value in one["values"].items()))


def pruned_by_torch_pruning(model: nn.Module) -> nn.Module:
    rearrange(model, pictures(), block_size=2, method="sort")
    OneXNPruner(model, pictures(), block_size=2, full=True).step()
    return model


def pruned_by_nni(model: nn.Module) -> nn.Module:
    rearrange(model, pictures(), block_size=2, method="sort")
    pruner = NniPruner(model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], block_size=2)
    pruner.compress()
    pruner.unwrap_model()
    return model


def rearranged_by_the_pruner(model: nn.Module) -> nn.Module:
    OneXNPruner(model, pictures(), block_size=2, rearrange="sort").step()
    return model


def rearranged_by_nnis_pruner(model: nn.Module) -> nn.Module:
    pruner = NniPruner(model, [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}], block_size=2, rearrange="sort",
                       example_inputs=pictures())
    pruner.compress()
    pruner.unwrap_model()
    return model


WAYS = (pruned_by_torch_pruning, pruned_by_nni, rearranged_by_the_pruner, rearranged_by_nnis_pruner)


@pytest.mark.parametrize("weights", [True, False], ids=["weights", "replay"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [Buffers, Grouped])
def test_a_fresh_model_becomes_the_saved_one_bit_for_bit(tmp_path, kind, way, weights):
    """Buffers holds one value per channel that no state_dict has: it must follow the permutation of the file."""
    model = way(build(kind))
    assert masks(model)
    assert applied_permutations(model)
    path = save_checkpoint(model, tmp_path / "run.safetensors", weights=weights, epoch=3)
    fresh = build(kind)
    if weights:
        with torch.no_grad():
            for parameter in fresh.parameters():
                parameter.add_(1.0)
    assert load_checkpoint(fresh, path) == {"epoch": 3}
    assert same(snapshot(fresh), snapshot(model))
    assert torch.equal(fresh(pictures()), model(pictures()))
    assert same(snapshot(fold(fresh)), snapshot(fold(model)))


def test_a_file_without_weights_is_small_and_holds_none(tmp_path):
    model = pruned_by_torch_pruning(build(Residual))
    whole = save_checkpoint(model, tmp_path / "whole.safetensors")
    small = save_checkpoint(model, tmp_path / "small.safetensors", weights=False)
    with safe_open(small, "pt") as file:
        assert {key.partition("/")[0].partition(".")[0] for key in file.keys()} == {"masks", "permutations"}  # noqa: SIM118
    with safe_open(whole, "pt") as file:
        assert {key.partition("/")[0].partition(".")[0] for key in file.keys()} == {"masks", "permutations", "weights"}  # noqa: SIM118


def test_the_record_goes_along_with_copies_and_says_where_channels_came_from(tmp_path):
    original = build(Residual)
    model = copy.deepcopy(original)
    result = rearrange(model, pictures(), block_size=2, method="sort")
    rearrange(model, pictures(), block_size=4, method="swap", seed=1)
    for each in (model, copy.deepcopy(model)):
        orders = applied_permutations(each)
        assert set(orders) >= set(result.permutations)
        for name, order in orders.items():
            now, then = (net.get_submodule(name).weight.abs().sum((1, 2, 3)) for net in (each, original))
            assert torch.allclose(now, then[order], rtol=1e-6)
    path = save_checkpoint(model, tmp_path / "twice.safetensors", weights=False)
    load_checkpoint(original, path)
    assert same(snapshot(original), snapshot(model))


def test_a_rearranged_part_of_a_model_is_recorded_with_the_whole(tmp_path):
    def whole():
        torch.manual_seed(1)
        return nn.Sequential(nn.Conv2d(5, 5, 1), build(Buffers))

    model, fresh = whole(), whole()
    rearrange(model[1], pictures(), block_size=2, method="sort")
    assert all(name.startswith("1.") for name in applied_permutations(model))
    rearrange(model, pictures(), block_size=4, method="sort")
    load_checkpoint(fresh, save_checkpoint(model, tmp_path / "run.safetensors", weights=False))
    assert same(snapshot(fresh), snapshot(model))


def test_a_model_that_was_rearranged_otherwise_takes_the_order_of_the_file(tmp_path):
    model, other, plain = (build(Buffers) for _ in range(3))
    rearrange(model, pictures(), block_size=2, method="sort")
    rearrange(other, pictures(), block_size=4, method="swap", seed=3)
    assert not same(snapshot(model), snapshot(other))
    for weights in (True, False):
        for saved, target in ((model, copy.deepcopy(other)), (plain, copy.deepcopy(other)), (model, build(Buffers))):
            path = save_checkpoint(saved, tmp_path / "run.safetensors", weights=weights)
            for _ in range(2):  # a second time changes nothing
                load_checkpoint(target, path)
                assert same(snapshot(target), snapshot(saved))


def test_channels_removed_after_a_rearrangement_make_the_record_void(tmp_path):
    model = build(Small)
    rearrange(model, pictures(), block_size=2, method="sort")
    model.head, model.out = nn.Conv2d(12, 4, 1), nn.Linear(4, 5)
    fresh = build(Small)
    fresh.head, fresh.out = nn.Conv2d(12, 4, 1), nn.Linear(4, 5)
    load_checkpoint(fresh, save_checkpoint(model, tmp_path / "run.safetensors"))
    assert torch.equal(fresh(pictures()), model(pictures()))
    assert applied_moves(fresh) == []


def trained(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        next(model.parameters()).add_(0.5)
    return model


@pytest.mark.parametrize("target", [
    lambda: trained(build(Buffers)), lambda: build(Flattened), lambda: build(Buffers).double(),
    lambda: pruned_by_torch_pruning(trained(build(Buffers))), lambda: nn.Linear(3, 3),
], ids=["other weights", "other network", "other dtype", "rearranged other weights", "layer"])
def test_a_replay_on_the_wrong_model_changes_nothing(tmp_path, target):
    path = save_checkpoint(pruned_by_torch_pruning(build(Buffers)), tmp_path / "run.safetensors", weights=False)
    model = target()
    before = snapshot(model)
    with pytest.raises(OneXNError, match=r"holds another model|holds no weights, and those"):
        load_checkpoint(model, path)
    assert same(snapshot(model), before)


def test_a_run_that_went_on_after_the_masks_cannot_be_replayed(tmp_path):
    path = save_checkpoint(trained(pruned_by_torch_pruning(build(Small))), tmp_path / "run.safetensors", weights=False)
    with pytest.raises(OneXNError, match="after training, save with weights=True"):
        load_checkpoint(build(Small), path)


def first(tensors: dict[str, torch.Tensor], ending: str) -> torch.Tensor:
    return next(tensor for name, tensor in sorted(tensors.items()) if name.endswith(ending))


@pytest.mark.parametrize(("change", "reason"), [
    (lambda content, tensors: first(tensors, "permutation").fill_(0), "twice or not at all"),
    (lambda content, tensors: first(tensors, "positions").add_(100), "positions outside"),
    (lambda content, tensors: first(tensors, "positions").fill_(1), "two channels at one position"),
    (lambda content, tensors: content["replay"].update(sha256="0"), "those of the model do not lead"),
    (lambda content, tensors: content["replay"]["state"].pop("stem.weight"), "not in the model|is missing"),
    (lambda content, tensors: content.update(version=1), "version 1"),
])
def test_files_that_were_made_wrong_are_refused(tmp_path, change, reason):
    path = save_checkpoint(pruned_by_torch_pruning(build(Buffers)), tmp_path / "run.safetensors", weights=False)
    model = build(Buffers)
    before = snapshot(model)
    with pytest.raises(OneXNError, match=reason):
        load_checkpoint(model, resealed(path, tmp_path / "wrong.safetensors", change))
    assert same(snapshot(model), before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "run.safetensors"
    model = pruned_by_torch_pruning(build(Buffers))
    return path, Path(save_checkpoint(model, path, weights=False, epoch=1)).read_bytes(), build(Buffers)


@settings(deadline=None, max_examples=200)
@given(where=st.integers(0, 10**6), bit=st.integers(0, 7), damage=st.sampled_from(["flip", "cut", "insert"]))
def test_a_damaged_file_is_refused(saved, where, bit, damage):
    path, content, model = saved
    where %= len(content)
    flipped = bytes([content[where] ^ (1 << bit)])
    damaged = {"flip": content[:where] + flipped + content[where + 1 :], "cut": content[:where],
               "insert": content[:where] + b"\x07" + content[where:]}[damage]
    bad = path.with_name("bad.safetensors")
    bad.write_bytes(damaged)
    before = snapshot(model)
    with pytest.raises(OneXNError):
        load_checkpoint(model, bad)
    assert same(snapshot(model), before)


JUNK = st.one_of(st.none(), st.integers(), st.text(max_size=3), st.just([]), st.builds(object), st.just(nn.Linear))
UNSAVABLE = st.one_of(st.builds(object), st.just(print), st.just(nn.ReLU()), st.sets(st.integers(), min_size=1),
                      st.binary(), st.just(1j))
NO_PATH = JUNK.filter(lambda path: not isinstance(path, str))
MODELS = (nn.Linear(2, 2, device="meta"), nn.Linear(2, 2))
NO_PLACE = st.sampled_from(["", ".", "/", "nowhere/run.safetensors", "file.txt/run.safetensors", "a\0b", "x" * 300])


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_generated_bad_calls(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "bad_calls"
    folder.mkdir(exist_ok=True)
    (folder / "file.txt").write_text("text")
    model = build(Small)
    good = save_checkpoint(model, folder / "good.safetensors")
    before, content = snapshot(model), Path(good).read_bytes()
    lazy = nn.Sequential(nn.LazyConv2d(4, 1))
    kind = data.draw(st.sampled_from(["model", "meta", "path", "weights", "load path", "load model"]))
    with pytest.raises(OneXNError):
        if kind == "model":
            save_checkpoint(data.draw(JUNK | st.sampled_from([lazy, MODELS[0]])), good)
        elif kind == "meta":
            inside = data.draw(st.sampled_from([lambda x: x, lambda x: [x], lambda x: {"a": (x,)}]))
            save_checkpoint(model, good, epoch=inside(data.draw(UNSAVABLE)))
        elif kind == "path":
            save_checkpoint(model, data.draw(NO_PATH | NO_PLACE.map(folder.joinpath)))
        elif kind == "weights":
            save_checkpoint(model, good, weights=data.draw(JUNK))
        elif kind == "load path":
            load_checkpoint(model, data.draw(JUNK | (NO_PLACE | st.just("file.txt")).map(folder.joinpath)))
        else:
            load_checkpoint(data.draw(JUNK | st.sampled_from([lazy, *MODELS])), good)
    assert same(snapshot(model), before)
    assert Path(good).read_bytes() == content
    assert sorted(file.name for file in folder.iterdir()) == ["file.txt", "good.safetensors"]
