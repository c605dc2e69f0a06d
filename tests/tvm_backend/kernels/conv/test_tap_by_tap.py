"""Dilated kernels whose taps lie in the padding for many outputs, against torch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.choose import choose
from onexn_plugins.tvm_backend.kernels.conv.tap_by_tap import tap_by_tap
from onexn_plugins.tvm_backend.kernels.parts.taps import rectangles
from onexn_plugins.tvm_backend.kernels.problem import Conv, Epilogue
from tests.tvm_backend.kernels.differential import (
    AVX2,
    NEON,
    ZEN4,
    check,
    conv_case,
    densities,
    differential_settings,
    epilogues,
    family,
    single,
    units,
)
from tests.tvm_backend.kernels.geometry import size_for


@st.composite
def dilated(draw, in_channels=4, out_channels=4, groups=1):
    """Kernels and strides up to 3, dilations up to beyond the image, any padding."""
    sides = []
    for largest in draw(st.sampled_from([(9, 20), (1, 40), (14, 14)])):
        taps, stride, dilation = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 16))
        before, after = draw(st.one_of(st.just((dilation * (taps // 2),) * 2), st.tuples(*[st.integers(0, 18)] * 2)))
        size = size_for(draw(st.integers(1, largest)), taps, stride, dilation, before + after)
        sides.append((size, taps, stride, before, after, dilation))
    height, width = sides
    return Conv(draw(st.integers(1, 2)), in_channels, height[0], width[0], out_channels, (height[1], width[1]),
                (height[2], width[2]), (height[3], width[3], height[4], width[4]), (height[5], width[5]), groups)


@st.composite
def cases(draw):
    groups = draw(st.sampled_from([1, 1, 2]))
    problem = draw(dilated(groups * draw(st.integers(1, 6)), groups * draw(st.integers(1, 20)), groups))
    return conv_case(family(tap_by_tap), problem, draw(st.integers(1, 20)), draw(densities), draw(epilogues),
                     draw(units), draw(st.integers(0, 999)))


@settings(differential_settings, max_examples=2)  # each is six kernels
@given(st.lists(cases(), min_size=6, max_size=6))
def test_any_dilated_convolution_equals_torch(found):
    check(found)


def test_wide_layers_are_copied_some_rows_at_a_time():
    problem = Conv(1, 1100, 14, 14, 6, (3, 3), padding=(6, 6, 6, 6), dilation=(6, 6))
    check([conv_case(family(tap_by_tap), problem, 4, 0.1, Epilogue(activation="relu"), unit) for unit in (ZEN4, NEON)])


@given(dilated())
def test_rectangles_hold_what_taps_see(problem):
    """A tap of ones over an image of ones says which outputs it serves."""
    found = {item.tap: item for item in rectangles(problem)}
    top, left, bottom, right = problem.padding
    image = torch.nn.functional.pad(torch.arange(1.0, problem.height * problem.width + 1).reshape(
        1, 1, problem.height, problem.width), (left, right, top, bottom))
    for tap in range(math.prod(problem.kernel)):
        weight = torch.zeros(1, 1, *problem.kernel)
        weight.view(-1)[tap] = 1
        seen = torch.nn.functional.conv2d(image, weight, None, problem.stride, 0, problem.dilation)[0, 0].numpy()
        expected = np.zeros_like(seen)
        if tap in found:
            item = found[tap]
            rows, columns = np.arange(item.rows), np.arange(item.columns)
            expected[item.top:item.top + item.rows, item.left:item.left + item.columns] = 1 + (
                (item.y + rows * problem.stride[0])[:, None] * problem.width + item.x + columns * problem.stride[1])
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize(("pixels", "dilation", "served"), [(14, 12, True), (33, 24, True), (33, 2, False)])
@pytest.mark.parametrize("unit", [ZEN4, AVX2, NEON])
def test_it_serves_layers_most_of_whose_taps_see_padding(pixels, dilation, served, unit):
    problem = Conv(1, 240, pixels, pixels, 64, (3, 3), padding=(dilation,) * 4, dilation=(dilation,) * 2)
    weight, bias = np.ones(problem.weight_shape, np.float32), np.ones(64, np.float32)
    chosen = choose(single(problem, weight, bias, Epilogue(), unit)).family.name
    assert (chosen == "conv k×k, tap by tap") == served
