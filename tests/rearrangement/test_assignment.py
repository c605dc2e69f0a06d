"""The best assignment, against all permutations."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onexn_plugins.rearrangement.assignment import best_assignment


@settings(max_examples=60, deadline=None)
@given(count=st.integers(1, 6), classes=st.sampled_from([1, 2, 6]), seed=st.integers(0, 999),
       scale=st.sampled_from([1e-3, 1.0, 1e6]), equal=st.booleans())
def test_no_permutation_within_the_classes_is_better(count, classes, seed, scale, equal):
    generator = torch.Generator().manual_seed(seed)
    value = torch.ones(count, count) if equal else torch.randn(count, count, generator=generator) * scale
    own = torch.randint(classes, (count,), generator=generator)
    allowed, places, before = own[:, None] == own[None], torch.arange(count), value.clone()
    found = best_assignment(value, allowed)
    assert sorted(found.tolist()) == list(range(count))
    assert bool(allowed[found, places].all())
    best = max(float(value[list(items), places].sum()) for items in itertools.permutations(range(count))
               if bool(allowed[list(items), places].all()))
    assert float(value[found, places].sum()) == pytest.approx(best, rel=1e-5, abs=1e-5 * scale)
    assert torch.equal(value, before)
