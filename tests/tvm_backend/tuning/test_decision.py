"""When a candidate wins, and what is measured next: pure functions of made-up times."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onexn_plugins.tvm_backend.kernels.problem import Choice, Tile
from onexn_plugins.tvm_backend.tuning.decision import (
    FIRST_PAIRS,
    SECOND_PAIRS,
    Attempt,
    Trial,
    judge,
    next_attempt,
    winner,
)

A, B, C = (Choice(True, Tile(4, vectors)) for vectors in (2, 3, 5))


def times(speed: float, noise: float, pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Microseconds of a default of 100 and a candidate of 100 × speed on a machine whose clock drifts slowly and whose
    single runs are disturbed by `noise`."""
    random = np.random.default_rng(seed)
    drift = 1 + 0.3 * np.sin(np.arange(pairs) / 5)
    default, candidate = (drift * (1 + noise * np.abs(random.standard_normal(pairs))) for _ in range(2))
    return 100 * default, 100 * speed * candidate


def trial(choice: Choice, ratio: float, second: bool = False) -> Trial:
    return judge(Attempt(choice, second), [100.0] * 30, [100.0 * ratio] * 30)


def test_a_clear_lead_wins_and_is_told_as_it_is():
    found = judge(Attempt(A, False), *times(0.8, 0.05, FIRST_PAIRS))
    assert found.won
    assert found.ratio == pytest.approx(0.8, abs=0.03)
    assert found.us < found.default_us
    assert found.pairs == FIRST_PAIRS


@pytest.mark.parametrize("speed", [0.98, 1.0, 1.2])
def test_a_small_lead_or_none_does_not(speed):
    assert not judge(Attempt(A, False), *times(speed, 0.01, FIRST_PAIRS)).won


def test_a_lead_within_the_noise_does_not():
    default, candidate = times(0.94, 0.0, FIRST_PAIRS)
    candidate[::2] *= 1.5  # half of the runs were disturbed: the median alone would say nothing sure
    assert not judge(Attempt(A, False), default, candidate).won


def test_two_trials_in_a_row_are_hardly_won_by_luck():
    """On a noisy machine many a first trial promises what is not there, and one second in 200 wins."""
    first = [judge(Attempt(A, False), *times(1.0, 0.2, FIRST_PAIRS, seed)).promising for seed in range(500)]
    both = [judge(Attempt(A, True), *times(1.0, 0.2, SECOND_PAIRS, 5000 + seed)).won
            for seed in range(500) if first[seed]]
    assert sum(first) > 50
    assert sum(both) <= 2


def test_a_disturbed_default_helps_nobody():
    """One run in ten takes ten times as long."""
    default, candidate = times(1.0, 0.0, SECOND_PAIRS)
    default[::10] *= 10
    assert not judge(Attempt(A, True), default, candidate).won


def test_all_candidates_once_then_the_fastest_again():
    trials: list[Trial] = []
    asked = []
    answers = {(A, False): 0.9, (B, False): 0.8, (C, False): 1.1, (B, True): 1.0, (A, True): 0.9}
    while (step := next_attempt([A, B, C], trials)) is not None:
        asked.append((step.choice, step.second))
        trials.append(trial(step.choice, answers[step.choice, step.second], step.second))
    assert asked == [(A, False), (B, False), (C, False), (B, True), (A, True)]
    best = winner(trials)
    assert best is not None
    assert (best.choice, best.ratio) == (A, 0.9)


def test_a_first_win_alone_changes_nothing():
    assert winner([trial(A, 0.5)]) is None
    assert winner([trial(A, 0.5), trial(A, 1.0, second=True)]) is None


def test_what_failed_is_not_tried_again_and_never_wins():
    failed = Trial(A, False, failed="the process died")
    assert not failed.won
    assert next_attempt([A], [failed]) is None
    assert winner([failed, Trial(A, True, failed="the process died")]) is None


@given(st.permutations([A, B, C]), st.dictionaries(st.tuples(st.sampled_from([A, B, C]), st.booleans()),
                                                   st.floats(0.5, 1.5)), st.integers(0, 6))
def test_a_search_goes_on_from_any_point(candidates, answers, stop):
    """Interrupted after any trial it makes the same trials as in one go, each once."""
    trials: list[Trial] = []
    for _ in range(stop):
        if (step := next_attempt(candidates, trials)) is not None:
            trials.append(trial(step.choice, answers.get((step.choice, step.second), 1.0), step.second))
    again: list[Trial] = []
    while (step := next_attempt(candidates, again)) is not None:
        again.append(trial(step.choice, answers.get((step.choice, step.second), 1.0), step.second))
    assert again[:len(trials)] == trials
    assert len({(found.choice, found.second) for found in again}) == len(again) <= 6
    assert winner(again) is None or winner(again).ratio <= 0.97
