"""What to measure next, and when a candidate has won: pure functions of the times that were measured.

A candidate and the default run in turn, A B B A, and what counts is the median over the pairs of its time by the
default's. A first, short trial says which candidates are promising. The best of many owes part of its lead to luck, so
it has to win a second and longer trial, clearly, that the choice among candidates had no part in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onexn_plugins.tvm_backend.kernels.problem import Choice

# A candidate takes the default's place if its median time is at most this share of the default's,
WINNING_RATIO = 0.97
# and if the median's confidence interval, this many standard deviations wide (99 %), ends below one.
_DEVIATIONS = 2.58
# Pairs of a first and of a second trial.
FIRST_PAIRS, SECOND_PAIRS = 30, 80


@dataclass(frozen=True)
class Trial:
    """A candidate measured against the default.

    Attributes:
        choice: the candidate.
        second: whether it is the trial that confirms an earlier win.
        pairs: how often both ran.
        default_us, us: medians of both in microseconds.
        ratio: median over the pairs of the candidate's time by the default's.
        upper: upper end of that median's 99 % confidence interval.
        failed: why there are no times, which are zero then.
    """

    choice: Choice
    second: bool
    pairs: int = 0
    default_us: float = 0.0
    us: float = 0.0
    ratio: float = 0.0
    upper: float = 0.0
    failed: str | None = None

    @property
    def promising(self) -> bool:
        """Fast enough for a second trial."""
        return self.failed is None and self.ratio <= WINNING_RATIO

    @property
    def won(self) -> bool:
        """Faster beyond doubt; a candidate has won when it wins its second trial."""
        return self.promising and self.upper < 1.0


@dataclass(frozen=True)
class Attempt:
    """The next trial."""

    choice: Choice
    second: bool

    @property
    def pairs(self) -> int:
        return SECOND_PAIRS if self.second else FIRST_PAIRS


def judge(attempt: Attempt, default_us: Sequence[float], candidate_us: Sequence[float]) -> Trial:
    """The trial that these times make, both in the order of the pairs."""
    default, candidate = np.asarray(default_us, np.float64), np.asarray(candidate_us, np.float64)
    ratios = np.sort(candidate / default)
    pairs = len(ratios)
    # The median lies below the r-th smallest value in 99 % of all samples, with r from the binomial distribution.
    rank = min(pairs - 1, int(np.ceil(pairs / 2 + _DEVIATIONS * np.sqrt(pairs) / 2)))
    return Trial(attempt.choice, attempt.second, pairs, _rounded(np.median(default)), _rounded(np.median(candidate)),
                 _rounded(np.median(ratios), 4), _rounded(ratios[rank], 4))


def next_attempt(candidates: Sequence[Choice], trials: Sequence[Trial]) -> Attempt | None:
    """All candidates once, then the promising ones, the fastest first, until one wins; None when that is done."""
    first = {trial.choice: trial for trial in trials if not trial.second}
    second = {trial.choice: trial for trial in trials if trial.second}
    for choice in candidates:
        if choice not in first:
            return Attempt(choice, False)
    for trial in sorted((trial for trial in first.values() if trial.promising), key=lambda trial: trial.ratio):
        if trial.choice not in second:
            return Attempt(trial.choice, True)
        if second[trial.choice].won:
            return None
    return None


def winner(trials: Sequence[Trial]) -> Trial | None:
    """The trial that made a candidate the choice; None leaves the default."""
    confirmed = [trial for trial in trials if trial.second and trial.won]
    return min(confirmed, key=lambda trial: trial.ratio, default=None)


def _rounded(value: float, digits: int = 3) -> float:
    return round(float(value), digits)
