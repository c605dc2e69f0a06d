"""Transposed convolutions against torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.problem import Epilogue, Transposed
from tests.tvm_backend.kernels.differential import (
    AVX2,
    AVX512,
    CASES_PER_MODULE,
    NEON,
    UNITS,
    ZEN4,
    check,
    conv,
    conv_case,
    densities,
    differential_settings,
    epilogues,
    random_array,
    random_weight,
    units,
)


@st.composite
def transposed_problems(draw, in_channels, out_channels, groups=1):
    """Any kernel up to 5×5, stride, dilation and padding; outputs may end beyond what pixels reach."""
    kernel = draw(st.sampled_from([(2, 2), (3, 3), (4, 4), (1, 1), (5, 5), (1, 4), (2, 3)]))
    stride = draw(st.sampled_from([(2, 2), (2, 2), (1, 1), (4, 4), (1, 2), (3, 3), (3, 1), (2, 5), (2, 8)]))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 2), (1, 3), (3, 2)]))
    image = draw(st.integers(1, 9)), draw(st.integers(1, 25))
    padding = draw(st.tuples(*[st.integers(0, 4)] * 4))
    size = tuple(
        max(1, (image[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1 - padding[axis]
            - padding[axis + 2] + draw(st.integers(0, max(stride[axis], dilation[axis]) - 1))) for axis in (0, 1))
    axes = draw(st.sampled_from([2, 2, 1]))
    if axes == 1:
        kernel, stride, dilation = (1, kernel[1]), (1, stride[1]), (1, dilation[1])
        image, size, padding = (1, image[1]), (1, size[1]), (0, padding[1], 0, padding[3])
    return Transposed(draw(st.integers(1, 2)), in_channels, *image, out_channels, kernel, stride, padding, dilation,
                      groups, size, axes)


@st.composite
def transposed_cases(draw):
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = (1, 1) if draw(st.integers(0, 4)) == 0 else (draw(st.integers(1, 6)), draw(st.integers(1, 20)))
    problem = draw(transposed_problems(groups * inputs, groups * outputs, groups))
    block_size, density = draw(st.integers(1, 20)), draw(densities)
    return conv_case(conv, problem, block_size, density, draw(epilogues), draw(units), draw(st.integers(0, 999)))


@settings(differential_settings, max_examples=3)
@given(st.lists(transposed_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_transposed_convolution_equals_torch(cases):
    check(cases)


UPSAMPLING = Transposed(1, 24, 9, 7, 20, (2, 2), (2, 2), size=(18, 14))
HEAD = Transposed(1, 16, 8, 6, 18, (4, 4), (2, 2), (1, 1, 1, 1), size=(16, 12))
ODD = Transposed(1, 9, 5, 6, 8, (3, 3), (2, 2), (1, 1, 1, 1), size=(10, 11))
BILINEAR = Transposed(1, 5, 4, 5, 5, (16, 16), (8, 8), (4, 4, 4, 4), groups=5, size=(32, 40))
VOCODER = Transposed(2, 12, 1, 19, 8, (1, 16), (1, 8), (0, 4, 0, 4), size=(1, 152), axes=1)
SPARSE_TAPS = Transposed(1, 6, 4, 4, 8, (2, 2), (3, 3), (0, 0, 0, 0), size=(12, 12))  # phases without a tap
SIGNAL = Transposed(1, 24, 1, 4099, 4, (1, 4), (1, 2), (0, 1, 0, 0), size=(1, 8199), axes=1)  # bands of columns
LONG = Transposed(2, 40, 1, 3000, 5, (1, 5), (1, 3), (0, 2, 0, 2), size=(1, 9000), axes=1)
COLUMN = Transposed(1, 3, 40, 1, 8, (4, 1), (2, 1), (1, 0, 1, 0), size=(79, 1))
BANDS = Transposed(1, 96, 33, 64, 4, (2, 2), (2, 2), size=(66, 128))


def test_layers_of_real_networks():
    problems = [UPSAMPLING, HEAD, ODD, BILINEAR, VOCODER, SPARSE_TAPS]
    check([conv_case(conv, problem, 4, density, Epilogue(True, "relu"), unit) for problem, density, unit in zip(
        problems, [0.5, 0.25, 0.5, 1.0, 0.25, 0.5], [AVX512, NEON, AVX2, NEON, ZEN4, AVX512], strict=True)]
          + [conv_case(conv, problem, 4, 0.3, Epilogue(), AVX2) for problem in (BANDS, LONG)]
          + [conv_case(conv, problem, 4, 0.5, Epilogue(True), NEON) for problem in (SIGNAL, COLUMN)])


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.isa.name)
@pytest.mark.parametrize("problem", [HEAD, replace(BILINEAR, kernel=(2, 2), size=(30, 38))], ids=["dense", "depthwise"])
def test_every_one_is_served(problem, unit):
    """By one kernel, of few loops: as many phases as eight by eight do not make the code longer."""
    rng = np.random.default_rng(0)
    arrays = random_weight(problem, 4, 0.5, rng), random_array((problem.out_channels,), rng)
    kernel = conv(problem, *arrays, Epilogue(), unit)
    assert kernel.family == f"transposed_{problem.kernel[0]}x{problem.kernel[1]}"
