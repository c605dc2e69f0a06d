"""The ladder of repair on a small network: every rung is climbed, at the same price."""

import json

import pytest
import torch
from torch import nn

from benchmarks.repair.__main__ import climbed
from benchmarks.repair.figures import accuracy, paired, written
from benchmarks.repair.ladder import BLOCKS_DISTILLED, BOTH, FILTERS, FILTERS_DISTILLED, ORDER, REARRANGED, Ladder
from benchmarks.repair.latency import timed
from benchmarks.repair.page import DENSE, FOLDER, MARKS, _section, _timed, tables
from benchmarks.repair.photos import Photos, ranks
from onexn_plugins import export_onnx, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.evaluation import Share
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


def test_a_run_goes_on_behind_the_rungs_of_the_same_network_and_photos(tmp_path):
    content = {"command": "python", "network": "net", "block_size": 4, "share": 0.5, "calibrated_on": 500,
               "reported_on": 250, "dense": {"ranks": "0"}}
    path = tmp_path / "ladder.json"
    assert climbed(path, content) == []
    path.write_text(json.dumps({**content, "commit": "of before", "rungs": [{"step": "L1"}]}))
    assert climbed(path, content) == [{"step": "L1"}]
    assert climbed(path, {**content, "command": "with other rungs"}) == [{"step": "L1"}]
    assert climbed(path, {**content, "dense": {"ranks": "1"}}) == []
    assert climbed(path, {**content, "share": 0.3}) == []


def test_distilled_rungs_go_on_from_the_networks_that_are_kept(tmp_path):
    net, images = residual_net(), photos(40)
    data = Photos(Images(list(photos(40, seed=1).split(25)), 40), images, net(images).argmax(1))
    said = []
    found = {title: (model, seconds) for title, model, _, seconds in Ladder(
        net, data, 0.4, 4, 2, said.append, tmp_path).rungs(wanted=(FILTERS,))}
    kept = torch.load(tmp_path / f"{ORDER.index(FILTERS)}.pt", weights_only=False)
    assert found[FILTERS][1] >= kept["seconds"] > 0
    kept["seconds"] = 1000.0
    torch.save(kept, tmp_path / f"{ORDER.index(FILTERS)}.pt")
    said.clear()
    [(title, model, _, seconds)] = Ladder(net, data, 0.4, 4, 2, said.append, tmp_path).rungs(
        {REARRANGED}, (FILTERS_DISTILLED, REARRANGED))
    assert title == FILTERS_DISTILLED
    assert said == [FILTERS_DISTILLED], "nothing was repaired again"
    assert seconds > 1000
    assert measure(model, 4, images[:1]).macs == measure(found[FILTERS][0], 4, images[:1]).macs


def test_a_distilled_rung_is_compared_with_what_it_starts_from():
    rung = {"top1": vars(Share.of(3, 4)), "top5": vars(Share.of(4, 4)), "macs": 1, "cpu_seconds": 1.0}
    content = {"network": "net", "block_size": 4, "share": 0.5, "calibrated_on": 8, "reported_on": 4,
               "dense": {**rung, "ranks": "00000000"}, "dense_macs": 2, "rungs": [
                   {**rung, "step": REARRANGED, "ranks": "01010000"},
                   {**rung, "step": BLOCKS_DISTILLED, "ranks": "00010000"},
                   {**rung, "step": FILTERS, "ranks": "01010101"}]}
    gains = [line for line in _section(content).splitlines() if " | " in line][-2:]
    assert "+25.0 (" in gains[0]
    assert "-50.0 (" in gains[1], "with the rung that was not distilled"


def test_figures():
    places = torch.tensor([0, 0, 3, 12, 7])
    assert written(places) == "003+7"
    assert accuracy(places)["top5"]["value"] == pytest.approx(0.6)
    difference = paired(places, torch.tensor([0, 1, 3, 12, 7]))
    assert difference["value"] == pytest.approx(0.2)
    assert difference["low"] < 0.2 < difference["high"]
    assert paired(places, places) == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_networks_are_timed_in_turns(tmp_path):
    pytest.importorskip("tvm")
    net = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 1))
    paths = {step: export_onnx(net, torch.zeros(1, 3, 8, 8), tmp_path / f"{number}.onnx")
             for number, step in enumerate((DENSE, REARRANGED, FILTERS))}
    found = timed(paths, 3)
    assert list(found) == list(paths)
    assert found[FILTERS]["over_channels"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    for each in found.values():
        assert 0 < each["ms"]["low"] <= each["ms"]["value"] <= each["ms"]["high"]
    del paths[FILTERS]
    assert set(timed(paths, 1)[REARRANGED]) == {"ms", "over_dense"}


def test_accuracy_stands_beside_latency(tmp_path):
    rung = {"top1": vars(Share.of(3, 4)), "top5": vars(Share.of(4, 4)), "ranks": "00000010"}
    ladder = {"dense": rung, "dense_macs": 10, "rungs": [
        {"step": FILTERS, **rung, "ranks": "01010000"}, {"step": BOTH, **rung}]}
    one = {"value": 1.5, "low": 1.25, "high": 1.75}
    times = {"machine": {"processor": "some core"}, "networks": {
        step: {"ms": one, "over_dense": one, "over_channels": one} for step in (DENSE, FILTERS, BOTH)}}
    (tmp_path / "latency").mkdir()
    (tmp_path / "ladder.json").write_text(json.dumps(ladder))
    assert _timed(tmp_path / "ladder.json") == ""
    (tmp_path / "latency/ladder.json").write_text(json.dumps(times))
    lines = _timed(tmp_path / "ladder.json").splitlines()
    assert "some core" in lines[0]
    row = next(line for line in lines if BOTH in line)
    assert "+50.0 (" in row, "of four photos reported, channels alone miss two"
    assert "1.500 ms (1.250–1.750)" in row
    assert "1.50× (1.25–1.75)" in row
    assert "+" not in next(line for line in lines if FILTERS in line)


def test_the_readme_is_made_from_the_results():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert text.partition(MARKS[0])[2].partition(MARKS[1])[0].strip() == tables().strip()
