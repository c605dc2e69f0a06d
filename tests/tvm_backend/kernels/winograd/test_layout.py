"""How points and tiles lie in scratch: each point at a place of its own, every pixel of a tile found."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.winograd.filtering import MOST_POINTS, filterings
from onexn_plugins.tvm_backend.kernels.winograd.layout import BAND_BUDGET, Layout, Points, ProductLayout, layout_for
from tests.tvm_backend.kernels.differential import AVX2, AVX512, SSE, UNITS, units
from tests.tvm_backend.kernels.parts.test_window import padded_image, scratch_of

sizes = st.sampled_from([(2, 3, 1), (4, 3, 1), (2, 5, 1), (2, 3, 2), (4, 7, 2), (2, 7, 2), (3, 4, 3)])


@st.composite
def layouts(draw) -> Layout:
    """(outputs, taps, stride) of an image of any size, any padding less than the kernel."""
    outputs, taps, stride = draw(sizes)
    padding = tuple(draw(st.tuples(*[st.integers(0, taps - 1)] * 4)))
    groups = draw(st.sampled_from([1, 2]))
    problem = Conv(1, groups * draw(st.sampled_from([1, 3, 16, 64])), draw(st.integers(taps, 40)),
                   draw(st.integers(taps, 40)), groups * 8, (taps, taps), (stride, stride), padding, groups=groups)
    return layout_for(problem, outputs, draw(units))


@given(layouts())
def test_tiles_cover_every_output_and_bands_every_tile(layout):
    problem, tiles = layout.problem, layout.window.problem
    assert tiles.out_height == -(-problem.out_height // layout.outputs)
    assert tiles.out_width == -(-problem.out_width // layout.outputs)
    assert tiles.stride == tuple(layout.outputs * step for step in problem.stride)
    assert layout.lanes_computed >= tiles.out_height * tiles.out_width
    assert layout.vectors * layout.lanes >= layout.window.positions


@given(layouts())
def test_a_tile_finds_the_pixels_of_every_phase(layout):
    """Tile t's pixel (row, column) of a phase is that of the padded image which the filtering's signal takes."""
    window, tiles = layout.window, layout.window.problem
    (down_step, right_step), scratch = layout.problem.stride, scratch_of(layout.window, 0)
    image = padded_image(tiles)
    for (down, vertical), (right, horizontal) in layout.phases:
        wanted = [(down + row * down_step, right + column * right_step)
                  for row in range(vertical.points) for column in range(horizontal.points)]
        assert len(layout.pixels(down, right)) == len(wanted)
        for place, (row, column) in zip(layout.pixels(down, right), wanted, strict=True):
            for tile in {0, window.positions - 1}:
                tile_row, tile_column = divmod(tile, tiles.out_width)
                expected = image[tile_row * tiles.stride[0] + row, tile_column * tiles.stride[1] + column]
                assert scratch[place + tile] == expected


@given(layouts())
def test_rows_of_points_hold_every_point_of_every_phase_once(layout):
    held = Counter((row, *place) for rows in layout.rows for row in range(rows.first, rows.last)
                   for place in rows.places)
    points = {(row, down, right, column) for (down, vertical), (right, horizontal) in layout.phases
              for row in range(vertical.points) for column in range(horizontal.points)}
    assert held == Counter(points)
    assert layout.points == len(points)
    assert Counter(point for run in layout.reading for point in run) == Counter(points)


@given(layouts())
def test_every_point_has_a_place_of_its_own(layout):
    taken = np.zeros(layout.size, int)
    step = layout.lanes
    for tile in range(0, layout.window.positions, step):
        for channel in {0, layout.channels - 1}:
            for rows in layout.rows:
                for row in range(rows.first, rows.last):
                    for place in range(len(rows.places)):
                        start = layout.point(tile, channel, rows, row, place)
                        assert 0 <= start <= layout.size - step
                        taken[start:start + step] += 1
    assert taken.max() == 1


@given(layouts())
def test_bands_fit_into_the_budget_and_none_of_one_row_is_needed_beyond(layout):
    taken = 4 * layout.points * layout.channels * layout.window.rows * layout.window.problem.out_width
    assert layout.window.rows == 1 or taken <= BAND_BUDGET


@given(layouts())
def test_halves_lie_one_after_the_other(layout):
    halves = [layout.half(row, column) for row in range(layout.side[0]) for column in range(layout.outputs)]
    assert halves == list(range(0, layout.half_size, layout.vectors * layout.lanes))
    assert layout.row_length == layout.outputs * layout.vectors * layout.lanes


@given(layouts())
def test_points_of_equal_phases_are_numbered_once(layout):
    if isinstance(layout, ProductLayout):
        side = [(row, column) for row in range(layout.side[0]) for column in range(layout.side[1])]
        assert sorted(layout.numbers) == side
        assert sorted(layout.numbers.values()) == list(range(len(side)))
        assert sum(len(alike.points) * len(alike.phases) for alike in layout.alike) == layout.points


def test_of_bands_that_leave_equal_lanes_empty_the_tallest_is_taken():
    layout = layout_for(Conv(1, 8, 56, 56, 8, (3, 3), padding=(1, 1, 1, 1)), 4, SSE)
    assert layout.window.rows == 14
    assert layout.lanes_computed == 14 * 14


@pytest.mark.parametrize(("unit", "side", "kind"), [
    (AVX2, 7, ProductLayout), (AVX2, 56, ProductLayout), (SSE, 56, Layout), (AVX512, 7, Layout),
    (AVX512, 56, ProductLayout)])
def test_sums_go_point_by_point_where_vectors_of_tiles_share_it(unit, side, kind):
    assert type(layout_for(Conv(1, 64, side, side, 64, (3, 3), padding=(1, 1, 1, 1)), 4, unit)) is kind


@given(sizes, st.integers(0, 99))
def test_filterings_of_all_phases_sum_the_strided_filter(case, seed):
    """One dimension, by the definition of a filtering, in float64."""
    outputs, taps, stride = case
    rng = np.random.default_rng(seed)
    signal, filter_ = rng.standard_normal((outputs - 1) * stride + taps), rng.standard_normal(taps)
    phases = filterings(outputs, taps, stride)
    assert phases[0].points == outputs + len(filter_[::stride]) - 1 <= MOST_POINTS
    found = sum(phase.output @ ((phase.weight @ filter_[first::stride]) * (
        phase.input @ signal[first::stride][:phase.points])) for first, phase in enumerate(phases))
    expected = [signal[place * stride:][:taps] @ filter_ for place in range(outputs)]
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_algorithm_is_named_as_in_the_paper():
    problem = Conv(1, 8, 14, 14, 8, (3, 3), padding=(1, 1, 1, 1))
    assert Points(problem, 4, UNITS[0].lanes).method == "by Winograd's algorithm, F(4×4, 3×3)"
    strided = Conv(1, 8, 14, 14, 8, (7, 7), (2, 2))
    assert Points(strided, 4, 16).method.endswith("F(4×4, 7×7), the sum of 4 phases for stride 2×2")
