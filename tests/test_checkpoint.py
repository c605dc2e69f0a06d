"""Checkpoints: what comes back, how a run resumes, and what is refused with the model unchanged."""

from __future__ import annotations

import copy
import hashlib
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from onexn_plugins import fold, load_checkpoint, save_checkpoint
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import attach, mask_of, masks
from onexn_plugins.packing import pack, pack_bits, to_json, unpack, unpack_bits
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.scores import l1
from onexn_plugins.selection import keep_highest, only_shrinking
from tests.strategies import patterns

INPUTS = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def network(seed: int = 0, width: int = 10) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, width, 3),
                         nn.Flatten(), nn.Linear(width * 16, 5))


def prune(model: nn.Module, ratio: float, *, straight_through: bool = False) -> nn.Module:
    for name in ("3", "5"):
        layer, pattern = model.get_submodule(name), BlockPattern.of(model.get_submodule(name).weight, 4)
        mask = mask_of(layer)
        scores = only_shrinking(l1(layer.weight, pattern), None if mask is None else mask.keep)
        attach(layer, keep_highest(scores, ratio), 4, name, straight_through=straight_through)
    return model


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        optimizer.zero_grad()
        (model(INPUTS + step).square().mean()).backward()
        optimizer.step()


def everything(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


@settings(deadline=None, max_examples=50)
@given(pattern=patterns(), seed=st.integers(0, 99))
def test_masks_survive_as_bits(pattern, seed):
    keep = torch.rand(pattern.shape, generator=torch.Generator().manual_seed(seed)) < 0.5
    bits = pack_bits(keep)
    assert len(bits) == -(-keep.numel() // 8)
    assert torch.equal(unpack_bits(bits, pattern.shape), keep)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
nested = st.recursive(plain, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(
    st.integers() | st.text() | st.tuples(st.integers(), st.text()), inner), max_leaves=12)


@settings(deadline=None, max_examples=100)
@given(value=nested)
def test_any_plain_value_survives(value):
    tensors = {}
    assert unpack(json.loads(to_json(pack(value, "meta", tensors))), tensors) == value


def test_a_masked_model_comes_back_in_a_fresh_one(tmp_path):
    model = prune(network(), 0.5, straight_through=True).half()
    optimizer = torch.optim.Adam(model.parameters())
    meta = {"epoch": 3, "lr": [0.1, float("inf")], "optimizer": optimizer.state_dict(), "noise": torch.rand(2, 3)}
    path = save_checkpoint(model, tmp_path / "run.safetensors", **meta)
    fresh = network(seed=5).half()
    found = load_checkpoint(fresh, path)
    assert same(everything(fresh), everything(model))
    assert all(mask.straight_through for mask in masks(fresh).values())
    assert torch.equal(found.pop("noise"), meta.pop("noise"))
    assert found == meta
    assert same(everything(fold(fresh)), everything(fold(model)))


def test_masks_take_a_bit_per_block(tmp_path):
    path = save_checkpoint(prune(network(), 0.5), tmp_path / "run.safetensors")
    stored = load_file(path)
    assert stored["masks/3"].dtype == torch.uint8
    assert len(stored["masks/3"]) == 3
    assert "weights/3.weight" in stored
    with safe_open(path, "pt") as file:
        assert list(file.metadata()) == ["onexn"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_run_cut_in_the_middle_of_gradual_pruning_resumes_bit_for_bit(tmp_path, momentum):
    def start():
        model = network()
        return model, torch.optim.SGD(model.parameters(), 0.05, momentum=momentum, weight_decay=1e-3)

    def go_on(model, optimizer, ratios):
        for ratio in ratios:
            prune(model, ratio)
            train(model, optimizer, 3)

    through, optimizer = start()
    go_on(through, optimizer, [0.25, 0.5, 0.75])

    cut, optimizer = start()
    go_on(cut, optimizer, [0.25])
    save_checkpoint(cut, tmp_path / "cut.safetensors", optimizer=optimizer.state_dict())
    resumed, optimizer = start()
    with torch.no_grad():
        resumed[3].weight.zero_()
    optimizer.load_state_dict(load_checkpoint(resumed, tmp_path / "cut.safetensors")["optimizer"])
    go_on(resumed, optimizer, [0.5, 0.75])
    assert same(everything(resumed), everything(through))


def test_loading_keeps_parameters_and_memory_format(tmp_path):
    path = save_checkpoint(prune(network(), 0.5), tmp_path / "run.safetensors")
    fresh = network(seed=2).to(memory_format=torch.channels_last)
    before = {id(parameter) for parameter in fresh.parameters()}
    load_checkpoint(fresh, path)
    assert {id(parameter) for parameter in fresh.parameters()} == before
    assert fresh[3].parametrizations.weight.original.is_contiguous(memory_format=torch.channels_last)


def test_tied_weights_and_foreign_parametrizations(tmp_path):
    def tied():
        normed = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), normed)
        model[1].weight = model[0].weight
        return model

    model, fresh = tied(), tied()
    attach(model[0], torch.eye(2, 8).bool(), 4)
    load_checkpoint(fresh, save_checkpoint(model, tmp_path / "tied.safetensors"))
    assert same(everything(fresh), everything(model))
    assert fresh[0].parametrizations.weight.original is fresh[1].weight


def resealed(path, target, change):
    """The file with changed content under a correct checksum: what a file of another program or version is."""
    with safe_open(path, "pt") as file:
        content = json.loads(json.loads(file.metadata()["onexn"])["content"])
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    change(content, tensors)
    text = to_json(content)
    digest = hashlib.sha256(text.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    save_file(tensors, target, {"onexn": to_json({"content": text, "sha256": digest.hexdigest()})})
    return target


@pytest.mark.parametrize(("change", "reason"), [
    (lambda content, tensors: content.update(version=3), "version 3"),
    (lambda content, tensors: content.update(version=1), "version 1"),
    (lambda content, tensors: content.update(format="other"), "format other"),
    (lambda content, tensors: content["masks"]["3"].update(block_size=2), "does not fit"),
    (lambda content, tensors: content["masks"]["3"].update(block_size=99), "1 to 32"),
    (lambda content, tensors: content["masks"].update({"1": content["masks"]["3"]}), "has no blocks in the model"),
    (lambda content, tensors: tensors.pop("masks/3"), "does not fit"),
    (lambda content, tensors: tensors.pop("weights/3.weight"), "missing in the file"),
    (lambda content, tensors: tensors.update({"weights/9.weight": torch.ones(1)}), "not in the model"),
    (lambda content, tensors: tensors.update({"weights/3.bias": torch.ones(10).double()}), "float64"),
])
def test_files_of_another_version_or_model_are_refused(tmp_path, change, reason):
    path = save_checkpoint(prune(network(), 0.5), tmp_path / "run.safetensors")
    model = network(seed=3)
    before = everything(model)
    with pytest.raises(OneXNError, match=reason):
        load_checkpoint(model, resealed(path, tmp_path / "other.safetensors", change))
    assert same(everything(model), before)


def test_another_model_is_refused(tmp_path):
    path = save_checkpoint(prune(network(), 0.5), tmp_path / "run.safetensors")
    for other in (network(width=12), nn.Linear(3, 3), nn.Sequential(network()), network().double()):
        before = everything(other)
        with pytest.raises(OneXNError, match="holds another model"):
            load_checkpoint(other, path)
        assert same(everything(other), before)
    masked = network()
    attach(masked[0], torch.ones(2, 3).bool(), 4)
    before = everything(masked)
    with pytest.raises(OneXNError, match="carries a mask that"):
        load_checkpoint(masked, path)
    assert same(everything(masked), before)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "run.safetensors"
    return path, Path(save_checkpoint(prune(network(), 0.5), path, epoch=1)).read_bytes()


@settings(deadline=None, max_examples=250)
@given(data=st.data())
def test_a_damaged_file_is_refused(saved, data):
    path, content = saved
    where = data.draw(st.integers(0, len(content) - 1) | st.integers(0, 2500))
    damage = data.draw(st.sampled_from(["flip", "cut", "insert"]))
    if damage == "flip":
        flipped = content[where] ^ (1 << data.draw(st.integers(0, 7)))
        damaged = content[:where] + bytes([flipped]) + content[where + 1 :]
    else:
        damaged = content[:where] if damage == "cut" else content[:where] + b"\x07" + content[where:]
    bad = path.with_name("bad.safetensors")
    bad.write_bytes(damaged)
    model = network(seed=4)
    before = everything(model)
    with pytest.raises(OneXNError):
        load_checkpoint(model, bad)
    assert same(everything(model), before)


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 64, b"\xff" * 4096])
def test_what_is_no_checkpoint_is_refused(tmp_path, content):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    for bad in (path, tmp_path / "absent", tmp_path):
        with pytest.raises(OneXNError):
            load_checkpoint(network(), bad)
    save_file({"weight": torch.ones(2)}, path)
    with pytest.raises(OneXNError, match="no checkpoint of onexn_plugins"):
        load_checkpoint(network(), path)


def test_what_cannot_be_saved_leaves_no_file(tmp_path):
    path = tmp_path / "run.safetensors"
    save_checkpoint(network(), path, epoch=1)
    for meta in ({"teacher": network()}, {"when": {1: object()}}, {"f": print}):
        with pytest.raises(OneXNError, match="cannot be saved"):
            save_checkpoint(network(), path, **meta)
    with pytest.raises(OneXNError, match="folder does not exist"):
        save_checkpoint(network(), tmp_path / "nowhere" / "run.safetensors")
    assert load_checkpoint(network(), path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_copy_of_a_masked_model_is_saved_alike(tmp_path):
    model = prune(network(), 0.5)
    first = save_checkpoint(model, tmp_path / "a.safetensors")
    second = save_checkpoint(copy.deepcopy(model), tmp_path / "b.safetensors")
    assert Path(first).read_bytes() == Path(second).read_bytes()
