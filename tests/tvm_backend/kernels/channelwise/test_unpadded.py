"""Strips over unpadded rows: masks, rows and lanes add up to the convolution, and loads stay within their reach."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.channelwise.unpadded import Strips
from onexn_plugins.tvm_backend.kernels.problem import Conv
from tests.tvm_backend.kernels.differential import convolve, units


@st.composite
def strips(draw) -> Strips:
    """Depthwise layers whose rows lie in memory as they are: any padding less than the kernel."""
    side, stride = draw(st.sampled_from([3, 5])), draw(st.sampled_from([1, 2]))
    padding = tuple(draw(st.tuples(*[st.integers(0, side - 1)] * 4)))
    problem = Conv(1, 1, draw(st.integers(side, 20)), draw(st.integers(side, 40)), 1, (side, side), (stride, stride),
                   padding)
    return Strips(problem, draw(units), draw(st.integers(1, 4)))


def summed(strips: Strips, image: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """What strips sum by their own rules [out_height, out_width], and the first and the last index of every load."""
    problem, loaded = strips.depthwise, []
    right, left = problem.stride[1], problem.padding[1]
    pixels = image.reshape(-1)
    output = np.full((problem.out_height, problem.out_width), np.nan)
    for rows in strips.blocks:
        for start in strips.starts:
            masks = strips.masks(start)
            sums = np.zeros((len(rows), strips.lanes))
            for y in strips.rows_under(rows):
                for group in strips.column_groups:
                    first = y * problem.width + start * right + group[0] - left
                    loaded += [first, first + right * strips.lanes - 1]
                for column, mask in enumerate(masks):
                    for lane, own in enumerate(mask):
                        place = y * problem.width + (start + strips.order[lane]) * right + column - left
                        value = pixels[place] if own and 0 <= place < pixels.size else 0.0
                        for row, tap in strips.taps(rows, y):
                            sums[row, lane] += weight[tap, column] * value
            for place, row in enumerate(rows):
                for lane, column in enumerate(strips.order):
                    if start + column < problem.out_width:
                        output[row, start + column] = sums[place, lane]
    return output, loaded


@given(strips(), st.integers(0, 99))
def test_strips_sum_the_convolution(strips, seed):
    problem, rng = strips.depthwise, np.random.default_rng(seed)
    image = rng.integers(-3, 4, problem.input_shape).astype(np.float32)
    weight = rng.integers(-3, 4, problem.weight_shape).astype(np.float32)
    output, _ = summed(strips, image, weight[0, 0])
    np.testing.assert_array_equal(output, convolve(problem, image, weight, np.zeros(1, np.float32))[0, 0])


@given(strips())
def test_loads_reach_no_further_than_said(strips):
    problem = strips.depthwise
    _, loaded = summed(strips, np.zeros(problem.input_shape), np.zeros(problem.kernel))
    pixels = problem.height * problem.width
    assert min(loaded) >= -strips.lead
    assert max(loaded) < pixels + max(0, strips.overrun)


@given(strips())
def test_blocks_hold_every_row_once_and_fit_into_registers(strips):
    rows = [row for block in strips.blocks for row in block]
    assert rows == list(range(strips.depthwise.out_height))
    assert all(0 < len(block) <= strips.unit.registers // 2 for block in strips.blocks)
    assert len(strips.blocks) >= min(strips.least, strips.depthwise.out_height)


@given(strips())
def test_strips_hold_every_column_and_runs_are_strips_of_equal_masks(strips):
    width, lanes = strips.depthwise.out_width, strips.lanes
    assert lanes <= strips.unit.lanes
    assert lanes & (lanes - 1) == 0
    assert {start + lane for start in strips.starts for lane in range(lanes)} >= set(range(width))
    assert all(start + lanes <= max(width, lanes) for start in strips.starts)
    in_runs = [first + index * lanes for first, count in strips.runs for index in range(count)]
    assert in_runs == strips.starts
    for first, count in strips.runs:
        for index in range(count):
            assert strips.masks(first + index * lanes) == strips.masks(first)


@given(strips())
def test_columns_are_grouped_by_what_they_load_and_each_is_in_one_group(strips):
    columns = [column for group in strips.column_groups for column in group]
    assert columns == list(range(strips.depthwise.kernel[1]))
    assert all(len(group) <= strips.depthwise.stride[1] for group in strips.column_groups)
    assert sorted(strips.order) == list(range(strips.lanes))
