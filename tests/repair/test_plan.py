"""Ratios: for a share of the network and for budgets."""

import copy
import re

import numpy as np
import pytest
import torch
from torch import nn

from onexn_plugins import fold, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import pattern_of
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair import Budget, plan_ratios, repair
from onexn_plugins.repair import survey as surveying
from onexn_plugins.repair.budget import GRID, choose
from onexn_plugins.repair.divergence import divergence
from onexn_plugins.repair.elimination import Elimination
from onexn_plugins.repair.harm import Harm
from onexn_plugins.repair.images import read_images
from onexn_plugins.repair.latency import LatencyTable
from onexn_plugins.repair.plan import losses
from onexn_plugins.repair.replay import Recording
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.survey import SHARES, survey
from tests.repair.networks import photos, residual_net


def test_choosing_is_as_good_as_trying_everything():
    generator = np.random.default_rng(0)
    coarse = GRID[::6]
    losses = {name: np.cumsum(generator.random(len(GRID))) for name in "abc"}
    prices = {name: generator.integers(5, 50) * (1 - GRID) for name in "abc"}
    budget = 0.5 * sum(price[0] for price in prices.values())
    best = min(sum(np.interp(ratio, GRID, losses[name]) for name, ratio in zip("abc", (a, b, c), strict=True))
               for a in coarse for b in coarse for c in coarse
               if sum(np.interp(ratio, GRID, prices[name]) for name, ratio in zip("abc", (a, b, c), strict=True))
               <= budget)
    found = choose(losses, prices, budget)
    assert sum(np.interp(ratio, GRID, losses[name]) for name, ratio in found.items()) <= best + 1e-9
    spent = sum(np.interp(ratio, GRID, prices[name]) for name, ratio in found.items())
    assert 0.98 * budget <= spent <= budget * (1 + 1e-9)


def test_a_budget_that_cannot_be_met_names_the_one_that_can():
    with pytest.raises(OneXNError, match=r"cannot be met.*5 ms are left"):
        choose({"a": GRID}, {"a": 100 * (1 - GRID)}, 3.0, " ms")


@pytest.mark.parametrize("kind", ["macs", "bytes"])
def test_the_budget_that_a_refusal_names_can_be_met(kind):
    with pytest.raises(OneXNError, match="cannot be met") as caught:
        plan_ratios(residual_net(), photos(), photos(1), **{kind: 2000})
    named = float(re.search(r"Ask for (\S+) ", caught.value.fix)[1])
    ratios = plan_ratios(residual_net(), photos(), photos(1), **{kind: named})
    assert min(ratios.values()) > 0.8
    assert "2000 " in caught.value.reason


def test_a_layer_that_is_half_zeros_is_measured_where_blocks_cost_something():
    """The first half of what goes costs nothing: taken for the measure, it would make the rest cost without end."""
    net = residual_net()
    with torch.no_grad():
        net[3].project.weight[:, ::2] = 0
    layers = {name: net.get_submodule(name) for name in ("3.project", "4.project")}
    around = surroundings(net, photos(1), {name: layer.weight for name, layer in layers.items()})
    patterns = {name: BlockPattern.of(layer.weight, 4, 1, name) for name, layer in layers.items()}
    found = survey(net, read_images(photos(), net), layers, around, patterns)
    assert found.eliminations["3.project"].ratio(0.5) == 0.75
    assert found.eliminations["4.project"].ratio(0.5) == 0.5
    assert min(found.harm["3.project"].values) > 1e-6
    curves = losses(found)
    assert curves["3.project"][int(np.argmin(abs(GRID - 0.5)))] == pytest.approx(0.0, abs=1e-9)
    measured = found.harm["3.project"].values[SHARES.index(0.6)]  # 80 % of all blocks
    assert curves["3.project"][int(np.argmin(abs(GRID - 0.8)))] == pytest.approx(measured, rel=0.3)
    ratios = plan_ratios(net, photos(), photos(1), macs=0.8 * measure(net, 4, photos(1)).dense_macs)
    assert ratios["3.project"] >= 0.5


def test_harm_is_what_was_measured_and_straight_in_between():
    harm = Harm((1.0, 4.0, 9.0), (0.2, 0.1, 1.1))
    found = harm(np.array([0.0, 0.5, 1.0, 4.0, 6.5, 9.0, 14.0]))
    np.testing.assert_allclose(found, [0.0, 0.1, 0.2, 0.2, 0.65, 1.1, 2.0])  # 0.1 after 0.2 is chance
    np.testing.assert_allclose(Harm((2.0,), (1.0,))(np.array([1.0, 4.0])), [0.5, 2.0])


def test_harm_is_measured_where_blocks_are_gone():
    """Each value is the divergence of the network whose layer alone lost these blocks and was fitted without them."""
    net, images = residual_net(), photos()
    layers = {"4.expand": net[4].expand}
    around = surroundings(net, photos(1), {"4.expand": net[4].expand.weight})
    patterns = {"4.expand": BlockPattern.of(net[4].expand.weight, 4)}
    found = survey(net, read_images(images, net), layers, around, patterns)
    errors, values = found.harm["4.expand"].errors, found.harm["4.expand"].values
    assert len(values) == len(SHARES)
    assert list(errors) == sorted(errors)
    for share, value in zip(SHARES, values, strict=True):
        thinned = copy.deepcopy(net)
        repair(thinned, images, pruning_ratio={"4.expand": share}, rearrange=False, ignored_layers=[
            name for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d) and name != "4.expand"])
        with torch.no_grad():
            assert divergence([net(images)], [thinned(images)]).kl == pytest.approx(value, rel=0.5, abs=1e-4)


