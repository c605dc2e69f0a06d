"""Real architectures, rearranged by channel labels: every layer that may move does, and the function stays.

Random weights and small images: what is tested is which channels move together, not accuracy. The larger networks
(resnet50, inception_v3, vgg16_bn, vit_b_16, swin_t) belong to the benchmark.
"""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("torchvision")

from onexn_plugins.rearrangement import rearrange
from onexn_plugins.zoo import load_model
from tests.rearrangement.comparing import assert_rows_moved, largest_change, lively, rearranged_alike

# network -> (image size, {layer that stays: why})
NETWORKS = {
    "mobilenet_v2": (32, {}),
    "mobilenet_v3_small": (32, {}),
    "mnasnet0_5": (32, {}),
    "efficientnet_b0": (32, {}),
    "resnet18": (32, {}),
    "resnext50_32x4d": (32, {}),
    "regnet_x_400mf": (32, {}),
    "regnet_y_400mf": (32, {}),
    "shufflenet_v2_x0_5": (32, {}),
    "densenet121": (32, {}),
    "googlenet": (64, {}),
    "squeezenet1_1": (64, {"classifier.1": "they are the model's output"}),
    "convnext_tiny": (32, {}),
    "timm/ghostnet_050": (32, {}),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_moves_or_is_refused_by_name_and_the_function_stays(name):
    size, stays = NETWORKS[name]
    model = lively(load_model(name))
    original = copy.deepcopy(model)
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    result = rearranged_alike(model, images, method="sort")
    refused = dict(result.refused)
    assert set(refused) == set(stays)
    assert all(reason in refused[layer] for layer, reason in stays.items())
    assert_rows_moved(model, original, result)
    assert {layer.name for layer in result.layers if not layer.moved} == set(stays)
    assert all(layer.refused == refused.get(layer.name) for layer in result.layers)
    assert result.retained_after > result.retained_before
    for parameter, before in zip(model.parameters(), original.parameters(), strict=True):
        assert (parameter.dtype, parameter.requires_grad) == (before.dtype, before.requires_grad)


def test_the_auxiliary_heads_of_googlenet_follow():
    """They run in training alone, and read channels that move."""
    model = lively(load_model("googlenet")).double()
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def heads() -> list[torch.Tensor]:
        model.training = True
        with torch.no_grad():
            outputs = model(images)
        model.training = False
        return list(outputs)

    before = heads()
    assert len(before) == 3
    assert {"aux1.conv.conv", "aux2.conv.conv"} <= set(rearrange(model, images, method="sort").permutations)
    assert not model.training
    assert largest_change(before, heads()) < 1e-9
