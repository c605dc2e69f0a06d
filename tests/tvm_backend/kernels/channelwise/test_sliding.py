"""Sums that slide over a packed channel: what they read, from where, and in which strips."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.channelwise.sliding import anchors, row_alignment, rows_at_once, slide
from onexn_plugins.tvm_backend.kernels.code.vector import constant, store
from onexn_plugins.tvm_backend.kernels.parts.window import Window
from onexn_plugins.tvm_backend.kernels.problem import Conv
from tests.tvm_backend.kernels.differential import AVX2, NEON, NEON_V7, UNITS, units
from tests.tvm_backend.kernels.emitted import emitted
from tests.tvm_backend.kernels.geometry import convolutions

_PAIR = 256  # values: a load of two vectors takes a distance of up to 63 vectors of four from its address


@st.composite
def windows(draw, unit):
    problem = draw(convolutions(1, 1))
    return Window(problem, draw(st.integers(1, problem.out_height)), row_alignment(unit))


@given(st.data(), units)
def test_rows_summed_together_fit_into_the_band_and_the_registers(data, unit):
    window = data.draw(windows(unit))
    assert 1 <= rows_at_once(window, unit) <= min(window.rows, unit.registers // 4)


@given(st.data())
def test_from_an_anchor_every_offset_is_whole_vectors_away_and_near(data):
    window = data.draw(windows(NEON))
    found = anchors(window, NEON)["anchors"]
    offsets = {tap + row * window.row_stride for tap in window.taps for row in range(rows_at_once(window, NEON))}
    for offset in offsets:
        assert any((offset - anchor) % NEON.lanes == 0 and 0 <= offset - anchor < _PAIR for anchor in found)
    assert len(found) <= len(offsets)
    assert set(found.tolist()) <= offsets


@given(st.data(), st.sampled_from([AVX2, NEON_V7]))
def test_only_64_bit_arm_wants_anchors(data, unit):
    assert anchors(data.draw(windows(unit)), unit) == {}


@pytest.mark.parametrize("unit", UNITS)
@settings(max_examples=4)
@given(data=st.data())
def test_every_output_is_the_sum_of_its_taps(unit, data):
    window = data.draw(windows(unit))
    width, stride = window.problem.out_width, max(window.problem.out_width, 2 * unit.lanes)
    scratch = np.random.default_rng(0).integers(-9, 9, window.size + 2 * stride).astype(np.float32)
    known = anchors(window, unit)

    def emit(y, packed, *constants):
        def accumulate(lanes):
            # Taps are told apart by their factors 1, 2, 3 ...
            return lambda total, tap, value: total.multiply_add(constant(tap + 1, lanes), value)

        def finish(row, column, value, lanes):
            store(y, row * stride + column, value, lanes)

        slide(window, packed, 0, unit, lambda lanes: constant(0.5, lanes), accumulate, finish,
              dict(zip(known, constants, strict=True)))

    found = emitted(window.rows * stride, emit, scratch, *known.values()).reshape(window.rows, stride)[:, :width]
    for row in range(window.rows):
        taps = [scratch[tap + row * window.row_stride:][:width] * (number + 1)
                for number, tap in enumerate(window.taps)]
        np.testing.assert_array_equal(found[row], 0.5 + sum(taps))


def test_eight_rows_are_summed_at_once_where_they_are_all():
    window = Window(Conv(1, 1, 8, 40, 1, (3, 3), padding=(1, 1, 1, 1)), 8)
    assert rows_at_once(window, AVX2) == 4
    assert rows_at_once(window, NEON) == 7
    assert rows_at_once(window, UNITS[0]) == 8
