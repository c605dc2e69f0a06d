"""No test asserts wall-clock time, and so neither does hypothesis."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import settings

from onexn_plugins.errors import MissingDependencyError
from onexn_plugins.zoo import import_torchvision

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# First, so that a test alone imports a torchvision of another build as well as after all others.
with suppress(MissingDependencyError):
    import_torchvision()
