"""Keeps TVM's chatter off the terminal.

Its C++ side writes straight to file descriptor 2, two lines per constant of a network that is saved or loaded, with no
switch to turn that off.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

TVM_CHATTER = ("Warning: Scope Saving", "Warning: Scope Loaded", "Warning: BlockBuilder destroyed",
               "Warning: Detected pow",
               "Warning: Fast mode segfaults")  # of Gather by constants: that each lies in its axis is checked before


@contextmanager
def without_lines(*unwanted: str) -> Iterator[None]:
    """Hold standard error back; at the end, pass on the lines that contain none of `unwanted`.

    Where no file can be made to hold it, everything is passed on: nothing fails for the sake of quiet.
    """
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  # closed below
    except OSError:
        yield
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with file as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            held.seek(0)
            for line in held.read().decode(errors="replace").splitlines(keepends=True):
                if not any(text in line for text in unwanted):
                    os.write(2, line.encode())
