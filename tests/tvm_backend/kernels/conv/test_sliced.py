"""k×k kernels in slices of input channels, against torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.conv.sliced import sliced
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from tests.tvm_backend.kernels.differential import (
    AVX2,
    AVX512,
    NEON,
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
from tests.tvm_backend.kernels.geometry import convolutions


@st.composite
def sliced_cases(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    problem = draw(convolutions(groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 20)), groups))
    block_size, density, family = draw(st.integers(1, 9)), draw(densities), in_slices(sliced, draw(st.integers(1, 4)))
    return conv_case(family, problem, block_size, density, draw(epilogues), draw(units), draw(st.integers(0, 999)))


@differential_settings
@given(st.lists(sliced_cases(), min_size=4, max_size=4))
def test_any_sliced_convolution_equals_torch(cases):
    check(cases)


def test_bands_and_slices_of_unequal_length():
    """260 channels make 9 slices of 29 with 28 in the last one; 140 rows of 64 channels make several bands."""
    stride = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)}
    check([conv_case(in_slices(sliced, None), problem, 4, 0.6, Epilogue(True, "relu"), AVX2)
           for problem in (Conv(1, 260, 7, 7, 12, **stride), Conv(1, 64, 140, 40, 8, **stride))])


@pytest.mark.parametrize(("channels", "kept", "unit", "family"), [
    (64, 1.0, AVX2, "conv_3x3_sliced"),
    (64, 0.25, AVX2, "conv_3x3"),  # four uses of a channel
    (16, 1.0, AVX2, "conv_3x3"),  # fit the first cache
    (64, 1.0, AVX512, "conv_3x3"),
    (64, 1.0, NEON, "conv_3x3"),
])
def test_slices_are_taken_where_channels_are_many_and_used_often(channels, kept, unit, family):
    weight = np.tile(pruned_weight(channels, 64, kept), (1, 1, 3, 3))
    problem = Conv(1, channels, 14, 14, 64, (3, 3), (2, 2), (1, 1, 1, 1))
    assert conv(problem, weight, np.zeros(64, np.float32), Epilogue(), unit).family == family
