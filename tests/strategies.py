"""Hypothesis strategies of the project, in one place."""

from __future__ import annotations

import torch
from hypothesis import strategies as st
from torch import Tensor

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
    """A dense weight without a single zero, and its pattern; Conv2d kernels or Linear."""
    pattern = draw(patterns())
    kernel = draw(st.sampled_from([(), (1, 1), (3, 3), (1, 5)])) if pattern.groups == 1 else draw(
        st.sampled_from([(1, 1), (3, 3)]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    weight = torch.randn(pattern.out_channels, pattern.in_channels, *kernel, generator=generator)
    return weight + weight.sign() * 1e-3, pattern


@st.composite
def keeps(draw: st.DrawFn, pattern: BlockPattern) -> Tensor:
    """Kept blocks of a pattern, any density."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    return torch.rand(pattern.shape, generator=generator) < draw(ratios)
