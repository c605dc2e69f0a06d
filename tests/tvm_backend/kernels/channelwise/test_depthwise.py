"""Depthwise kernels against torch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from tests.tvm_backend.kernels.differential import (
    AVX512,
    CASES_PER_MODULE,
    SSE,
    Case,
    check,
    conv,
    convolve,
    depthwise,
    differential_settings,
    epilogues,
    finish,
    random_array,
    units,
)
from tests.tvm_backend.kernels.geometry import convolutions


@st.composite
def depthwise_cases(draw):
    channels = draw(st.integers(1, 4))
    problem = draw(convolutions(channels, channels, groups=channels))
    return depthwise_case(problem, draw(epilogues), draw(units), draw(st.integers(0, 999)))


def depthwise_case(problem, epilogue, unit, seed=0):
    rng = np.random.default_rng(seed)
    x, bias = random_array(problem.input_shape, rng), random_array((problem.out_channels,), rng)
    weight = random_array(problem.weight_shape, rng)
    residual = [random_array(problem.output_shape, rng)] if epilogue.residual else []
    kernel = depthwise(problem, weight, bias, epilogue, unit)
    return Case(kernel, [x, *residual], finish(convolve(problem, x, weight, bias), epilogue, residual))


@differential_settings
@given(st.lists(depthwise_cases(), min_size=CASES_PER_MODULE, max_size=CASES_PER_MODULE))
def test_any_depthwise_convolution_equals_torch(cases):
    check(cases)


def test_images_of_several_bands():
    sizes = [(112, 112, 1), (113, 75, 2), (150, 151, 1)]
    check([
        depthwise_case(Conv(1, 2, height, width, 2, (3, 3), (stride, stride), (1, 1, 1, 1), groups=2),
                       Epilogue(activation="relu6"), unit)
        for height, width, stride in sizes for unit in (AVX512, SSE)
    ])


def test_a_channel_multiplier_is_left_to_the_grouped_kernel():
    problem = Conv(1, 4, 8, 8, 8, (3, 3), groups=4)
    kernel = conv(problem, np.ones(problem.weight_shape, np.float32), np.ones(8, np.float32), Epilogue(), AVX512)
    assert kernel.family == "conv_3x3"
