"""NNI logs to the standard output, which belongs to whoever called us."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from nni.runtime import log


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """While it lasts, NNI prints nothing; its log files are written as before."""
    handler = log._handlers.get("_stdout_")
    if handler is None:
        yield
        return
    level = handler.level
    handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        handler.setLevel(level)
