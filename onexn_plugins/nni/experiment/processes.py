"""Processes of an experiment, found by a mark in their environment, and ended.

`guard.py` runs this without the package: it imports nothing of it.
"""

from __future__ import annotations

import contextlib
import os
from typing import Any

import psutil

MARK = "ONEXN_EXPERIMENT"
KILL_SECONDS = 5.0


def marked(experiment: str) -> list[psutil.Process]:
    """Every process, but this one, that carries the experiment's mark."""
    return [process for process in psutil.process_iter() if _carries(process, experiment)]


def end_all(experiment: str) -> None:
    """End what carries the mark, and its children, should one have changed its environment."""
    found: list[psutil.Process] = marked(experiment)
    for process in list(found):
        with contextlib.suppress(psutil.Error):
            found += process.children(recursive=True)
    _end(found)


def _carries(process: psutil.Process, experiment: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(MARK) == experiment
    except (psutil.Error, OSError):
        return False


def _end(processes: list[Any]) -> None:
    """Ask them to end, then make them."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, KILL_SECONDS)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, KILL_SECONDS)
