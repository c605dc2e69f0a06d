"""When a step is taken back."""

import pytest

from onexn_plugins.repair.divergence import Divergence
from onexn_plugins.repair.result import Step
from onexn_plugins.repair.work import worse


@pytest.mark.parametrize(("kl", "agreement", "expected"), [
    (0.5, 0.9, False), (0.5, 0.7, True), (1.5, 0.9, True), (1.0, 0.8, False)])
def test_a_step_must_not_lose_by_either_measure(kl, agreement, expected):
    assert worse(Divergence(kl, agreement), Step("before", 1.0, 0.8, 1, 0.0)) is expected


def test_without_classes_the_error_alone_decides():
    last = Step("before", 1.0, None, 1, 0.0)
    assert not worse(Divergence(0.9, None), last)
    assert worse(Divergence(1.1, None), last)
