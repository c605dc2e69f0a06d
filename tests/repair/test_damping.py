"""Damping chosen by images that were left out."""

import torch

from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.damping import DAMPINGS, best_damping, fitted, folded, squared_error_on
from onexn_plugins.repair.elimination import DAMPING
from onexn_plugins.repair.least_squares import LeastSquares
from onexn_plugins.repair.moments import Moments

PATTERN = BlockPattern(8, 40, 4)


def layer(per_fold: int, noise: float, seed: int = 0):
    """A weight, kept blocks, and folds whose targets are what the weight gives, with noise."""
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 40, 1, 1, generator=generator, dtype=torch.float64)
    keep = torch.rand(PATTERN.shape, generator=generator) < 0.5
    folds = folded(1, 40, 8)

    def sample(count: int):
        inputs = torch.randn(1, count, 40, generator=generator, dtype=torch.float64)
        targets = inputs @ weight.flatten(1).T + 3
        return inputs, targets + noise * torch.randn(targets.shape, generator=generator, dtype=torch.float64)

    for fold in folds:
        fold.add(*sample(per_fold))
    return weight, keep, folds, sample


def test_few_noisy_images_damp_more_and_are_met_better_elsewhere():
    weight, keep, folds, sample = layer(12, noise=10.0)
    damping = best_damping(weight, keep, PATTERN, folds, True)
    assert damping > DAMPINGS[0]
    whole, other = Moments.total(folds), Moments(1, 40, 8)
    other.add(*sample(5000))
    inputs = whole.statistics().inputs
    least, chosen = (squared_error_on(other, *fitted(LeastSquares(weight, keep, PATTERN, inputs, damping=each), whole,
                                                     True)) for each in (DAMPINGS[0], damping))
    assert chosen < least


def test_many_images_that_want_other_weights_hardly_damp():
    weight, keep, folds, _ = layer(2000, noise=0.0)
    assert best_damping(weight / 2, torch.ones_like(keep), PATTERN, folds, True) == DAMPINGS[0]


def test_one_image_leaves_none_out():
    weight, keep, folds, sample = layer(0, noise=0.0)
    folds[0].add(*sample(3))
    assert best_damping(weight, keep, PATTERN, folds, True) == DAMPING


def test_the_squared_error_is_that_of_the_samples():
    weight, _, _, sample = layer(0, noise=2.0)
    moments, (inputs, targets) = Moments(1, 40, 8), sample(50)
    moments.add(inputs, targets)
    shift = torch.linspace(-1, 4, 8, dtype=torch.float64)
    direct = (inputs @ (0.8 * weight).flatten(1).T + shift - targets).square().sum()
    assert abs(squared_error_on(moments, 0.8 * weight, shift) - float(direct)) < 1e-6 * float(direct)


def test_parts_add_up():
    _, _, folds, _ = layer(10, noise=1.0)
    whole = Moments.total(folds)
    rest = whole.plus(folds[0], -1)
    assert rest.count == whole.count - 10
    for name in ("inputs", "input_sums", "cross", "target_sums", "target_squares"):
        assert torch.allclose(getattr(rest, name), sum(getattr(fold, name) for fold in folds[1:])), name
