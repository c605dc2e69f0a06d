"""How work is shared by threads: every unit once, costs about equal, serial where threads cost more than they bring."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.encode import decode, encode
from onexn_plugins.tvm_backend.kernels.parts.sharing import (
    EXCHANGE,
    JOBS,
    LAUNCH,
    ROWS,
    STORE,
    TILES,
    balanced,
    each_job,
    job_costs,
    pick,
    row_costs,
    share,
    share_bands,
    turn,
    window_cost,
)
from onexn_plugins.tvm_backend.kernels.problem import Conv
from tests.tvm_backend.kernels.differential import random_weight
from tests.tvm_backend.kernels.emitted import count, emitted

costs = st.lists(st.floats(0, 1e7), min_size=1, max_size=40).map(np.array)
threads = st.integers(2, 9)


@st.composite
def encoded_weights(draw):
    groups = draw(st.sampled_from([1, 2, 3]))
    problem = Conv(draw(st.integers(1, 3)), groups * draw(st.integers(1, 9)), 9, 9, groups * draw(st.integers(1, 17)),
                   draw(st.sampled_from([(1, 1), (3, 3)])), groups=groups)
    block_size = draw(st.integers(1, 8))
    weight = random_weight(problem, block_size, draw(st.sampled_from([0.0, 0.3, 1.0])),
                           np.random.default_rng(draw(st.integers(0, 99))))
    return problem, encode(weight, block_size, groups)


@given(costs, threads)
def test_runs_hold_every_unit_once_and_none_is_empty(costs, threads):
    starts = balanced(costs, threads)
    assert (starts[0], starts[-1]) == (0, len(costs))
    assert all(first < last for first, last in pairwise(starts))
    assert len(starts) - 1 <= threads


@given(costs, threads)
def test_no_run_is_longer_than_its_share_and_a_unit(costs, threads):
    longest = max(costs[first:last].sum() for first, last in pairwise(balanced(costs, threads)))
    assert longest <= costs.sum() / threads + costs.max() + 1e-3


def test_rows_with_more_blocks_come_in_shorter_runs():
    assert balanced(np.array([6, 1, 1, 1, 1, 1, 1]), 2) == (0, 1, 7)
    assert balanced(np.full(12, 5.0), 3) == (0, 4, 8, 12)
    assert balanced(np.array([1.0]), 4) == (0, 1)


@given(costs, costs, threads, st.integers(1, 3), st.integers(0, 10**6))
def test_the_cheapest_way_is_taken(first, second, threads, launches, exchanged):
    total = min(first.sum(), second.sum())

    def cost_of(axis, costs):
        longest = max(costs[begin:end].sum() for begin, end in pairwise(balanced(costs, threads)))
        if axis == TILES:
            return longest + LAUNCH
        return longest + LAUNCH * launches + EXCHANGE * exchanged * (1 - 1 / threads)

    sharing = share(threads, {TILES: first, ROWS: second}, {ROWS: launches}, exchanged)
    by_axis = {None: total, TILES: cost_of(TILES, first), ROWS: cost_of(ROWS, second)}
    assert sharing.cost == pytest.approx(min(by_axis.values()))
    assert sharing.cost == pytest.approx(by_axis[sharing.axis])
    assert sharing.starts == ({TILES: balanced(first, threads), ROWS: balanced(second, threads)}.get(sharing.axis, ()))


def test_of_equal_ways_the_first_is_taken_and_small_work_stays_serial():
    large, small = np.full(8, 1e6), np.full(8, LAUNCH / 8)
    assert share(2, {JOBS: large, TILES: large}).axis == JOBS
    assert share(2, {TILES: large, JOBS: large}).axis == TILES
    assert share(2, {JOBS: small}).axis is None
    assert share(1, {JOBS: large}).axis is None


@given(encoded_weights(), st.floats(1, 1000))
def test_costs_are_those_of_the_kept_blocks(case, pixels):
    problem, encoded = case
    pattern, size = encoded.pattern, encoded.block_size
    weight = decode(encoded).reshape(pattern.groups, pattern.group_channels, pattern.in_channels, -1)
    per_row = np.array([[(np.abs(group[row * size:(row + 1) * size]).sum((0, 2)) > 0).sum() * encoded.taps + STORE
                         for row in range(pattern.rows_per_group)] for group in weight]) * size * pixels
    np.testing.assert_allclose(row_costs(encoded, pixels), per_row.sum(0))
    expected = np.tile(per_row.sum(1) + 7, problem.batch)
    np.testing.assert_allclose(job_costs(encoded, pixels, problem.batch, 7), expected)


@given(encoded_weights(), st.integers(1, 5), st.floats(0, 1e6))
def test_sharing_bands_counts_packing_once_for_each(case, bands, packing):
    problem, encoded = case
    serial = share_bands(problem, encoded, 50, bands, packing, 1)
    expected = (row_costs(encoded, 50).sum() + packing * problem.groups) * problem.batch * bands
    assert serial.axis is None
    assert serial.cost == pytest.approx(expected)


def test_threads_share_the_bands_of_a_large_layer_or_the_rows_of_a_small_image():
    wide = Conv(1, 64, 112, 112, 64, (3, 3), padding=(1, 1, 1, 1))
    deep = Conv(1, 512, 7, 7, 512, (3, 3), padding=(1, 1, 1, 1))
    for problem, bands, axis in ((wide, 8, JOBS), (deep, 1, ROWS)):
        encoded = encode(np.ones(problem.weight_shape, np.float32), 4)
        pixels = problem.out_height * problem.out_width / bands
        assert share_bands(problem, encoded, pixels, bands, 1000.0, 4).axis == axis


def test_a_window_costs_more_with_more_taps_and_pixels():
    small, tall = Conv(1, 1, 8, 8, 1, (3, 3)), Conv(1, 1, 16, 8, 1, (3, 3))
    assert window_cost(small) < window_cost(tall)
    assert window_cost(Conv(1, 1, 8, 8, 1, (2, 2))) == 7 * 7 * (2 * 4 + STORE) + 64 * 8


@pytest.mark.parametrize("values", [[7], [0, 3, 4, 9], [5, 5, 1]])
def test_a_constant_is_picked_by_index(values):
    def emit(y):
        with T.serial(0, len(values)) as index:
            count(y, index, tirx.Cast("float32", pick(values, index)))

    np.testing.assert_array_equal(emitted(len(values), emit), values)


@pytest.mark.parametrize(("sizes", "first", "last"), [([5], 1, 4), ([2, 3], 1, 4), ([2, 3, 4], 5, 23), ([3, 2], 0, 6)])
def test_every_job_runs_once_and_those_of_a_run_alone(sizes, first, last):
    jobs = math.prod(sizes)

    def number(indices):
        found = 0
        for index, size in zip(indices, sizes, strict=True):
            found = found * size + index
        return found

    def emit(y):
        each_job(sizes, None, lambda *indices: count(y, number(indices)))
        each_job(sizes, (first, last), lambda *indices: count(y, jobs + number(indices)))

    ran = emitted(2 * jobs, emit)
    np.testing.assert_array_equal(ran[:jobs], np.ones(jobs))
    np.testing.assert_array_equal(ran[jobs:], [first <= job < last for job in range(jobs)])


def test_a_unit_has_its_turn_in_the_run_that_holds_it():
    runs = [None, (0, 2), (2, 5), (5, 9), (4, 5), (0, 4)]

    def emit(y):
        for number, run in enumerate(runs):
            with turn(4, run):
                count(y, number)

    np.testing.assert_array_equal(emitted(len(runs), emit), [1, 0, 1, 0, 1, 0])
