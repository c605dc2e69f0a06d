"""Interleaved timing: A B C A B C ..., so that a noisy machine disturbs every contender alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

# Each turn calls a contender this often in a row and keeps all but the first call, which pays for the caches
# that the contender before it filled.
CALLS_PER_TURN = 4


@dataclass(frozen=True)
class Interval:
    """A median with its 10th and 90th percentile."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: np.ndarray) -> Interval:
        low, value, high = np.percentile(samples, (10, 50, 90))
        return cls(float(value), float(low), float(high))


@dataclass(frozen=True)
class Timings:
    """Milliseconds of every call, by contender: float64 [rounds, CALLS_PER_TURN - 1]."""

    samples: Mapping[str, np.ndarray]

    def milliseconds(self, name: str) -> Interval:
        """Over all calls of one contender."""
        return Interval.of(self.samples[name].ravel())

    def speedup(self, name: str, baseline: str) -> Interval:
        """How many times faster `name` is than `baseline`, over the rounds: both medians of one round lie
        milliseconds apart in time, so their ratio holds where each alone drifts."""
        own, other = np.median(self.samples[name], axis=1), np.median(self.samples[baseline], axis=1)
        return Interval.of(other / own)


def interleave(
    contenders: Mapping[str, Callable[[], object]],
    *,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Timings:
    """Run every contender in turn, `rounds` times, after one untimed turn each.

    Args:
        contenders: functions without arguments, by name; their inputs are bound and their outputs dropped.
        rounds: turns per contender.
        progress: called as progress(done, total) between rounds, never while a contender runs.
    """
    return interleave_turns({name: partial(_turn, run) for name, run in contenders.items()}, rounds=rounds,
                            progress=progress)


def interleave_turns(
    turns: Mapping[str, Callable[[], np.ndarray]],
    *,
    rounds: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Timings:
    """As `interleave`, for contenders that take a turn by themselves, in another process for example.

    Args:
        turns: functions that make CALLS_PER_TURN calls in a row and return the milliseconds of each.
        rounds: turns per contender.
        progress: as `interleave` takes it.
    """
    samples = {name: np.empty((rounds, CALLS_PER_TURN - 1)) for name in turns}
    for turn in turns.values():
        turn()
    for index in range(rounds):
        for name, turn in turns.items():
            samples[name][index] = turn()[1:]
        progress(index + 1, rounds)
    return Timings(samples)


def _turn(run: Callable[[], object]) -> np.ndarray:
    marks = np.empty(CALLS_PER_TURN + 1, dtype=np.int64)
    marks[0] = time.perf_counter_ns()
    for call in range(1, CALLS_PER_TURN + 1):
        run()
        marks[call] = time.perf_counter_ns()
    return np.diff(marks) / 1e6
