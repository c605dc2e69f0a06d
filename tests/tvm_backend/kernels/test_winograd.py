"""3×3 kernels by Winograd's algorithm against torch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels import Conv, Epilogue, conv
from onexn_plugins.tvm_backend.kernels.winograd import winograd
from tests.tvm_backend.kernels.differential import (
    AVX512,
    CASES_PER_MODULE,
    NEON,
    check,
    conv_case,
    densities,
    differential_settings,
    epilogues,
    random_weight,
    units,
)


@st.composite
def winograd_cases(draw):
    groups, side, padding = draw(st.sampled_from([1, 1, 2])), st.integers(3, 40), st.integers(0, 2)
    problem = Conv(draw(st.integers(1, 2)), groups * draw(st.integers(1, 6)), draw(side), draw(side),
                   groups * draw(st.integers(1, 20)), (3, 3), (1, 1), tuple(draw(padding) for _ in range(4)), (1, 1),
                   groups)
    block_size, density = draw(st.integers(1, 20)), draw(densities)
    return conv_case(winograd, problem, block_size, density, draw(epilogues), draw(units), draw(st.integers(0, 999)))


@differential_settings
@given(st.lists(winograd_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_3x3_convolution_equals_torch(cases):
    check(cases)


def test_layers_of_real_networks():
    problems = [
        Conv(1, 64, 56, 56, 8, (3, 3), (1, 1), (1, 1, 1, 1)),  # several bands
        Conv(1, 32, 28, 28, 16, (3, 3), (1, 1), (1, 1, 1, 1)),
        Conv(1, 64, 14, 14, 16, (3, 3), (1, 1), (1, 1, 1, 1)),
        Conv(1, 512, 7, 7, 16, (3, 3), (1, 1), (1, 1, 1, 1)),
    ]
    check([conv_case(winograd, problem, 4, 0.5, Epilogue(activation="relu"), unit)
           for problem in problems for unit in (AVX512, NEON)])


def test_it_is_taken_where_it_pays():
    def family(channels, side, kept, unit=AVX512, **changes):
        problem = Conv(1, channels, side, side, channels, **{"kernel": (3, 3), "padding": (1, 1, 1, 1)} | changes)
        weight = random_weight(problem, 4, kept, np.random.default_rng(0))
        bias = np.zeros(channels, np.float32)
        return conv(problem, weight, bias, Epilogue(), unit).family

    assert family(64, 28, 1.0) == family(64, 28, 0.5) == family(128, 14, 0.3) == "winograd_3x3"
    assert family(64, 28, 0.05) == family(8, 28, 1.0) == "conv_3x3"
    assert family(256, 14, 0.1, NEON) == family(128, 28, 0.1, NEON) == "winograd_3x3"  # by instruction counts
    assert family(16, 32, 0.25, NEON) == family(32, 16, 0.1, NEON) == "conv_3x3"
    assert family(64, 28, 1.0, stride=(2, 2)) == family(64, 28, 1.0, dilation=(2, 2)) == "conv_3x3"
