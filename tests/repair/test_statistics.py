"""Batch norms' statistics are those of all images, however they come in batches; outputs are scaled as they were."""

import copy

import pytest
import torch
from torch import nn

from onexn_plugins.repair.statistics import reestimate_norms, scale_outputs
from tests.repair.networks import photos, residual_net


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(4)).eval()


def test_a_batch_counts_as_much_as_it_has_images():
    model, images = net(), torch.randn(30, 3, 4, 4) + torch.arange(30.0)[:, None, None, None]
    assert reestimate_norms(model, images.split([24, 4, 2])) == 2
    with torch.no_grad():
        read = model[0](images)
    torch.testing.assert_close(model[1].running_mean, read.mean((0, 2, 3)))
    variance = sum(part.var((0, 2, 3)) * len(part) for part in read.split([24, 4, 2])) / 30
    torch.testing.assert_close(model[1].running_var, variance)
    assert not model[1].training
    assert model[1].momentum == 0.1


def test_a_last_batch_of_one_image_is_left_out():
    model, images = net(), torch.randn(26, 3, 4, 4)
    images[25] += 1000
    assert reestimate_norms(model, images.split(25)) == 2
    with torch.no_grad():
        torch.testing.assert_close(model[1].running_mean, model[0](images[:25]).mean((0, 2, 3)))


@pytest.mark.parametrize("batches", [[], [torch.randn(1, 3, 4, 4)] * 3])
def test_nothing_changes_where_there_is_no_variance(batches):
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert reestimate_norms(model, batches) == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_outputs_are_scaled_as_the_dense_ones_are():
    dense, images = residual_net(), photos(20)
    smaller = copy.deepcopy(dense)
    with torch.no_grad():
        smaller[9].weight.div_(1.1**4)
        smaller[9].bias.div_(1.1**4)
        assert scale_outputs(smaller, images[:1], [dense(images)], [smaller(images)]) == 1.1**4
        assert torch.allclose(smaller(images), dense(images), atol=1e-5)


def test_outputs_that_are_no_classes_stay():
    maps, images = nn.Sequential(nn.Conv2d(3, 4, 1)), photos(4)
    before = maps[0].weight.clone()
    assert scale_outputs(maps, images[:1], [2 * maps(images).detach()], [maps(images).detach()]) is None
    assert torch.equal(maps[0].weight, before)
