"""Every adapter passes tests/adapters.py, and so does one written here, which shows how a new one is added."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from onexn_plugins import fold, nni, pruning, scores, torch_pruning
from onexn_plugins.cli import main
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import (
    check_layer_name,
    default_layers,
    is_depthwise,
    out_first,
    pattern_of,
    weighted_layers,
)
from onexn_plugins.masking import attach
from onexn_plugins.selection import check_ratio
from onexn_plugins.zoo import load_model
from tests.adapters import (
    CONFORMANCE,
    IMAGES,
    Adapter,
    Call,
    assert_same,
    net,
    what_was_pruned_is_measured_saved_and_exported,
)


def by_torch_pruning(model: nn.Module, call: Call) -> None:
    named = {} if call.layers is None else dict.fromkeys(call.layers, call.ratio)
    if call.together:
        named = {call.layers: call.ratio}
    others = [name for name in weighted_layers(model) if call.layers is not None and name not in call.layers]
    torch_pruning.OneXNPruner(
        model, IMAGES, torch_pruning.BlockScoreImportance(call.score, seed=call.seed), block_size=call.block_size,
        pruning_ratio=call.ratio, pruning_ratio_dict=named, ignored_layers=others, rearrange=call.rearrange,
        scope="global" if call.together else "layer").step()


def by_nni(model: nn.Module, call: Call) -> None:
    entry = {"sparse_ratio": call.ratio} | ({"global_group_id": 1} if call.together else {})
    kinds = ["Conv1d", "Conv2d", "ConvTranspose1d", "ConvTranspose2d"]
    entry |= ({"op_types": kinds, "exclude_op_names": ["stem"]} if call.layers is None
              else {"op_names": list(call.layers)})
    nni.OneXNPruner(model, [entry], block_size=call.block_size, score=call.score, seed=call.seed,
                    rearrange=call.rearrange, example_inputs=IMAGES).compress()


def by_hand(model: nn.Module, call: Call) -> None:
    """A new adapter: it says which layers and which targets, and the core does the rest."""
    score = scores.make_score(call.score, scores.Sources(model, seed=call.seed))
    layers = weighted_layers(model)
    named = [check_layer_name(name, layers) for name in call.layers or ()]
    rule = {name: layer for name, layer in default_layers(model).items() if not is_depthwise(layer)}
    chosen = rule if call.layers is None else {name: layer for name, layer in layers.items() if name in named}
    selected = pruning.select(chosen, named, "Leave it out")
    target = pruning.Target(call.block_size, check_ratio(call.ratio), group="all" if call.together else None)
    targets = dict.fromkeys(selected, target)
    pruning.check(selected, targets)
    if call.rearrange:
        pruning.rearrange(model, IMAGES, selected, targets, call.rearrange)
    ranked = {name: scores.score_blocks(score, out_first(layer, layer.weight), pattern_of(layer, call.block_size), name)
              for name, layer in selected.items()}
    for name, keep in pruning.keep_blocks(ranked, targets).items():
        attach(selected[name], keep, call.block_size, name)


ADAPTERS = (Adapter("torch-pruning", by_torch_pruning), Adapter("nni", by_nni), Adapter("by hand", by_hand))
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS, ids=lambda adapter: adapter.name)


@every_adapter
@pytest.mark.parametrize("check", CONFORMANCE, ids=lambda check: check.__name__)
def test_conformance(adapter, check):
    check(adapter)


@every_adapter
def test_from_pruning_to_file(adapter, tmp_path):
    what_was_pruned_is_measured_saved_and_exported(adapter, tmp_path)


@pytest.mark.parametrize(("model", "block_size"), [("mobilenet_v2", 32), ("shufflenet_v2_x0_5", 16)])
def test_adapters_rearrange_networks_alike(model, block_size):
    """Layers of 16 and 24 channels and a channel shuffle, which torch-pruning's own graph cannot trace."""
    images = torch.randn(1, 3, 64, 64)
    one, other = load_model(model), load_model(model)
    first = torch_pruning.OneXNPruner(one, images, block_size=block_size, rearrange="sort")
    stem = next(name for name, module in other.named_modules() if isinstance(module, nn.Conv2d))
    second = nni.OneXNPruner(
        other, [{"op_types": ["Conv2d"], "exclude_op_names": [stem], "sparse_ratio": 0.5}], block_size=block_size,
        rearrange="sort", example_inputs=images)
    assert first.rearrangement.permutations
    assert {name: order.tolist() for name, order in first.rearrangement.permutations.items()} == {
        name: order.tolist() for name, order in second.rearrangement.permutations.items()}
    first.step()
    second.compress()
    second.unwrap_model()
    assert_same(fold(one).state_dict(), fold(other).state_dict())


def test_a_new_entry_of_the_table_reaches_the_command_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(scores.SCORES, "toy", scores.ScoreEntry(
        lambda sources: lambda weight, pattern, layer: -scores.l1(weight, pattern), "the smallest first"))
    monkeypatch.setattr("sys.argv", ["onexn"])
    with pytest.raises(SystemExit):
        main(["prune", "--help"])
    assert "toy: the smallest first" in " ".join(capsys.readouterr().out.split())
    for score in ("l1", "toy"):
        assert main(["prune", "tests.adapters:net", "--input-shape", "1,3,8,8", "--importance", score, "--json",
                     "--output", str(tmp_path / f"{score}.safetensors")]) == 0
    assert json.loads(capsys.readouterr().out.split("\n}\n")[0] + "\n}")["sparsity"]["blocks"] > 0
    small, large = (load_file(tmp_path / f"{score}.safetensors") for score in ("toy", "l1"))
    dense = net().state_dict()
    for name in ("wide.weight", "point.weight"):
        assert small[name].abs().sum() < large[name].abs().sum() < dense[name].abs().sum()


def test_a_score_that_does_not_exist_names_those_that_do():
    with pytest.raises(OneXNError, match="score: must be one of l1, angular, random"):
        torch_pruning.BlockScoreImportance("l7")
    with pytest.raises(OneXNError, match="score: must be one of l1, angular, random"):
        nni.OneXNPruner(net(), [{"op_names": ["point"], "sparse_ratio": 0.5}], score=7)
