"""No test asserts wall-clock time, and so neither does hypothesis."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import settings

from onexn_plugins.errors import MissingDependencyError
from onexn_plugins.zoo import import_torchvision

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# First, so that a test alone imports a torchvision of another build as well as after all others.
with suppress(MissingDependencyError):
    import_torchvision()


@pytest.fixture(autouse=True)
def logging_goes_on() -> Iterator[None]:
    """Logging that a test turned off is off for all that come after it, and what they say is lost."""
    yield
    turned_off = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    assert turned_off == logging.NOTSET
