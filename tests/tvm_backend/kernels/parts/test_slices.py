"""Sums slice by slice of the input channels: all channels once, the first slice begins and the last one finishes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.code.vector import constant, store
from onexn_plugins.tvm_backend.kernels.encode import encode, in_slices
from onexn_plugins.tvm_backend.kernels.parts.slices import adding, best_slices, each_slice, uses
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once, default_tile
from onexn_plugins.tvm_backend.kernels.problem import Conv
from tests.tvm_backend.kernels.differential import UNITS, random_weight, units
from tests.tvm_backend.kernels.emitted import count, emitted


def encoded(out_channels: int, in_channels: int, density: float = 1.0, kernel: tuple[int, int] = (1, 1), size: int = 4):
    problem = Conv(1, in_channels, 14, 14, out_channels, kernel)
    return encode(random_weight(problem, size, density, np.random.default_rng(0)), size)


@settings(max_examples=6)
@given(st.integers(1, 30), st.integers(1, 9))
def test_slices_hold_every_channel_once_and_the_ends_are_told(in_channels, wanted):
    blocks = in_slices(encoded(8, in_channels), wanted)

    def emit(y):
        def of(part):
            count(y, part.number, float(part.channels))
            count(y, blocks.slices + part.number, float(part.begins))
            count(y, 2 * blocks.slices + part.number, float(part.ends))

        each_slice(blocks, of)

    channels, begins, ends = emitted(3 * blocks.slices, emit).reshape(3, -1)
    assert channels.sum() == in_channels
    assert (channels > 0).all()
    assert (channels[:-1] == blocks.slice_channels).all()
    np.testing.assert_array_equal(begins, [1] + [0] * (blocks.slices - 1))
    np.testing.assert_array_equal(ends, [0] * (blocks.slices - 1) + [1])


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("slices", [1, 2, 5])
def test_sums_of_slices_are_added_and_finished_once(slices, begun):
    """y holds a vector of sums that wait, full of 10 before, and the finished one."""
    blocks = in_slices(encoded(4, 10), slices)

    def emit(y):
        store(y, 0, constant(10, 4), 4)

        def finish(index, value, lanes):
            store(y, 4, value * constant(2, lanes), lanes)

        each_slice(blocks, lambda part: adding(y, part, finish, begun=begun)(0, constant(3, 4), 4))

    np.testing.assert_array_equal(emitted(8, emit)[4:], [2 * (3 * slices + 10 * begun)] * 4)


@given(st.integers(1, 30), st.integers(1, 20), st.sampled_from([0.2, 0.5, 1.0]), st.sampled_from([4, 8]), units)
def test_uses_are_runs_of_channels_that_read_an_input_channel(rows, in_channels, density, size, unit):
    blocks = encoded(size * rows, in_channels, density, size=size)
    runs = size // channels_at_once(size, unit)
    readers = np.bincount(blocks.indices, minlength=in_channels) * runs
    expected = readers.mean() * size / (runs * channels_at_once(size, unit))
    assert uses(blocks, unit) == pytest.approx(expected)


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3)])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
def test_a_slice_fits_into_the_first_cache_or_keeps_few_blocks(unit, kernel, density):
    for in_channels in (1, 16, 100, 512, 2048):
        blocks = encoded(8, in_channels, density, kernel)
        tile = default_tile(Conv(1, in_channels, 14, 14, 8, kernel), 4, unit)
        slices = best_slices(blocks, tile, unit)
        taps = kernel[0] * kernel[1]
        pixels = 4 * tile.vectors * unit.lanes * taps * in_channels / slices
        kept = blocks.density * in_channels * taps / slices
        assert slices >= 1
        assert pixels <= 1.5 * 24 * 1024 or kept <= 1.5 * 32
        if slices > 1:
            assert pixels >= 24 * 1024 / 1.5, "no more slices than the cache asks for"
            assert kept >= 32 / 1.5, "no slice has too little to sum"
