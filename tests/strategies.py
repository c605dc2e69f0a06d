"""Hypothesis strategies of the project, in one place."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from onexn_plugins.layers import PrunableLayer
from onexn_plugins.pattern import BlockPattern

block_sizes = st.integers(1, 32)
ratios = st.floats(0.0, 1.0, allow_nan=False)


@st.composite
def patterns(draw: st.DrawFn) -> BlockPattern:
    """Any pattern: tails, groups, N from 1 to the layer's width."""
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    out_channels = groups * draw(st.integers(1, 24))
    block_size = draw(st.integers(1, 32))
    return BlockPattern(out_channels, draw(st.integers(1, 9)), block_size, groups)


@st.composite
def weights(draw: st.DrawFn) -> tuple[Tensor, BlockPattern]:
    """A dense weight without a single zero, and its pattern; kernels of one or two dimensions, or Linear."""
    pattern = draw(patterns())
    kernel = draw(st.sampled_from([(), (1, 1), (3, 3), (1, 5), (3,)])) if pattern.groups == 1 else draw(
        st.sampled_from([(1, 1), (3, 3), (2,)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weight = torch.randn(pattern.out_channels, pattern.in_channels, *kernel, generator=generator)
    return weight + weight.sign() * 1e-3, pattern


@st.composite
def keeps(draw: st.DrawFn, pattern: BlockPattern) -> Tensor:
    """Kept blocks of a pattern, any density."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return torch.rand(pattern.shape, generator=generator) < draw(ratios)


@st.composite
def layers(draw: st.DrawFn) -> PrunableLayer:
    """Any layer that has blocks, without a bias or a single zero: groups, one and two dimensions, transposed or not."""
    kind = draw(st.sampled_from([nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d]))
    groups = 1 if kind is nn.Linear else draw(st.sampled_from([1, 1, 2, 3]))
    reads, gives = groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 12))
    torch.manual_seed(draw(st.integers(0, 2**16)))
    layer = nn.Linear(reads, gives, bias=False) if kind is nn.Linear else kind(
        reads, gives, draw(st.integers(1, 3)), draw(st.integers(1, 2)), groups=groups, bias=False)
    with torch.no_grad():
        layer.weight.add_(layer.weight.sign() * 1e-3)
    return layer
