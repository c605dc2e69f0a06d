"""Stems by Winograd's algorithm and the depthwise convolution after them, against torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.pairs.stem import why_not_stem
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from tests.tvm_backend.kernels.differential import (
    ACTIVATIONS,
    AVX2,
    AVX512,
    NEON,
    check,
    densities,
    differential_settings,
    epilogues,
    pair,
)
from tests.tvm_backend.kernels.geometry import size_for
from tests.tvm_backend.kernels.pairs.test_pairs import depthwise_after, fused_case

FAMILY = "winograd_2x2_3x3_depthwise"


@st.composite
def stem_cases(draw):
    """Hidden images that strips cover, with any padding but on the left, and inputs whose last pixels nothing reads."""
    top, bottom, right = (draw(st.integers(0, 2)) for _ in range(3))
    out_height, out_width = 8 * draw(st.integers(1, 4)), 16 * draw(st.integers(1, 3))
    height = size_for(out_height, 3, 2, 1, top + bottom) + draw(st.integers(0, 1))
    width = size_for(out_width, 3, 2, 1, 1 + right) + draw(st.integers(0, 1))
    problem = Conv(draw(st.integers(1, 2)), draw(st.integers(1, 4)), height, width, draw(st.integers(1, 20)), (3, 3),
                   (2, 2), (top, 1, bottom, right))
    block_size, epilogue = draw(st.integers(1, 20)), Epilogue(activation=draw(st.sampled_from(list(ACTIVATIONS))))
    case = fused_case(problem, depthwise_after(problem, 3, 1), block_size, draw(densities), epilogue, draw(epilogues),
                      AVX512, draw(st.integers(0, 999)))
    assert case.kernel.family == FAMILY
    return case


@differential_settings
@given(st.lists(stem_cases(), min_size=3, max_size=3))
def test_any_stem_equals_torch(cases):
    check(cases)


def test_the_stem_of_mobilenet():
    problem = Conv(1, 3, 224, 224, 32, (3, 3), (2, 2), (1, 1, 1, 1))
    relu6 = Epilogue(activation="relu6")
    check([fused_case(problem, depthwise_after(problem, 3, 1), 4, 1.0, relu6, relu6, AVX512)])


def is_stem(problem, depthwise, unit):
    """Whether the two are computed so; their weights do not matter."""
    def ones(conv):
        return np.ones(conv.weight_shape, np.float32), np.zeros(conv.out_channels, np.float32)

    return why_not_stem(pair((problem, *ones(problem), Epilogue()), (depthwise, *ones(depthwise)), unit)) is None


def test_others_are_summed_directly():
    problem = Conv(1, 3, 32, 32, 8, (3, 3), (2, 2), (1, 1, 1, 1))
    assert is_stem(problem, depthwise_after(problem, 3, 1), AVX512)
    for unit in (AVX2, NEON, replace(AVX512, threads=2)):
        assert not is_stem(problem, depthwise_after(problem, 3, 1), unit)
    for size, stride in ((3, 2), (5, 1)):
        assert not is_stem(problem, depthwise_after(problem, size, stride), AVX512)
    for changes in ({"in_channels": 8}, {"height": 30}, {"width": 48}, {"padding": (1, 0, 1, 2)}, {"stride": (1, 1)}):
        other = replace(problem, **changes)
        assert not is_stem(other, depthwise_after(other, 3, 1), AVX512)
