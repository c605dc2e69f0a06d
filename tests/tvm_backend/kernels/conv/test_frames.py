"""3-d kernels against torch."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.choose import choose
from onexn_plugins.tvm_backend.kernels.problem import Conv3d, Epilogue
from tests.tvm_backend.kernels.differential import (
    NEON,
    ZEN4,
    Case,
    check,
    conv,
    conv_case,
    convolve,
    densities,
    depthwise,
    differential_settings,
    epilogues,
    finish,
    random_array,
    single,
    units,
)
from tests.tvm_backend.kernels.geometry import volumes


@st.composite
def frame_cases(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    problem = draw(volumes(groups * draw(st.integers(1, 5)), groups * draw(st.integers(1, 20)), groups))
    return conv_case(conv, problem, draw(st.integers(1, 20)), draw(densities), draw(epilogues), draw(units),
                     draw(st.integers(0, 999)))


@st.composite
def depthwise_cases(draw):
    channels = draw(st.integers(2, 5))
    return depthwise_case(draw(volumes(channels, channels, channels)), draw(epilogues), draw(units))


def depthwise_case(problem, epilogue, unit):
    rng = np.random.default_rng(0)
    x, weight = random_array(problem.input_shape, rng), random_array(problem.weight_shape, rng)
    bias = random_array((problem.out_channels,), rng)
    residual = [random_array(problem.output_shape, rng)] if epilogue.residual else []
    return Case(depthwise(problem, weight, bias, epilogue, unit), [x, *residual],
                finish(convolve(problem, x, weight, bias), epilogue, residual))


@settings(differential_settings, max_examples=2)  # each is six kernels
@given(st.lists(st.one_of(frame_cases(), frame_cases(), depthwise_cases()), min_size=6, max_size=6))
def test_any_convolution_of_frames_equals_torch(cases):
    check(cases)


def test_wide_layers_are_cut_into_bands_of_each_frame():
    problem = Conv3d(1, 300, 9, 40, 6, (3, 3), padding=(1, 1, 1, 1), depth=2, frames=3, frame_padding=(1, 1))
    check([conv_case(conv, problem, 4, 0.1, Epilogue(activation="relu"), unit) for unit in (ZEN4, NEON)])


def test_many_taps_are_a_loop():
    problem = Conv3d(1, 3, 9, 12, 6, (5, 5), padding=(2, 2, 2, 2), depth=5, frames=5, frame_padding=(2, 2))
    case = conv_case(conv, problem, 4, 0.5, Epilogue(), ZEN4)
    assert any(len(array) == 125 for array in case.kernel.constants), "the taps are listed"
    check([case])


def test_no_family_of_flat_images_is_asked():
    problem = Conv3d(1, 8, 9, 12, 8, depth=5, frames=3)
    request = single(problem, np.ones(problem.weight_shape, np.float32), np.ones(8, np.float32), Epilogue(), ZEN4)
    assert choose(request).refused == ()
