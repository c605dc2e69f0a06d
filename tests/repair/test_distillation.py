"""What distillation shows the networks and compares in them, what it leaves alone, and when it cannot be done."""

import pytest
import torch
from torch import nn

from onexn_plugins.inputs import call_model
from onexn_plugins.layers import pattern_of, prunable_layers
from onexn_plugins.masking import masks
from onexn_plugins.pattern import weight_mask
from onexn_plugins.repair import distillation, repair, views
from onexn_plugins.repair.features import Watched, difference, passed_on
from onexn_plugins.repair.images import read_images
from onexn_plugins.repair.surroundings import surroundings
from onexn_plugins.repair.views import BATCH, view
from onexn_plugins.scores import l1
from onexn_plugins.selection import keep_highest
from tests.repair.networks import Sequences, photos, residual_net


def one_size() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 4, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Flatten(),
                         nn.Linear(8 * 16 * 16, 6)).eval()


@pytest.fixture
def three_steps(monkeypatch):
    monkeypatch.setattr(distillation, "STEPS_TIMED", 1)
    monkeypatch.setattr(distillation, "_steps", lambda minutes, state: 3)


@pytest.mark.parametrize(("make", "side"), [(one_size, 64), (residual_net, 48)])
def test_views_are_of_the_size_of_the_images(make, side, three_steps):
    model, seen = make(), set()
    with pytest.MonkeyPatch.context() as patch:
        error = distillation._error
        patch.setattr(distillation, "_error", lambda dense, pruned, batch, *rest: (
            seen.add(tuple(batch.shape)), error(dense, pruned, batch, *rest))[1])
        result = repair(model, photos(32, side=side), distil_minutes=1)
    assert result.steps[-1].name == "distillation"
    assert seen == {(BATCH, 3, side, side)}
    assert not any(note.startswith("not distilled") for note in result.notes)


def test_a_view_is_the_same_in_every_run_and_another_at_every_step():
    images = read_images(photos(40, side=32), residual_net())
    first, second = (view(images, step, 0) for step in (0, 1))
    assert torch.equal(first, view(images, 0, 0))
    assert not torch.equal(first, view(images, 0, 1))
    assert not torch.equal(first, second)
    tokens = read_images([{"tokens": torch.rand(4, 5, 10)}], Sequences())
    assert view(tokens, 3, 0) is tokens.batches[0]


def test_images_are_blended_and_pasted_into_one_another():
    constant = torch.arange(4.0)[:, None, None, None].expand(4, 1, 8, 8)
    generator = torch.Generator().manual_seed(0)
    blended, pasted = views._blended(constant, generator), views._pasted(constant, generator)
    for place in range(4):
        other = (place - 1) % 4
        share = (blended[place] - place) / (other - place)
        assert 0 < share.max() <= views.MIXED
        assert share.max() - share.min() < 1e-6
        gone = (pasted[place] == other).double().mean()
        assert set(pasted[place].unique().tolist()) <= {float(place), float(other)}
        assert gone <= views.MIXED
    assert bool((pasted != constant).any())


def test_maps_between_residual_blocks_are_compared_and_nothing_else():
    net = residual_net()
    layers = {name: net.get_submodule(name).weight for name in ("3.expand", "3.project", "4.expand", "4.project", "5")}
    around = surroundings(net, photos(2), layers)
    seen, images = Watched(passed_on(around)), photos(2)
    with torch.no_grad(), seen:
        net(images)
    with torch.no_grad():
        expected = [net[:4](images), net[:5](images), net[:7](images)]
    assert len(seen.kept) == 3
    for (_, found), wanted in zip(sorted(seen.kept.items()), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_without_residual_blocks_every_layer_is_compared():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU(), nn.Conv2d(8, 8, 1), nn.ReLU())
    around = surroundings(net, photos(2), {name: net.get_submodule(name).weight for name in ("0", "2", "4")})
    assert len(passed_on(around)) == 3


def test_calls_have_the_same_numbers_with_gradients_and_without():
    net = residual_net()
    numbers = frozenset([6, 15])
    one, other, images = Watched(numbers), Watched(numbers), photos(2)
    with one:
        call_model(net, images)
    with torch.enable_grad(), other:
        net(images)
    for number in numbers:
        torch.testing.assert_close(one.kept[number], other.kept[number])


def test_the_error_of_maps_is_relative_and_leaves_out_channels_that_are_gone():
    dense = {3: torch.randn(4, 6, 5, 5) * 100}
    assert float(difference(dense, {3: dense[3][:, :4]})) == 0
    shifted = dense[3][:, :4] + 50
    assert float(difference(dense, {3: shifted})) == pytest.approx(2500 / float(dense[3][:, :4].var()))


def test_removed_blocks_stay_zero_and_whole_layers_keep_their_weights(three_steps):
    net = residual_net()
    stem, classifier = net[0].weight.clone(), net[9].weight.clone()
    result = repair(net, photos(), distil_minutes=1, rearrange=False)
    assert [step.name for step in result.steps if step.name == "distillation"]
    assert torch.equal(net[0].weight, stem)
    assert torch.equal(net[9].weight, classifier)
    for name, mask in masks(net).items():
        assert not net.get_submodule(name).weight[~mask.mask.expand_as(net.get_submodule(name).weight)].any()


def test_steps_bring_the_networks_together():
    dense, pruned = residual_net(), residual_net()
    layers = prunable_layers(pruned)
    patterns = {name: pattern_of(layer, 4, name) for name, layer in layers.items()}
    keep = {name: keep_highest(l1(layer.weight, patterns[name]), 0.5) for name, layer in layers.items()}
    for name, layer in layers.items():
        layer.weight.data.mul_(weight_mask(keep[name], patterns[name], layer.weight))
    images, others = read_images(photos(), pruned), photos(64, seed=5)

    def error() -> float:
        with torch.no_grad():
            return float(distillation.loss(dense(others), pruned(others)))

    before = error()
    gone = {name: pruned.get_submodule(name).weight == 0 for name in keep}
    distillation.distil(dense, pruned, images, keep, patterns, 0, steps=60)
    assert error() < 0.8 * before
    assert all(not pruned.get_submodule(name).weight[each].any() for name, each in gone.items())


def test_depthwise_layers_are_trained_in_float32_where_the_rest_is_not():
    layer, images = nn.Conv2d(8, 8, 3, padding=1, groups=8), photos(4)[:, :1].repeat(1, 8, 1, 1)
    with torch.enable_grad(), torch.autocast("cpu", dtype=torch.bfloat16), Watched(frozenset([0])):
        given = layer(images)
    assert given.dtype == torch.bfloat16
    given.float().square().mean().backward()
    found, layer.weight.grad = layer.weight.grad, None
    layer(images).to(torch.bfloat16).float().square().mean().backward()
    torch.testing.assert_close(found, layer.weight.grad)


def test_a_distillation_that_fails_leaves_the_repair(three_steps, monkeypatch):
    expected, model = residual_net(), residual_net()
    repair(expected, photos())

    def fails(*arguments):
        arguments[1][3].expand.weight.data.zero_()  # half of a step
        raise RuntimeError("out of memory\nand more")

    monkeypatch.setattr(distillation, "_error", fails)
    result = repair(model, photos(), distil_minutes=1)
    assert "not distilled: step 1 fails: out of memory" in result.notes
    assert result.steps[-1].name != "distillation"
    assert all(torch.equal(one, other) for one, other in zip(
        model.state_dict().values(), expected.state_dict().values(), strict=True))
