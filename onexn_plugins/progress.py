"""Stages that say what runs now, how far it is, and which one failed."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

# How often a silent stage shows that it lives: a terminal's line is rewritten, a log gets a new line.
TERMINAL_SECONDS, LOG_SECONDS = 1.0, 10.0


class StageFailedError(Exception):
    """A stage raised; its cause is `__cause__`."""

    def __init__(self, number: int, total: int, title: str, cause: BaseException) -> None:
        super().__init__(f"stage {number} of {total} failed ({title}): {cause or type(cause).__name__}")
        self.title = title


Stage = tuple[str, Callable[["Progress"], None]]


class Progress:
    """Numbered stages with a running clock.

    Attributes:
        seconds: how long each finished stage took, by title.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._stream = stream or sys.stdout
        self._live = self._stream.isatty()
        self._note, self._last = "", 0.0
        self._started = time.monotonic()

    def run(self, stages: Sequence[Stage]) -> None:
        """Run the stages in order.

        Raises:
            StageFailedError: a stage raised; nothing after it ran.
        """
        for number, (title, function) in enumerate(stages, start=1):
            try:
                with self.stage(title, f"[{number}/{len(stages)}] "):
                    function(self)
            except Exception as error:
                raise StageFailedError(number, len(stages), title, error) from error

    @contextmanager
    def stage(self, title: str, prefix: str = "") -> Iterator[None]:
        """Announce one stage and keep a clock running beside it until it ends."""
        self._print(f"{prefix}{title}")
        self._note, self._started = "", time.monotonic()
        self._last = self._started
        finished = threading.Event()
        clock = threading.Thread(target=self._tick, args=(finished,), daemon=True)
        clock.start()
        try:
            yield
        finally:
            finished.set()
            clock.join()
            self._clear()
        self.seconds[title] = time.monotonic() - self._started
        self._print(f"      done in {self.seconds[title]:.1f} s")

    def step(self, note: str) -> None:
        """What the running stage is doing; a log shows it at once if the last line is old enough."""
        self._note = note
        if self._live or time.monotonic() - self._last > 1.0:
            self._show()

    def rounds(self, done: int, total: int) -> None:
        """`step` for a loop."""
        self.step(f"{done} of {total} rounds")

    def say(self, line: str) -> None:
        """A result worth keeping on the screen."""
        self._clear()
        self._print(f"      {line}")

    def _tick(self, finished: threading.Event) -> None:
        while not finished.wait(TERMINAL_SECONDS):
            if self._live or time.monotonic() - self._last >= LOG_SECONDS:
                self._show()

    def _show(self) -> None:
        self._last = time.monotonic()
        line = f"      {self._last - self._started:4.0f} s  {self._note}"
        if self._live:
            self._stream.write(f"\r{line[:110]:<110}")
            self._stream.flush()
        else:
            self._print(line)

    def _clear(self) -> None:
        if self._live:
            self._stream.write(f"\r{'':<110}\r")

    def _print(self, line: str) -> None:
        print(line, file=self._stream, flush=True)
