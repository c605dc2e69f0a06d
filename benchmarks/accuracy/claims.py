"""Several processes, also on several machines, share one folder of runs: each takes a run that nobody has."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

# A claim is touched this often; one that was not touched for so long is of a process that died.
BEAT_SECONDS, STALE_SECONDS = 20.0, 300.0


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Hold `path` while the block runs; False where another process holds it.

    Creating a file that must not exist is atomic, on network file systems too. A claim left by a process that died is
    taken over: renaming it succeeds for one process alone.
    """
    if not _take(path):
        yield False
        return
    finished = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, finished), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        finished.set()
        beat.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    if _dead(path):
        aside = path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}")
        with suppress(OSError):
            os.rename(path, aside)
            aside.unlink()
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
    return True


def _dead(path: Path) -> bool:
    """Is the holder gone? On this machine the process is looked for; on others its beat."""
    try:
        silent = time.time() - path.stat().st_mtime
        holder = json.loads(path.read_text() or "{}")
    except (OSError, ValueError):
        return False
    if holder.get("host") == socket.gethostname() and not _running(holder["pid"]):
        return True
    return silent > STALE_SECONDS


def _running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _beat(path: Path, finished: threading.Event) -> None:
    while not finished.wait(BEAT_SECONDS):
        with suppress(OSError):
            os.utime(path)
