"""The benchmark's own arithmetic, on a network of two layers and on made-up rows, and its README."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks.rearrangement import bound, kept_l1, networks
from benchmarks.rearrangement.readme import README, filled
from benchmarks.rearrangement.trained import TRAINED, Trained
from onexn_plugins.layers import prunable_layers
from onexn_plugins.rearrangement import Member, Space, find_spaces, rearrange
from onexn_plugins.rearrangement.norms import KernelNorms
from tests.rearrangement.networks import Concat, Grouped, Residual, build, pictures
from tests.rearrangement.test_search import convolution, partitions

TITLES = [network.title for network in TRAINED.values()]


def made_up(block_size: int, ratio: float, none: float) -> kept_l1.Row:
    return {"name": f"1×{block_size}", "block_size": block_size, "ratio": ratio, "none": none, "sort": none + 0.01,
            "swap": none + 0.05, "bound": none + 0.1, "closed": 0.5, "sort_seconds": 1.0, "swap_seconds": 2.0,
            "proof_error": 1e-15}


def test_a_cell_leaves_the_model_as_it_was_and_lies_between_none_and_the_bound():
    model = build(Residual)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    network = Trained("residual", "none", tuple(pictures().shape), lambda: model)
    row = kept_l1._row(network, model, find_spaces(model, pictures()).spaces, 4, 0.5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert row["none"] <= row["swap"] <= row["bound"]
    assert row["sort"] <= row["swap"]
    assert row["closed"] == pytest.approx((row["swap"] - row["none"]) / (row["bound"] - row["none"]))
    assert row["proof_error"] < 1e-9


@pytest.mark.parametrize("ratio", [0.25, 0.5, 0.75])
def test_the_bound_lies_between_the_best_of_all_arrangements_and_single_kernels(ratio):
    orders = torch.tensor(list(partitions(list(range(8)), 2)))
    space = Space.of([Member("conv.weight", 0, torch.arange(8)[:, None])], 8)
    for seed in range(6):
        layers = {"conv": convolution(8, 10, seed=seed)}
        norms, single = KernelNorms(layers, 2, ratio), KernelNorms(layers, 1, ratio).retained()[1]
        best, order = max(((norms.moved([("conv", torch.arange(8))], order).retained()[1], order) for order in orders),
                          key=lambda pair: pair[0])
        assert best * (1 - 1e-6) <= bound.most_kept(layers, [space], ratio)  # whatever the thresholds
        layers["conv"].weight.data = layers["conv"].weight.data[order]
        assert best * (1 - 1e-6) <= bound.most_kept(layers, [space], ratio) < single


@pytest.mark.parametrize("seed", [0, 1])
def test_swap_finds_nearly_the_best_pairs(seed):
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 48, 1), convolution(128, 48, seed=seed), torch.nn.Conv2d(128, 4, 1))
    layers, images = {"1": model[1]}, torch.randn(1, 3, 4, 4)
    kept = rearrange(model, images, block_size=2, ignored_layers=["0", "2"]).layers[0].retained_after
    assert kept > 0.9995 * bound.most_kept(layers, find_spaces(model, images).spaces, 0.5)


@pytest.mark.parametrize("kind", [Residual, Concat, Grouped])
def test_no_rearranged_network_keeps_more_than_the_bound(kind):
    model = build(kind)
    spaces, layers = find_spaces(model, pictures()).spaces, prunable_layers(model)
    before = bound.most_kept(layers, spaces, 0.5)
    kept = rearrange(model, pictures(), block_size=2).retained_after
    assert kept * (1 - 1e-6) <= bound.most_kept(layers, spaces, 0.5)
    assert kept * (1 - 1e-6) <= before


def test_means_are_over_cells_that_every_network_has(tmp_path):
    rows = {TITLES[0]: [made_up(4, 0.5, 0.6), made_up(8, 0.5, 0.5)], TITLES[1]: [made_up(4, 0.5, 0.7)]}
    report = tmp_path / "kept_l1.json"
    kept_l1.save(kept_l1.page(rows, {}), report)
    assert kept_l1.measured(report) == rows
    mean, *single = json.loads(report.read_text())["sections"]
    assert [section["heading"] for section in single] == TITLES[:2]
    (row,) = mean["table"]["rows"]
    assert (row["name"], row["none"], row["swap"]) == ("1×4", pytest.approx(0.65), pytest.approx(0.7))


def test_a_network_measured_again_takes_its_own_place(tmp_path):
    report = tmp_path / "networks.json"
    for name, seconds in (("one", 1.0), ("other", 2.0), ("one", 3.0)):
        sections = networks._merged(report, "swap", {"name": name, "seconds": seconds})
        networks.save(networks.Page("", "", sections), report)
    assert [(row["name"], row["seconds"]) for row in sections[0].table.rows] == [("one", 3.0), ("other", 2.0)]
    assert len(networks._merged(report, "sort", {"name": "one"})) == 2


def test_reasons_name_their_layers():
    told = networks._why({"a": "stays", "b": "stays", "c": "stays", "d": "is the output"})
    assert told == "a, b and 1 more: stays; d: is the output"


def test_the_readme_shows_the_committed_results():
    readme = README.read_text(encoding="utf-8")
    assert filled(readme) == readme
