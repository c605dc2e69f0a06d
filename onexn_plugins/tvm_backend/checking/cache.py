"""Remembers, for this user of this machine, which operators were compared and found right.

One empty file for each, named by a digest of all that decides its code: nothing in it can be half written.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import onexn_plugins.tvm_backend

# What decides an operator's code and how it is compared.
CODE = ("lowering", "checking", "kernels/code", "output", "reading")
FOLDER = ("onexn-plugins", "operators")


class Cache:
    """The set of digests, on disk where the disk allows."""

    def __init__(self) -> None:
        home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        # Who has no home keeps the "~".
        self._folder = None if home.startswith("~") else Path(home, *FOLDER)

    def __contains__(self, digest: str) -> bool:
        try:
            return self._folder is not None and (self._folder / digest).exists()
        except OSError:
            return False

    def add(self, digests: Iterable[str]) -> None:
        """Remember them; a disk that refuses only costs time at the next compilation."""
        if self._folder is None:
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            for digest in digests:
                (self._folder / digest).touch()
        except OSError:
            return


@cache
def code_digest() -> str:
    """Of this package's own code for operators and the checks: a new version compares again."""
    root = Path(onexn_plugins.tvm_backend.__file__).parent
    files = sorted(path for folder in CODE for path in (root / folder).rglob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
