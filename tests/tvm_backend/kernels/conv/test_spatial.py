"""k×k kernels against torch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.parts.window import window_for
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from tests.tvm_backend.kernels.differential import (
    AVX512,
    CASES_PER_MODULE,
    NEON,
    check,
    conv,
    conv_case,
    densities,
    differential_settings,
    epilogues,
    units,
)
from tests.tvm_backend.kernels.geometry import convolutions


@st.composite
def spatial_cases(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    problem = draw(convolutions(groups * draw(st.integers(1, 6)), groups * draw(st.integers(1, 20)), groups))
    block_size, density = draw(st.integers(1, 20)), draw(densities)
    return conv_case(conv, problem, block_size, density, draw(epilogues), draw(units), draw(st.integers(0, 999)))


@differential_settings
@given(st.lists(spatial_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_convolution_equals_torch(cases):
    check(cases)


def test_layers_of_real_networks():
    problems = [
        Conv(1, 3, 64, 64, 32, (3, 3), (2, 2), (1, 1, 1, 1)),
        Conv(1, 3, 64, 62, 8, (7, 7), (2, 2), (3, 3, 3, 3)),
        Conv(1, 32, 7, 7, 16, (3, 3), (1, 1), (1, 1, 1, 1)),
        Conv(1, 16, 14, 14, 32, (1, 1), (2, 2)),
        Conv(1, 128, 56, 56, 8, (3, 3), (1, 1), (1, 1, 1, 1)),  # several bands
        Conv(1, 64, 14, 14, 64, (3, 3), (1, 1), (1, 1, 1, 1), groups=16),
    ]
    check([
        conv_case(conv, problem, 4, 0.5, Epilogue(activation="relu"), unit) for problem in problems
        for unit in (AVX512, NEON)
    ])


def test_bands_of_wide_images_get_lower_until_they_fit():
    """From two rows on, one band more may leave the rows as they are."""
    for height in range(1, 40):
        window = window_for(Conv(1, 8, height, 2**14, 8, (3, 3), padding=(1, 1, 1, 1)), 8, 2**17)
        assert window.rows == 1
