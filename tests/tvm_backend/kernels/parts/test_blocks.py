"""Loops over block rows and kept blocks: every channel and every kept block is visited once, with its weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from onexn_plugins.tvm_backend.kernels.encode import Encoded, encode
from onexn_plugins.tvm_backend.kernels.parts.blocks import BlockRows, weight_constants
from onexn_plugins.tvm_backend.kernels.problem import Conv
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit
from tests.tvm_backend.kernels.differential import UNITS, random_weight
from tests.tvm_backend.kernels.emitted import count, emitted

few = settings(max_examples=6)


@dataclass(frozen=True)
class Weights:
    """A random weight, encoded."""

    weight: np.ndarray
    encoded: Encoded
    unit: VectorUnit

    @property
    def constants(self) -> dict[str, np.ndarray]:
        return weight_constants(self.encoded, np.arange(len(self.weight)))

    def rows(self, buffers, **options) -> BlockRows:
        return BlockRows(self.encoded, dict(zip(self.constants, buffers, strict=True)), self.unit, **options)


@st.composite
def weights(draw, groups=(1, 2, 3)):
    groups = draw(st.sampled_from(groups))
    problem = Conv(1, groups * draw(st.integers(1, 6)), 9, 9, groups * draw(st.integers(1, 21)),
                   draw(st.sampled_from([(1, 1), (2, 3)])), groups=groups)
    block_size = draw(st.sampled_from([1, 3, 4, 8, 16, 20]))
    weight = random_weight(problem, block_size, draw(st.sampled_from([0.3, 0.6, 1.0])),
                           np.random.default_rng(draw(st.integers(0, 99))))
    weight[0] = 1.0  # at least one block is kept
    return Weights(weight, encode(weight, block_size, groups), draw(st.sampled_from(UNITS)))


def visited(case: Weights, each, **options) -> np.ndarray:
    """The weight as a kernel sees it, [out, in / groups, taps], times how often it is visited."""
    groups, shape = case.encoded.pattern.groups, case.weight.shape
    taps = case.encoded.taps

    def emit(y, *buffers):
        rows = case.rows(buffers, **options)

        def emit_run(run):
            def emit_block(block, channel, way):
                for tap in range(taps):
                    for number, weight in enumerate(rows.weights(block, tap, run)):
                        count(y, ((run.start + number) * shape[1] + channel) * taps + tap, weight(1))

            rows.each_block(run.row, emit_block, ways=options.get("ways", 1))

        for group in range(groups):
            each(rows, group, emit_run)

    return emitted(case.weight.size, emit, *case.constants.values()).reshape(*shape[:2], taps)


@few
@given(weights(), st.integers(1, 3))
def test_every_weight_is_visited_once(case, sums):
    found = visited(case, lambda rows, group, emit: rows.each_row(group, emit), sums=sums)
    np.testing.assert_array_equal(found, case.weight.reshape(found.shape))


@few
@given(weights(), st.sampled_from([1, 2, 3, 5]))
def test_blocks_cut_into_runs_of_channels_are_whole(case, at_once):
    found = visited(case, lambda rows, group, emit: rows.each_row(group, emit), at_once=at_once)
    np.testing.assert_array_equal(found, case.weight.reshape(found.shape))


@few
@given(weights(), st.data())
def test_runs_of_rows_hold_what_lies_in_them(case, data):
    pattern = case.encoded.pattern
    first = data.draw(st.integers(0, pattern.rows_per_group))
    last = data.draw(st.integers(first, pattern.rows_per_group))

    def run(first, last):
        return tirx.IntImm("int32", first), tirx.IntImm("int32", last)

    found = visited(case, lambda rows, group, emit: rows.each_row(group, emit, run(first, last)))
    size, in_group = pattern.block_size, np.arange(len(case.weight)) % pattern.group_channels
    inside = (first * size <= in_group) & (in_group < last * size)
    np.testing.assert_array_equal(found, case.weight.reshape(found.shape) * inside[:, None, None])


@few
@given(weights(groups=(1,)), st.integers(1, 4))
def test_rows_taken_several_at_once_are_each_taken_once(case, size):
    def each(rows, group, emit):
        rows.each_row_group(size, lambda runs: [emit(run) for run in runs])

    found = visited(case, each)
    np.testing.assert_array_equal(found, case.weight.reshape(found.shape))


@few
@given(weights(), st.integers(1, 5))
def test_few_rows_at_a_time_are_all_rows(case, size):
    def each(rows, group, emit):
        rows.each_few_rows(size, lambda run: rows.each_row(group, emit, run))

    found = visited(case, each)
    np.testing.assert_array_equal(found, case.weight.reshape(found.shape))


@few
@given(weights(groups=(1,)), st.integers(2, 4))
def test_unrolled_loops_visit_every_block_once_and_number_their_copies(case, ways):
    def emit(y, *buffers):
        rows = case.rows(buffers)
        blocks = case.encoded.num_blocks

        def emit_run(run):
            def emit_block(block, channel, way):
                count(y, block)
                count(y, blocks + way)

            rows.each_block(run.row, emit_block, ways)

        rows.each_row(0, lambda run: emit_run(run))

    case = Weights(case.weight, encode(case.weight, 1), case.unit)
    found = emitted(case.encoded.num_blocks + ways, emit, *case.constants.values())
    np.testing.assert_array_equal(found[:case.encoded.num_blocks], 1)
    counts = case.encoded.row_counts
    expected = [sum(row // ways + (row % ways if way == 0 else 0) for row in counts) for way in range(ways)]
    np.testing.assert_array_equal(found[case.encoded.num_blocks:], expected)


@few
@given(weights())
def test_vectors_over_channels_hold_weights_and_bias_in_order(case):
    in_channels, taps = case.weight.shape[1], case.encoded.taps

    def emit(y, *buffers):
        rows = case.rows(buffers)

        def put(registers, index, stride):
            for register in registers:
                for lane in range(register.lanes):
                    count(y, index, register.lane(lane))
                    index = index + stride

        def emit_run(run):
            put(rows.bias_vectors(run), run.start, 1)

            def emit_block(block, channel, way):
                for tap in range(taps):
                    first = len(case.weight) + (run.start * in_channels + channel) * taps + tap
                    put(rows.weight_vectors(block, tap, run), first, in_channels * taps)

            rows.each_block(run.row, emit_block)

        for group in range(case.encoded.pattern.groups):
            rows.each_row(group, emit_run)

    found = emitted(len(case.weight) + case.weight.size, emit, *case.constants.values())
    np.testing.assert_array_equal(found[:len(case.weight)], np.arange(len(case.weight)))
    np.testing.assert_array_equal(found[len(case.weight):], case.weight.reshape(-1))


@pytest.mark.parametrize(("kept", "names"), [
    ([[1, 1], [1, 1]], ["values", "bias"]), ([[1, 0], [0, 1]], ["values", "indices", "bias"]),
    ([[1, 1], [0, 1]], ["values", "indices", "row_ptr", "bias"])])
def test_a_weight_takes_no_array_that_it_can_do_without(kept, names):
    weight = np.repeat(np.array(kept, np.float32), 4, 0)
    constants = weight_constants(encode(weight, 4), np.zeros(8), "first_")
    assert list(constants) == [f"first_{name}" for name in names]
    assert constants["first_bias"].dtype == np.float32
