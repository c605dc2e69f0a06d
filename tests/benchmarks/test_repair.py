"""The ladder of repair on a small network: every rung is climbed, at the same price."""

import json

import pytest
import torch
from torch import nn

from benchmarks.repair.__main__ import climbed
from benchmarks.repair.figures import accuracy, paired, written
from benchmarks.repair.ladder import ORDER, Ladder
from benchmarks.repair.page import FOLDER, MARKS, tables
from benchmarks.repair.photos import Photos, ranks
from onexn_plugins import measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.repair.images import Images
from tests.repair.networks import photos, residual_net


def test_every_rung_is_climbed_at_the_same_price():
    net, images = residual_net(), photos(40)
    data = Photos(Images(list(photos(40, seed=1).split(25)), 40), images, net(images).argmax(1))
    seen = {}
    for title, model, ratios, seconds in Ladder(net, data, 0.4, 4, 2, lambda line: None).rungs():
        macs = measure(model, 4, images[:1]).macs
        seen[title] = macs
        assert seconds >= 0
        assert set(ratios) <= {name for name, _ in model.named_modules()}
        assert accuracy(ranks(model, data))["top1"]["value"] >= 0
    assert set(seen) == set(ORDER)
    wanted = measure(net, 4, images[:1])
    pruned = sum(layer.dense_macs for layer in wanted.layers if layer.prunable)
    for macs in seen.values():
        assert macs == pytest.approx(wanted.dense_macs - 0.4 * pruned, rel=0.1)  # whole blocks of a small network


def test_equal_scores_are_right_by_chance_alone():
    images, labels = torch.zeros(30, 3, 4, 4), torch.arange(30) % 6
    data = Photos(Images([images], 30), images, labels)
    constant = nn.Sequential(nn.Flatten(), nn.Linear(48, 6))
    nn.init.zeros_(constant[1].weight), nn.init.zeros_(constant[1].bias)
    assert torch.equal(ranks(constant, data), labels)
    nn.init.constant_(constant[1].bias, float("nan"))
    with pytest.raises(OneXNError, match="NaN"):
        ranks(constant, data)


def test_a_run_goes_on_behind_the_rungs_of_the_same_command(tmp_path):
    content = {"command": "python", "calibrated_on": 500, "reported_on": 250, "dense": {"ranks": "0"}}
    path = tmp_path / "ladder.json"
    assert climbed(path, content) == []
    path.write_text(json.dumps({**content, "commit": "of before", "rungs": [{"step": "L1"}]}))
    assert climbed(path, content) == [{"step": "L1"}]
    assert climbed(path, {**content, "dense": {"ranks": "1"}}) == []


def test_figures():
    places = torch.tensor([0, 0, 3, 12, 7])
    assert written(places) == "003+7"
    assert accuracy(places)["top5"]["value"] == pytest.approx(0.6)
    difference = paired(places, torch.tensor([0, 1, 3, 12, 7]))
    assert difference["value"] == pytest.approx(0.2)
    assert difference["low"] < 0.2 < difference["high"]
    assert paired(places, places) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_the_readme_is_made_from_the_results():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text.partition(MARKS[0])[2].partition(MARKS[1])[0].strip() == tables().strip()
