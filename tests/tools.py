"""Programs of the operating system that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def program(*names: str, package: str) -> str:
    """The path of the first of these programs; without it the test is left out, and fails where CI=true.

    Args:
        names: what it may be called.
        package: Debian's package, which .ci/run installs.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    if found is not None:
        return found
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must have {names[0]}: apt-get install {package}")
    pytest.skip(f"left out: there is no {names[0]} (apt-get install {package})")
    raise AssertionError("not reached")
