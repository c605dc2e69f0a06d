"""Folders that are expensive to make: made once per user, whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path


class Unavailable(Exception):
    """A part of the emulation cannot be had here; the message says which and why."""


def cache_folder() -> Path:
    """Where they lie: $XDG_CACHE_HOME/onexn-plugins, by default ~/.cache/onexn-plugins."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "onexn-plugins"


def is_made(name: str) -> bool:
    """Whether the cached folder of that name is there, whole."""
    return (cache_folder() / name).is_dir()


def made_once(name: str, make: Callable[[Path], None]) -> Path:
    """The cached folder of that name; `make` fills it the first time.

    It is filled aside and then renamed, so an interrupted run leaves nothing that a later one would believe; a second
    process waits for the first.
    """
    cache = cache_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / name
    with open(cache / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            for left_by_a_killed_run in cache.glob(f"{name}.partial.*"):
                shutil.rmtree(left_by_a_killed_run)
            with tempfile.TemporaryDirectory(dir=cache, prefix=f"{name}.partial.") as aside:
                filled = Path(aside) / "new"
                filled.mkdir()
                make(filled)
                filled.rename(folder)
    return folder