def test_layers_of_zeros_alone_cost_nothing():
    zeros = torch.zeros(3, 4, dtype=torch.float64)
    assert Elimination(zeros, zeros).ratio(0.5) == 0.5


@pytest.mark.parametrize("share", [0.4, 0.75])
def test_a_budget_of_macs_is_met(share):
    net = residual_net()
    before = copy.deepcopy(net.state_dict())
    wanted = share * measure(net, 4, photos(1)).dense_macs
    ratios = plan_ratios(net, photos(), photos(1), macs=wanted)
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    repair(net, photos(), pruning_ratio=ratios, rearrange=False)
    assert measure(net, 4, photos(1)).macs == pytest.approx(wanted, rel=0.03)  # tails as they are; a block of 5 is 3 %


def test_a_budget_of_bytes_is_met():
    net = residual_net()
    dense = sum(each.numel() * 4 for each in net.parameters())
    ratios = plan_ratios(net, photos(), photos(1), bytes=0.7 * dense)
    left = dense
    for name, ratio in ratios.items():
        weight = net.get_submodule(name).weight
        kept = weight.numel() * 4 + weight.numel() / weight[0, 0].numel() / 4 * 2
        left += kept * (1 - ratio) - weight.numel() * 4 if ratio else 0
    assert left == pytest.approx(0.7 * dense, rel=0.02)


def test_a_layer_that_hurts_more_loses_less():
    net = residual_net()
    with torch.no_grad():
        net[3].norms[2].weight.mul_(0.01)  # what its project gives hardly counts
    ratios = plan_ratios(net, photos(), photos(1), macs=0.8 * measure(net, 4, photos(1)).dense_macs)
    assert ratios["3.project"] > ratios["4.project"]


def test_latencies_are_measured_once_and_met(tmp_path, monkeypatch):
    pytest.importorskip("tvm")
    monkeypatch.setattr("onexn_plugins.repair.latency.RATIOS", (0.0, 0.9))
    torch.manual_seed(0)
    net, table = nn.Sequential(nn.Conv2d(3, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1)), tmp_path / "latencies.json"
    images, layers = torch.randn(8, 3, 8, 8), {"2": net[2]}
    found = LatencyTable.measured(net, layers, images[:1], 4, "host", table)
    assert found.layers["2"][0] > 0
    assert (np.diff(found.prices["2"]) <= 0).all()
    assert LatencyTable.measured(net, layers, images[:1], 4, "host", table) == found  # read, not measured
    wanted = found.fixed + found.prices["2"][10]
    ratios = plan_ratios(net, images, images[:1], latency_ms=wanted, table=table)
    assert np.interp(ratios["2"], GRID, found.prices["2"]) + found.fixed <= wanted * (1 + 1e-9)
    with pytest.raises(OneXNError, match="another network"):
        LatencyTable.measured(net, layers, images[:1], 8, "host", table)
    table.write_text("{}")
    with pytest.raises(OneXNError, match="no table"):
        LatencyTable.measured(net, layers, images[:1], 4, "host", table)


def test_a_core_that_is_not_here_is_planned_for_by_its_cost_model():
    pytest.importorskip("tvm")
    net = residual_net()
    ratios = plan_ratios(net, photos(), photos(1), speedup=1.5, target="cortex-a72")
    dense = sum(cost(net, "cortex-a72").values())
    repair(net, photos(), pruning_ratio=ratios, rearrange=False)
    assert dense / sum(cost(fold(net), "cortex-a72").values()) == pytest.approx(1.5, rel=0.06)  # few blocks


def cost(net, target) -> dict[str, float]:
    from onexn_plugins.tvm_backend import inspect_module

    return {layer["name"]: layer["dense_macs"] / layer["expected_speedup"]
            for layer in inspect_module(net, photos(1), target=target)}


@pytest.mark.parametrize(("options", "message"), [
    ({"speedup": 0.5}, "speedup"), ({}, "one of latency_ms, macs, bytes and speedup"),
    ({"macs": 1.0, "bytes": 2.0}, "got 2"), ({"macs": -1.0}, "macs"),
    ({"latency_ms": "fast"}, "latency_ms"), ({"macs": float("nan")}, "macs")])
def test_bad_budgets(options, message):
    with pytest.raises(OneXNError, match=message):
        Budget(**options)


def test_a_target_this_machine_cannot_run_is_refused():
    pytest.importorskip("tvm")
    with pytest.raises(OneXNError, match="cortex-a72"):
        plan_ratios(residual_net(), photos(), photos(1), latency_ms=1.0, target="cortex-a72")


def test_harm_is_measured_on_images_that_nothing_was_fitted_on(monkeypatch):
    net = residual_net()
    layers = {"3.project": net.get_submodule("3.project")}
    around = surroundings(net, photos(1), {name: layer.weight for name, layer in layers.items()})
    fitted, judged = [], []
    listen, record = surveying.layer_samples, Recording.of

    def listening(model, images, *rest):
        fitted.extend(images.batches)
        return listen(model, images, *rest)

    def recording(model, batch, context):
        judged.append(batch)
        return record(model, batch, context)

    monkeypatch.setattr(surveying, "layer_samples", listening)
    monkeypatch.setattr(Recording, "of", recording)
    survey(net, read_images(photos(), net), layers, around, {"3.project": pattern_of(layers["3.project"], 4, "")})
    sums = [{round(float(each.sum()), 3) for each in torch.cat(part)} for part in (fitted, judged)]
    assert not sums[0] & sums[1]
    assert len(sums[0] | sums[1]) == 48
    assert len(sums[1]) == 12
