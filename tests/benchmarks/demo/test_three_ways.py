"""The three ways to prune are compared at equal work, each on its own copy."""

from __future__ import annotations

import copy

import pytest
import torch

from benchmarks.demo import three_ways
from benchmarks.demo.digits import Digits, outputs, small_network, train
from onexn_plugins import measure

RATIO = 0.75


@pytest.fixture(scope="module")
def digits():
    return Digits.load()


@pytest.fixture(scope="module")
def network(digits):
    torch.manual_seed(0)
    return small_network(16).eval()


def test_training_and_held_out_digits_are_disjoint_and_stratified(digits):
    assert len(digits.labels) + len(digits.held_out_labels) == 1797
    seen = {image.numpy().tobytes() for image in digits.images}
    assert sum(image.numpy().tobytes() in seen for image in digits.held_out_images) == 0
    shares = [torch.bincount(labels, minlength=10) / len(labels) for labels in (digits.labels, digits.held_out_labels)]
    assert torch.allclose(*shares, atol=0.01)


def test_training_is_deterministic_and_learns(digits):
    def trained():
        torch.manual_seed(1)
        model = small_network(8)
        train(model, digits, 3, peak_rate=0.1, seed=1)
        return outputs(model, digits.held_out_images)

    scores = trained()
    assert torch.equal(scores, trained())
    assert (scores.argmax(1) == digits.held_out_labels).float().mean() > 0.3


@pytest.mark.parametrize("way", [three_ways.BLOCKS, three_ways.WEIGHTS, three_ways.FILTERS])
def test_a_pruned_copy_keeps_its_zeros_through_fine_tuning(network, digits, way):
    before = copy.deepcopy(network.state_dict())
    pruned, finish = three_ways.prune(way, network, digits.example, RATIO)
    train(pruned, digits, 1, peak_rate=0.05, seed=0)
    report = measure(finish(), 4, digits.example)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    target = three_ways.equal_macs(network, digits.example, RATIO)
    if way == three_ways.FILTERS:
        assert report.sparsity.weights == 0
        assert 0.7 * target < report.macs <= target
        assert all(layer.shape[0] % three_ways.ROUND_TO == 0 for layer in report.layers if len(layer.shape) == 4)
    else:
        assert report.sparsity.weights == pytest.approx(RATIO, abs=0.005)
        assert report.macs == pytest.approx(target, rel=0.01)
    assert (report.sparsity.blocks == pytest.approx(RATIO, abs=0.005)) == (way == three_ways.BLOCKS)
