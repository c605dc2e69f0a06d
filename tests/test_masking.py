import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import parametrize

from onexn_plugins import fold
from onexn_plugins.errors import OneXNError
from onexn_plugins.masking import attach, dense_weight, mask_of, masks
from onexn_plugins.pattern import BlockPattern, nonzero_blocks
from tests.strategies import keeps, patterns


def layer_of(pattern: BlockPattern, bias: bool = True) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(pattern.in_channels * pattern.groups, pattern.out_channels, 3, groups=pattern.groups, bias=bias)


@given(st.data(), patterns(), st.booleans())
def test_mask_then_fold_leaves_a_plain_layer_with_zeros(data, pattern, bias):
    layer = layer_of(pattern, bias)
    original, keys = layer.weight.detach().clone(), list(layer.state_dict())
    keep = data.draw(keeps(pattern))
    attach(layer, keep, pattern.block_size)
    assert torch.equal(nonzero_blocks(layer.weight, pattern), keep)
    assert torch.equal(dense_weight(layer), original)
    image = torch.randn(1, layer.in_channels, 5, 5)
    output = layer(image)
    assert fold(layer) is layer
    assert type(layer) is nn.Conv2d
    assert list(layer.state_dict()) == keys
    assert torch.equal(layer(image), output)
    assert torch.equal(nonzero_blocks(layer.weight, pattern), keep)
    assert torch.equal(layer.weight[layer.weight != 0], original[layer.weight != 0])
    assert fold(layer) is layer


def test_zeros_survive_training_with_momentum_and_weight_decay():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3))
    pattern = BlockPattern.of(model[2].weight, 4)
    keep = torch.arange(pattern.num_blocks).reshape(pattern.shape) % 2 == 0
    before = model[2].weight.detach().clone()
    attach(model[2], keep, 4)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimizer.step()
    fold(model)
    assert torch.equal(nonzero_blocks(model[2].weight, pattern), keep)
    kept = model[2].weight != 0
    assert not torch.equal(model[2].weight[kept], before[kept])


def test_who_listens_to_a_gradient_hears_it_with_a_mask_and_after_it_was_folded():
    """DistributedDataParallel listens from the moment it wraps a model; torch's parametrize would cut it off."""
    layer, heard = layer_of(pattern := BlockPattern(8, 4, 4)), []
    accumulator = layer.weight.expand_as(layer.weight).grad_fn.next_functions[0][0]
    accumulator.register_hook(lambda *_: heard.append("gradient"))
    for change in (lambda: attach(layer, torch.ones(pattern.shape, dtype=torch.bool), 4), lambda: fold(layer)):
        change()
        layer(torch.randn(1, 4, 5, 5)).sum().backward()
    assert heard == ["gradient", "gradient"]
    assert "set_" not in vars(layer.weight)


def test_a_second_mask_updates_in_place_and_brings_weights_back():
    layer = layer_of(pattern := BlockPattern(8, 4, 4))
    first = attach(layer, torch.zeros(pattern.shape, dtype=torch.bool), 4)
    assert attach(layer, torch.ones(pattern.shape, dtype=torch.bool), 4) is first
    assert bool((layer.weight != 0).all())


def test_masks_travel_with_deepcopy_and_state_dict():
    model = nn.Sequential(layer_of(pattern := BlockPattern(8, 4, 4)))
    keep = torch.arange(pattern.num_blocks).reshape(pattern.shape) % 3 == 0
    attach(model[0], keep, 4)
    assert torch.equal(masks(copy.deepcopy(model))["0"].keep, keep)
    other = nn.Sequential(layer_of(pattern))
    attach(other[0], ~keep, 4)
    other.load_state_dict(model.state_dict())
    assert torch.equal(nonzero_blocks(other[0].weight, pattern), keep)


def test_folding_a_copy_leaves_the_original_masked():
    model = nn.Sequential(layer_of(pattern := BlockPattern(8, 4, 4)))
    attach(model[0], torch.zeros(pattern.shape, dtype=torch.bool), 4)
    folded = fold(copy.deepcopy(model))
    assert type(folded[0]) is nn.Conv2d
    assert set(masks(model)) == {"0"}
    assert not bool(model[0].weight.any())


def test_a_mask_follows_the_module_to_another_dtype():
    layer = layer_of(pattern := BlockPattern(8, 4, 4))
    keep = torch.zeros(pattern.shape, dtype=torch.bool)
    attach(layer, keep, 4)
    layer.double()
    assert layer.weight.dtype == torch.float64
    assert not bool(layer.weight.any())


def test_linear_layers_are_masked_alike():
    layer = nn.Linear(6, 10)
    pattern = BlockPattern.of(layer.weight, 4)
    keep = torch.zeros(pattern.shape, dtype=torch.bool)
    keep[2] = True  # the tail of two
    attach(layer, keep, 4)
    assert not bool(layer.weight[:8].any())
    assert bool(layer.weight[8:].all())


def test_wrong_uses_are_refused_and_change_nothing():
    layer = layer_of(pattern := BlockPattern(8, 4, 4))
    keep = torch.ones(pattern.shape, dtype=torch.bool)
    with pytest.raises(OneXNError, match=r"kept blocks are torch\.bool \(4, 4\)"):
        attach(layer, torch.ones(4, 4, dtype=torch.bool), 4, "stem")
    assert mask_of(layer) is None
    attach(layer, keep, 4)
    with pytest.raises(OneXNError, match="already carries 1×4 blocks"):
        attach(layer, torch.ones(4, 4, dtype=torch.bool), 2)
    assert mask_of(layer) is not None
    foreign = nn.Conv2d(4, 8, 3)
    parametrize.register_parametrization(foreign, "weight", nn.Identity())
    with pytest.raises(OneXNError, match="parametrized by something else"):
        attach(foreign, keep, 4)
    assert len(foreign.parametrizations["weight"]) == 1


def test_a_straight_through_mask_lets_gradients_reach_pruned_weights():
    layer = nn.Conv2d(4, 4, 1)
    keep = torch.tensor([[True, False, True, False]] * 2)
    attach(layer, keep, 2, straight_through=True)
    assert bool((layer.weight[:, 1::2] == 0).all())
    layer.weight.sum().backward()
    assert bool((layer.parametrizations.weight.original.grad == 1).all())
    attach(layer, keep, 2)
    layer.zero_grad()
    layer.weight.sum().backward()
    assert layer.parametrizations.weight.original.grad[:, :, 0, 0].tolist() == [[1, 0, 1, 0]] * 4


def test_a_masked_layer_takes_no_other_weight():
    layer = nn.Conv2d(4, 4, 1)
    attach(layer, torch.ones(2, 4, dtype=torch.bool), 2)
    with pytest.raises(OneXNError, match="cannot take another weight"):
        layer.weight = nn.Parameter(torch.ones(3, 4, 1, 1))
    layer.bias = nn.Parameter(torch.ones(4))
    fold(layer)
    layer.weight = nn.Parameter(torch.ones(3, 4, 1, 1))
