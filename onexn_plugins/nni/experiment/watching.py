"""Until an experiment is over, one way or another: done, out of time, interrupted, or dead inside."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from onexn_plugins.nni.experiment.logs import LOGS, disk_is_full, handed_out, last_words, tuner_raised
from onexn_plugins.nni.experiment.manager import Manager
from onexn_plugins.nni.experiment.results import UNFINISHED, Trial, read_trials

POLL_SECONDS = 1.0
SIGNALS = tuple(signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


class Interrupted(BaseException):
    """A signal asked this process to end."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)


@contextlib.contextmanager
def signals_raise() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Interrupted, once: what cleans up behind it is not disturbed again.

    Only a main thread may say what signals do; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: Any) -> None:
        for other in SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        raise Interrupted(number)

    before = {number: signal.signal(number, interrupt) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def wait(manager: Manager, deadline: float, say: Callable[[str], None]) -> tuple[str, str]:
    """(how it ended, why): "done", "timeout" or "failed"; the reason is empty where it is done.

    Args:
        manager: of the running experiment.
        deadline: on time.monotonic().
        say: told now and then how far it is.
    """
    missing, said = 0, ""
    while True:
        trials = read_trials(manager.directory, over=False)
        if said != (said := progress(trials)):
            say(said)
        status = manager.status()
        if _finished(status, trials, manager.directory):
            return "done", ""
        reason = _death(manager, status)
        # One look may fall between two of NNI's steps; a second one, a moment later, may not.
        missing = missing + 1 if reason else 0
        if missing >= 2:
            # The tuner's log only says that it lost a manager that died.
            words = last_words(manager.directory, LOGS if manager.alive else LOGS[1:])
            return "failed", f"{reason}: {words}" if words else reason
        if time.monotonic() > deadline:
            full = disk_is_full(manager.directory)
            return "timeout", "the disk is full" if full else f"NNI said {status} when the time was over"
        time.sleep(POLL_SECONDS)


def _finished(status: str | None, trials: Sequence[Trial], directory: Path) -> bool:
    """NNI says DONE at maxTrialNumber, but stays at TUNER_NO_MORE_TRIAL where the search space ends earlier.

    It says so as soon as the tuner has no more, which is before the last trials begin.
    """
    if status == "TUNER_NO_MORE_TRIAL":
        return len(trials) >= max(1, handed_out(directory)) and all(trial.status not in UNFINISHED for trial in trials)
    return status in ("DONE", "STOPPED")


def _death(manager: Manager, status: str | None) -> str:
    """What of the experiment is dead, though NNI may go on saying RUNNING; empty where nothing is."""
    if not manager.alive:
        return "NNI's manager died" + (f" of {manager.killed_by}" if manager.killed_by else "")
    if status == "ERROR":
        return "NNI's experiment failed"
    if tuner_raised(manager.directory) or not manager.tuner_runs():
        return "NNI's tuner died"
    return ""


def progress(trials: Sequence[Trial]) -> str:
    """How far it is, on one line."""
    counts: dict[str, int] = {}
    for trial in trials:
        counts[trial.status.lower()] = counts.get(trial.status.lower(), 0) + 1
    return ", ".join(f"{count} {status}" for status, count in counts.items()) or "no trial yet"
