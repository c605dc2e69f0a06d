"""Conv nodes of one to three dimensions as problems of kernels: the same numbers, by torch in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from onexn_plugins.tvm_backend.kernels.problem import Conv, Conv3d, Unsupported
from onexn_plugins.tvm_backend.planning.fusion.geometry import Axis, asked
from tests.tvm_backend.kernels.differential import convolve, random_array
from tests.tvm_backend.kernels.geometry import size_for


@st.composite
def axes(draw):
    taps, stride = draw(st.sampled_from([1, 1, 2, 3, 5])), draw(st.sampled_from([1, 1, 2, 3]))
    dilation = draw(st.sampled_from([1, 1, 2, 7, 20]))
    before, after = draw(st.one_of(st.just((0, 0)), st.just((dilation * (taps // 2),) * 2),
                                   st.tuples(*[st.integers(0, 30)] * 2)))
    size = size_for(draw(st.integers(1, 6)), taps, stride, dilation, before + after)
    return Axis(size, taps, stride, before, after, dilation)


@settings(max_examples=60, deadline=None)
@given(st.lists(axes(), min_size=1, max_size=3), st.sampled_from([1, 2]))
def test_the_problem_computes_what_the_node_says(found, groups):
    rng = np.random.default_rng(0)
    x = random_array((2, 2 * groups, *(axis.size for axis in found)), rng)
    weight = random_array((3 * groups, 2, *(axis.taps for axis in found)), rng)
    bias = random_array((3 * groups,), rng)
    attributes = {"strides": [axis.stride for axis in found], "dilations": [axis.dilation for axis in found],
                  "pads": [axis.before for axis in found] + [axis.after for axis in found], "group": groups}
    wanted = asked(x.shape, weight.shape, attributes)
    problem = wanted.problem
    made = convolve(problem, x.reshape(problem.input_shape), wanted.weight(weight), bias)
    assert made.shape == problem.output_shape

    around = [side for axis in reversed(found) for side in (axis.before, axis.after)]
    apply = (F.conv1d, F.conv2d, F.conv3d)[len(found) - 1]
    expected = apply(F.pad(torch.from_numpy(x).double(), around), torch.from_numpy(weight).double(),
                     torch.from_numpy(bias).double(), attributes["strides"], 0, attributes["dilations"], groups)
    torch.testing.assert_close(made.reshape(expected.shape), expected)
    assert expected.shape[2:] == tuple(axis.outputs for axis in found)


@given(axes())
def test_a_tap_sees_what_brute_force_says(axis):
    for tap in range(axis.taps):
        places = [output * axis.stride + tap * axis.dilation - axis.before for output in range(axis.outputs)]
        assert axis.sees(tap) == any(0 <= place < axis.size for place in places)


def test_taps_that_lie_in_the_padding_for_every_output_are_left_out():
    attributes = {"pads": [36] * 4, "dilations": [36, 36]}
    wanted = asked((1, 8, 14, 14), (4, 8, 3, 3), attributes)
    assert wanted.problem == Conv(1, 8, 14, 14, 4)
    assert wanted.note == "8 of 9 taps see nothing but padding"
    weight = np.arange(4 * 8 * 9, dtype=np.float32).reshape(4, 8, 3, 3)
    np.testing.assert_array_equal(wanted.weight(weight), weight[:, :, 1:2, 1:2])
    assert asked((1, 8, 14, 14), (4, 8, 3, 3), {"pads": [12] * 4, "dilations": [12, 12]}).note == ""


def test_a_weight_that_is_taken_whole_is_not_copied():
    weight = np.zeros((4, 8, 3, 3), np.float32)
    assert asked((1, 8, 14, 14), weight.shape, {"pads": [1] * 4}).weight(weight) is weight


@pytest.mark.parametrize(("kernel", "kind", "size"), [
    ((1, 1, 1), Conv, (5, 42)), ((3, 1, 1), Conv, (5, 42)), ((1, 1, 3), Conv, (30, 7)), ((1, 3, 3), Conv3d, (6, 7)),
    ((3, 3, 3), Conv3d, (6, 7)),
])
def test_axes_without_a_window_are_one_axis(kernel, kind, size):
    wanted = asked((1, 8, 5, 6, 7), (4, 8, *kernel), {"pads": [tap // 2 for tap in kernel] * 2})
    assert type(wanted.problem) is kind
    assert (wanted.problem.height, wanted.problem.width) == size


def test_four_dimensions_are_refused():
    with pytest.raises(Unsupported, match="one to three dimensions"):
        asked((1, 2, 3, 3, 3, 3), (4, 2, 1, 1, 1, 1), {})
