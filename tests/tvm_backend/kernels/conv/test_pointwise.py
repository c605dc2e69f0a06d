"""1×1 kernels against torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue, Tile
from tests.tvm_backend.kernels.differential import (
    AVX512,
    CASES_PER_MODULE,
    NEON,
    Case,
    check,
    conv,
    conv_case,
    convolve,
    densities,
    differential_settings,
    epilogues,
    random_array,
    units,
)
from tests.tvm_backend.kernels.geometry import pointwise_problems


@st.composite
def pointwise_cases(draw):
    problem = draw(pointwise_problems())
    block_size, density = draw(st.integers(1, 32)), draw(densities)
    return conv_case(conv, problem, block_size, density, draw(epilogues), draw(units), draw(st.integers(0, 999)))


@differential_settings
@given(st.lists(pointwise_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_pointwise_convolution_equals_torch(cases):
    check(cases)


def test_block_sizes_and_tiles_on_both_kinds_of_weight_loading():
    check([
        conv_case(conv, Conv(1, 24, 14, 14, 64), block_size, 0.4, Epilogue(False, "relu6"), unit, vectors=vectors)
        for unit in (AVX512, NEON) for block_size, vectors in [(2, 4), (4, 5), (8, 2), (16, 1), (32, 1)]
    ])


def test_two_blocks_a_turn_with_one_left_over():
    """Rows of an odd and an even number of blocks, a dense row of 33, and tiles of 6 and of 3 vectors, on ARM."""
    check([conv_case(conv, Conv(1, 33, 7, 7, 12), block_size, density, Epilogue(True, "relu6"), NEON)
           for block_size in (4, 8) for density in (0.5, 1.0)])


def test_one_block_a_turn_where_llvm_unrolls():
    cases = [conv_case(conv, Conv(1, 32, 6, 8, 8), 4, 0.7, Epilogue(), unit)
             for unit in (NEON, replace(NEON, unrolls=True))]
    check(cases)
    two, one = (len(case.kernel.func.script()) for case in cases)
    assert one < two


def test_more_pixels_than_a_group_of_tiles_takes():
    """512 channels leave two tiles of 64 pixels to a group: one is whole, one is not, and 4 pixels are left over."""
    check([conv_case(conv, Conv(1, 512, 14, 14, 12), 4, density, Epilogue(True, "relu"), AVX512)
           for density in (0.1, 1.0)])


def test_equal_blocks_in_every_row_and_an_empty_row():
    problem, rng = Conv(1, 16, 7, 7, 12), np.random.default_rng(1)
    x, bias = random_array(problem.input_shape, rng), random_array((12,), rng)
    even, empty = np.zeros(problem.weight_shape, np.float32), random_array(problem.weight_shape, rng)
    for row in range(3):
        even[4 * row : 4 * row + 4, rng.permutation(16)[:5]] = 1.0
    empty[4:8] = 0
    check([
        Case(conv(problem, weight, bias, Epilogue(), AVX512, Tile(4, 4)), [x], convolve(problem, x, weight, bias))
        for weight in (even, empty)
    ])
