"""Judges numbered cases in processes of their own, because what is looked for may be crashes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

SECONDS = 240  # for one case, and to start; a busy machine may be ten times as slow as an idle one


def judged(words: list[str], first: int, last: int,
           tell: Callable[[int, str], None] = lambda number, outcome: None) -> dict[int, str]:
    """The outcome of every number.

    Args:
        words: a module and its options. `python -m MODULE FIRST LAST OPTIONS` prints a JSON line before each number,
            {"number"}, and one after it, {"number", "outcome"}. A process that dies or hangs is started again behind
            the number that did it, whose outcome then says so.
        first: the first number.
        last: the one behind the last.
        tell: called with each number and its outcome as soon as it is known.
    """
    module, *options = words
    outcomes: dict[int, str] = {}
    while first < last:
        command = [sys.executable, "-m", module, str(first), str(last), *options]
        ended = _follow(command, outcomes, tell)
        started = max(outcomes, default=first - 1)
        if ended == "done" and started == last - 1:
            return outcomes
        if started < first:
            raise SystemExit(f"{' '.join(command[1:])} could not start: {ended}")
        outcomes[started] = ended
        tell(started, ended)
        first = started + 1
    return outcomes


def _follow(command: list[str], outcomes: dict[int, str], tell: Callable[[int, str], None]) -> str:
    """Read a worker's lines into outcomes; "done", or how it ended."""
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert worker.stdout is not None
    with _Watch(worker) as watch:
        for line in worker.stdout:
            watch.alive()
            entry = json.loads(line)
            outcomes[entry["number"]] = entry.get("outcome", "begun")
            if "outcome" in entry:
                tell(entry["number"], entry["outcome"])
            if len(outcomes) % 200 == 0 and "outcome" in entry:
                print(f"{len(outcomes)} judged", file=sys.stderr, flush=True)
    code = worker.wait()
    return "done" if code == 0 else f"not done in {SECONDS} s" if watch.fired else f"the process ended with {code}"


class _Watch:
    """Ends the worker when it is silent for too long."""

    def __init__(self, worker: subprocess.Popen[str]) -> None:
        self.fired, self._worker = False, worker
        self._timer = self._new()

    def __enter__(self) -> _Watch:
        self._timer.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._timer.cancel()

    def alive(self) -> None:
        self._timer.cancel()
        self._timer = self._new()
        self._timer.start()

    def _new(self) -> threading.Timer:
        return threading.Timer(SECONDS, self._fire)

    def _fire(self) -> None:
        self.fired = True
        self._worker.kill()
