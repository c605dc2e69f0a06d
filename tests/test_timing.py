"""The order of interleaving, and medians taken round by round."""

from __future__ import annotations

import numpy as np
import pytest

from onexn_plugins.timing import CALLS_PER_TURN, Interval, Timings, interleave


def test_contenders_take_turns():
    calls, told = [], []
    timings = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3,
                         progress=lambda done, total: told.append((done, total)))
    assert "".join(calls) == ("a" * CALLS_PER_TURN + "b" * CALLS_PER_TURN) * 4  # one turn each is not timed
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert {name: samples.shape for name, samples in timings.samples.items()} == {
        "a": (3, CALLS_PER_TURN - 1), "b": (3, CALLS_PER_TURN - 1)}
    assert all((samples > 0).all() for samples in timings.samples.values())


def test_medians_and_speedups_are_taken_round_by_round():
    slowing = np.array([[2.0, 2.0, 9.0], [4.0, 4.0, 4.0], [8.0, 8.0, 0.1]])
    timings = Timings({"ours": slowing, "peer": 3 * slowing})
    assert timings.milliseconds("ours").value == 4.0
    assert timings.speedup("ours", "peer") == Interval(3.0, 3.0, 3.0)
    assert timings.speedup("peer", "ours").value == pytest.approx(1 / 3)
