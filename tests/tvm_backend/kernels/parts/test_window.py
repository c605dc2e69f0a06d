"""Padded scratch images: every tap finds its pixel at a constant offset, bands hold every row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.parts.bands import upright
from onexn_plugins.tvm_backend.kernels.parts.window import (
    Image,
    TileWindow,
    Window,
    band_start,
    pack,
    pack_column,
    pad,
    window_for,
)
from onexn_plugins.tvm_backend.kernels.problem import Conv
from tests.tvm_backend.kernels.differential import AVX512, NEON
from tests.tvm_backend.kernels.emitted import emitted
from tests.tvm_backend.kernels.geometry import convolutions, signals

NEVER_WRITTEN = -7.0


@st.composite
def windows(draw):
    problem = draw(convolutions(1, 1))
    rows = draw(st.integers(1, problem.out_height))
    if draw(st.booleans()):
        return TileWindow(problem, rows), draw(st.integers(0, problem.out_height - rows))
    alignment = draw(st.sampled_from([1, 1, 4, 16]))
    return Window(problem, rows, alignment), draw(st.integers(0, problem.out_height - rows))


def padded_image(problem: Conv) -> np.ndarray:
    """Pixels 1, 2, 3 ... in zeros, and more zeros than the padding behind them."""
    top, left, _, _ = problem.padding
    image = np.zeros((problem.height + top + 300, problem.width + left + 300), np.float32)
    pixels = np.arange(1, problem.height * problem.width + 1).reshape(problem.height, problem.width)
    image[top:top + problem.height, left:left + problem.width] = pixels
    return image


def scratch_of(window: Window, first_row: int) -> np.ndarray:
    """What the scratch of a channel must hold by the definition of phases; two claims to a place must agree."""
    problem, image = window.problem, padded_image(window.problem)
    scratch = np.full(window.size, NEVER_WRITTEN, np.float32)
    for phase in window.phases.values():
        for row in range(phase.rows):
            line = image[(first_row + row) * problem.stride[0] + phase.row]
            for column in range(phase.width):
                place, value = phase.base + row * window.row_stride + column, line[column * problem.stride[1]
                                                                                   + phase.column]
                assert scratch[place] in (NEVER_WRITTEN, value), "a pixel lies where another one does"
                scratch[place] = value
    return scratch


def assert_taps_find_their_pixels(window: Window, first_row: int, scratch: np.ndarray) -> None:
    problem, image = window.problem, padded_image(window.problem)
    taps = [(row * problem.dilation[0], column * problem.dilation[1])
            for row in range(problem.kernel[0]) for column in range(problem.kernel[1])]
    for (down, right), offset in zip(taps, window.taps, strict=True):
        for row in range(window.rows):
            start = offset + row * window.row_stride
            found = scratch[start:start + problem.out_width]
            line = image[(first_row + row) * problem.stride[0] + down]
            np.testing.assert_array_equal(found, line[right::problem.stride[1]][:problem.out_width])


@given(windows())
def test_every_tap_finds_its_pixel(case):
    window, first_row = case
    assert_taps_find_their_pixels(window, first_row, scratch_of(window, first_row))


@given(windows())
def test_positions_of_every_tap_lie_within_the_scratch(case):
    window, _ = case
    assert min(window.taps) >= 0
    assert max(window.taps) + window.positions <= window.size
    assert window.positions == (window.rows - 1) * window.row_stride + window.problem.out_width
    assert window.is_compact == (window.row_stride == window.problem.out_width)


@given(windows())
def test_aligned_rows_begin_with_a_pixel_at_whole_vectors(case):
    window, _ = case
    assert window.row_stride % window.alignment == 0
    for phase in window.phases.values():
        start, stop = window.image_columns(phase.column, phase.width)
        if stop > start:
            assert (phase.base + start) % window.alignment == 0


@given(windows(), st.integers(0, 60))
def test_image_columns_are_those_that_are_not_padding(case, width):
    window, _ = case
    problem, left = window.problem, window.problem.padding[1]
    for phase in window.phases.values():
        start, stop = window.image_columns(phase.column, width)
        inside = [column for column in range(width)
                  if 0 <= column * problem.stride[1] + phase.column - left < problem.width]
        assert list(range(start, stop)) == inside


@pytest.mark.parametrize(("kernel", "width", "stride"), [((3, 3), 14, 15), ((5, 5), 14, 16), ((1, 1), 14, 14)])
def test_zeros_between_rows_are_shared(kernel, width, stride):
    padding = (kernel[0] // 2,) * 4
    assert Window(Conv(1, 1, width, width, 1, kernel, padding=padding), 3).row_stride == stride


@given(convolutions(1, 1), st.integers(1, 40), st.integers(200, 40_000), st.sampled_from([1, 4]))
def test_bands_are_as_tall_as_the_budget_allows(problem, channels, budget, alignment):
    window = window_for(problem, channels, budget, alignment)

    def size(rows):
        return 4 * channels * Window(problem, rows, alignment).size

    assert 1 <= window.rows <= problem.out_height
    assert window.rows == 1 or size(window.rows) <= budget
    bands = -(-problem.out_height // window.rows)
    if bands > 1:
        assert size(-(-problem.out_height // (bands - 1))) > budget, "with a band less it would have fitted"


@given(windows())
def test_bands_hold_every_row_and_end_with_the_image(case):
    window, _ = case
    height = window.problem.out_height
    bands = band_start(window, 0)[0]
    starts = [int(band_start(window, band)[1]) for band in range(bands)]
    assert {row for start in starts for row in range(start, start + window.rows)} == set(range(height))
    assert starts[-1] + window.rows == height
    assert (bands - 1) * window.rows < height


@settings(max_examples=6)
@given(windows(), st.sampled_from([AVX512, NEON]))
def test_packing_fills_the_scratch_so(case, unit):
    window, first_row = case
    problem = window.problem
    image = np.arange(1, problem.height * problem.width + 1, dtype=np.float32)
    spare = 4 * unit.lanes

    def emit(scratch, x):
        pack(window, Image(x, 0, problem.width), scratch, 0, first_row, unit)

    scratch = emitted(window.size + spare, emit, image)
    assert_taps_find_their_pixels(window, first_row, scratch)

    def emit_padding(scratch, x):
        pad(window, scratch, 0, first_row, unit)

    assert not emitted(window.size + spare, emit_padding, image).any(), "padding alone writes zeros"


@settings(max_examples=6)
@given(signals(1, 1), st.sampled_from([AVX512, NEON]), st.data())
def test_packing_a_column_fills_the_scratch_so(problem, unit, data):
    column = upright(problem)
    rows = data.draw(st.integers(1, column.out_height))
    first_row, window = data.draw(st.integers(0, column.out_height - rows)), Window(column, rows)
    assert window.is_column == (column.width == 1)
    image = np.arange(1, column.height * column.width + 1, dtype=np.float32)
    emit = pack_column if window.is_column else pack
    scratch = emitted(window.size + 4 * unit.lanes,
                      lambda scratch, x: emit(window, Image(x, 0, column.width), scratch, 0, first_row, unit), image)
    assert_taps_find_their_pixels(window, first_row, scratch)
