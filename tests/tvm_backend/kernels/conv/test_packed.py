"""1×1 kernels on packed pixels, in one or more slices of input channels, against torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.conv.packed import packed
from onexn_plugins.tvm_backend.kernels.encode import encode
from onexn_plugins.tvm_backend.kernels.parts.slices import best_slices
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile
from tests.tvm_backend.kernels.differential import (
    AVX2,
    AVX512,
    CASES_PER_MODULE,
    NEON,
    ZEN4,
    check,
    conv,
    conv_case,
    densities,
    differential_settings,
    epilogues,
    in_slices,
    pruned_weight,
    units,
)
from tests.tvm_backend.kernels.geometry import pointwise_problems


@st.composite
def packed_cases(draw):
    problem = replace(draw(pointwise_problems()), stride=draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (3, 1)])))
    block_size, density, family = draw(st.integers(1, 32)), draw(densities), in_slices(packed, draw(st.integers(1, 6)))
    return conv_case(family, problem, block_size, density, draw(epilogues), draw(units), draw(st.integers(0, 999)))


@differential_settings
@given(st.lists(packed_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_packed_convolution_equals_torch(cases):
    check(cases)


def test_slices_of_unequal_length_with_a_residual():
    """900 channels make four slices of 225, 700 make three of 234, 234 and 232; 49 pixels leave one single pixel."""
    check([conv_case(in_slices(packed, None), Conv(1, channels, 7, 7, 12), 4, density, Epilogue(True, "relu6"), AVX2)
           for channels in (900, 700) for density in (0.5, 1.0)])


@pytest.mark.parametrize(("channels", "out_channels", "kept", "unit", "family"), [
    (64, 64, 1.0, AVX2, "conv_1x1_packed"),
    (64, 64, 0.25, AVX2, "conv_1x1"),
    (64, 256, 0.25, AVX2, "conv_1x1_packed"),
    (64, 256, 0.1, AVX2, "conv_1x1"),
    (1024, 256, 0.1, AVX2, "conv_1x1_packed"),  # as many uses, but of more than the first cache holds
    (64, 256, 0.0, AVX2, "conv_1x1"),
    (64, 64, 1.0, AVX512, "conv_1x1_packed"),
    (64, 64, 0.25, AVX512, "conv_1x1"),
    (64, 64, 1.0, ZEN4, "conv_1x1"),
    (64, 64, 1.0, NEON, "conv_1x1"),
])
def test_pixels_are_packed_where_many_block_rows_use_them(channels, out_channels, kept, unit, family):
    weight, bias = pruned_weight(channels, out_channels, kept), np.zeros(out_channels, np.float32)
    kernel = conv(Conv(1, channels, 7, 7, out_channels), weight, bias, Epilogue(), unit)
    assert kernel.family == family


@pytest.mark.parametrize(("channels", "side", "kept", "family"), [
    (64, 8, 1.0, "conv_1x1"), (256, 8, 1.0, "conv_1x1_packed"), (256, 8, 0.5, "conv_1x1"),
    (256, 32, 0.5, "conv_1x1_packed"),  # more than the second cache holds
    (256, 32, 0.25, "conv_1x1"),
])
def test_aligned_pixels_are_packed_where_there_are_many(channels, side, kept, family):
    """A channel of 8×8 pixels is four whole vectors."""
    weight, bias = pruned_weight(channels, 64, kept), np.zeros(64, np.float32)
    assert conv(Conv(1, channels, side, side, 64), weight, bias, Epilogue(), AVX512).family == family


@pytest.mark.parametrize(("channels", "kept", "slices"), [(256, 1.0, 1), (1024, 1.0, 4), (1024, 0.1, 3), (256, 0.1, 1)])
def test_slices_fit_the_first_cache_but_keep_blocks_enough(channels, kept, slices):
    assert best_slices(encode(pruned_weight(channels, 512, kept), 4), Tile(4, 3), AVX2) == slices
