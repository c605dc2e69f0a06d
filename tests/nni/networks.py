"""Small networks with everything that 1×N must get right: tails, conv groups, depthwise, Linear."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn


class SmallNet(nn.Module):
    """For float32 images [batch, 3, 8, 8]."""

    def __init__(self, width: int = 12, groups: int = 2, classes: int = 6, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.pointwise = nn.Conv2d(width, 2 * width + 1, 1, bias=False)
        self.classifier = nn.Linear(2 * width + 1, classes)

    def forward(self, images: Tensor) -> Tensor:
        features = self.depthwise(self.grouped(torch.relu(self.norm(self.stem(images)))))
        return self.classifier(torch.relu(self.pointwise(features)).mean((2, 3)))


LAYERS = ("stem", "grouped", "pointwise", "classifier")


@st.composite
def small_nets(draw: st.DrawFn) -> SmallNet:
    groups = draw(st.sampled_from([1, 2, 3]))
    return SmallNet(groups * draw(st.integers(4, 6)), groups, draw(st.integers(4, 7)), draw(st.integers(0, 999))).eval()


def images(batch: int = 2) -> Tensor:
    return torch.randn(batch, 3, 8, 8, generator=torch.Generator().manual_seed(7))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def assert_unchanged(model: nn.Module, before: dict[str, Tensor]) -> None:
    """Same keys in the same order, same bits (NaN included), nothing wrapped, no instance left with its own forward."""
    after = model.state_dict()
    assert list(after) == list(before)
    for key, value in before.items():
        assert torch.equal(torch.nan_to_num(after[key], 123.0), torch.nan_to_num(value, 123.0)), key
    for name, module in model.named_modules():
        assert not hasattr(module, "_nni_wrapper"), name
        assert "forward" not in vars(module), name
