"""Signals and volumes, whole networks: right, and in kernels of ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from onexn_plugins.pattern import BlockPattern, weight_mask
from onexn_plugins.tvm_backend import compile_module


class Signal(nn.Module):
    """Causal, dilated and strided layers, a residual written over, a pool and a separable one: TCN and the like."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.causal = nn.Conv1d(6, 8, 9, 2), nn.Conv1d(8, 8, 3, dilation=4)
        self.second, self.mixed = nn.Conv1d(8, 8, 3, padding=2, dilation=2), nn.Conv1d(8, 8, 1)
        self.pool, self.deep = nn.MaxPool1d(3, 2, 1), nn.Conv1d(8, 8, 5, padding=2, groups=8)
        self.last = nn.Conv1d(8, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        y = torch.relu(self.causal(nn.functional.pad(x, (8, 0))))
        x = torch.relu(self.mixed(torch.relu(self.second(y))) + x)
        return self.last(torch.relu(self.deep(self.pool(x))))


class Volume(nn.Module):
    """A 3×3×3 layer, one apart in space and time with a residual, a depthwise and a 1×1×1 one: video networks."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv3d(4, 8, 3, (1, 2, 2), 1)
        self.space = nn.Conv3d(8, 8, (1, 3, 3), padding=(0, 1, 1))
        self.time = nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0))
        self.deep, self.last = nn.Conv3d(8, 8, 3, padding=1, groups=8), nn.Conv3d(8, 5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.time(torch.relu(self.space(x))) + x)
        return self.last(torch.relu(self.deep(x)))


class Atrous(nn.Module):
    """A head of dilations up to beyond the image: DeepLab."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=rate, dilation=rate) for rate in (9, 12, 18))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.relu(branch(x)) for branch in self.branches], 1)


def pruned(model: nn.Module) -> nn.Module:
    """Half of the 1×4 blocks of every layer that has any."""
    rng = np.random.default_rng(0)
    for layer in model.modules():
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) and layer.groups == 1:
            pattern = BlockPattern.of(layer.weight.data, 4, 1)
            layer.weight.data *= weight_mask(torch.from_numpy(rng.random(pattern.shape) < 0.5), pattern, layer.weight)
    return model.eval()


@pytest.mark.parametrize(("network", "shape"), [
    (Signal, (2, 6, 75)), (Volume, (1, 4, 4, 9, 8)), (Atrous, (1, 8, 14, 14)),
])
def test_it_is_right_and_served_by_kernels_of_ours(network, shape):
    torch.manual_seed(0)
    model, x = pruned(network()), torch.randn(shape)
    compiled = compile_module(model, x, block_size=4)
    made = torch.from_numpy(np.asarray(compiled.run(x.numpy())))
    with torch.no_grad():
        torch.testing.assert_close(made, model(x), rtol=1e-5, atol=1e-5)
    assert all(layer.family for layer in compiled.layers)
    assert all(layer.sparse for layer in compiled.layers if min(layer.shape[:2]) >= 8)
    if network is Atrous:
        assert [layer.family for layer in compiled.layers][:2] == ["conv k×k, tap by tap"] * 2
        last = compiled.layers[2]
        assert "8 of 9 taps" in last.reason
        assert abs(last.macs - last.dense_macs * last.kept / 9) < 1
