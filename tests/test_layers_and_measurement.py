import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from onexn_plugins import measure, selection
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import check_layers, is_depthwise, prunable_layers
from onexn_plugins.masking import attach
from onexn_plugins.pattern import BlockPattern


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 12, 1), nn.Dropout(0.5),
        nn.Conv2d(12, 12, 3, padding=1, groups=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )


def test_prunable_by_default_as_in_the_paper():
    model = small_net()
    assert is_depthwise(model[3])
    assert list(prunable_layers(model)) == ["4", "6"]
    assert list(prunable_layers(model, full=True)) == ["4", "6", "9"]
    assert list(prunable_layers(model, ["4"])) == ["6"]
    assert list(prunable_layers(model, [model[6]])) == ["4"]
    assert list(prunable_layers(nn.Sequential(nn.Conv2d(16, 8, 1)))) == ["0"], "a first layer that is no stem"


def test_stems_of_networks_of_other_kinds():
    def names(*layers: nn.Module) -> list[str]:
        return list(prunable_layers(nn.Sequential(*layers)))

    assert names(nn.Conv1d(1, 8, 3), nn.Conv1d(8, 8, 3), nn.Conv1d(8, 8, 3, groups=8)) == ["1"]
    assert names(nn.Conv1d(2, 8, 3), nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3)) == ["2"], "one stem of each"
    assert names(nn.ConvTranspose2d(4, 8, 2), nn.Conv2d(8, 8, 3)) == ["1"]
    assert names(nn.Conv2d(3, 8, 3), nn.ConvTranspose2d(4, 8, 2), nn.ConvTranspose1d(8, 8, 2)) == ["1", "2"]
    assert names(nn.ConvTranspose2d(8, 4, 2), nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)) == ["0", "2"], "a decoder first"
    assert names(nn.Conv1d(8, 8, 3), nn.ConvTranspose2d(8, 1, 2), nn.ConvTranspose2d(8, 8, 2, groups=8)) == ["0"]


def test_a_container_leaves_out_everything_inside():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3)), nn.Conv2d(8, 8, 3))
    assert list(prunable_layers(model, [model[1]])) == ["2"]
    assert list(prunable_layers(model, ["1"])) == ["2"]


def test_unknown_names_are_refused_by_name():
    model = small_net()
    with pytest.raises(OneXNError, match=r"features\.9.*no layer of this name"):
        prunable_layers(model, ["features.9"])
    with pytest.raises(OneXNError, match="no layer that 1×N pruning applies to"):
        check_layers(prunable_layers(nn.Sequential(nn.Linear(4, 4))))


def test_measure_counts_blocks_weights_and_macs():
    model = small_net().train()
    for name, layer in prunable_layers(model).items():
        pattern = BlockPattern.of(layer.weight, 4, getattr(layer, "groups", 1))
        keep = selection.keep_highest(torch.rand(pattern.shape), 0.5)
        attach(layer, keep, 4, name)
    running_mean = model[1].running_mean.clone()
    report = measure(model, 4, torch.randn(2, 3, 6, 6))
    layers = {layer.name: layer for layer in report.layers}
    assert list(layers) == ["0", "3", "4", "6", "9"]
    assert layers["4"].kept == layers["4"].blocks // 2 == 12
    assert layers["4"].block_sparse
    assert not layers["0"].block_sparse
    assert layers["6"].blocks == 2 * 2 * 6, "tails of two in each of two groups"
    assert layers["4"].macs == layers["4"].nonzero * 36 * 2, "a batch of two"
    assert layers["9"].macs == 120 * 2
    assert report.sparsity.blocks == 0.5
    nonzero = layers["4"].nonzero + layers["6"].nonzero
    assert report.sparsity.weights == 1 - nonzero / (12 * 8 + 12 * 6 * 9)
    assert model.training
    assert torch.equal(model[1].running_mean, running_mean)
    assert measure(model).macs is None


@pytest.mark.parametrize("layer", [
    nn.Conv1d(6, 8, 3, 2, 1, groups=2), nn.ConvTranspose1d(6, 8, 3, 2), nn.Conv2d(6, 8, (1, 3), dilation=2),
    nn.ConvTranspose2d(6, 8, 4, 2, 1, groups=2), nn.ConvTranspose2d(6, 12, 3, 2, 1, 1, groups=6), nn.Linear(6, 8)])
def test_multiply_accumulates_are_those_that_torch_counts(layer):
    dims = layer.weight.dim() - 2
    images = torch.randn(2, 9, 6) if dims == 0 else torch.randn(2, 6, *(9, 7)[:dims])
    with FlopCounterMode(display=False) as counter:
        layer(images)
    report = measure(nn.Sequential(layer), 4, images)
    assert 2 * report.dense_macs == counter.get_total_flops()
    assert report.layers[0].shape[0] == (layer.out_features if dims == 0 else layer.out_channels)
    with torch.no_grad():
        layer.weight.zero_()
    assert measure(nn.Sequential(layer), 4, images).macs == 0


def test_measure_says_what_a_failing_forward_said():
    with pytest.raises(OneXNError, match="forward fails"):
        measure(small_net(), 4, torch.randn(1, 5, 6, 6))
