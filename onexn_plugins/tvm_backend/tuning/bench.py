"""The process that times kernels, seen from outside: started when needed, watched, and started anew when it dies."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend.running.rpc import STARTING, STARTING_SECONDS, check_reachable, is_emulated
from onexn_plugins.tvm_backend.running.rpc_session import Failure, Progress
from onexn_plugins.tvm_backend.tuning.worker import Order, Ready, Setup, Times, Unusable, serve


class Bench:
    """Times candidates; a context manager that ends its process.

    Args:
        setup: for whom and where.
        patience: seconds without any sign of progress after which a kernel or a board is given up.
        report: gets a line when something new begins.
    """

    def __init__(self, setup: Setup, patience: float, report: Callable[[str], None] = lambda note: None) -> None:
        self._setup, self._patience, self._report = setup, patience, report
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._core: str | None = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def is_emulated(self) -> bool:
        """Whether the board is an emulator; connects to it.

        Raises:
            OneXNError: it cannot be reached, or does not answer.
        """
        if self._setup.board is None:
            return False
        self._started()
        return is_emulated(self._setup.target, self._core)

    def measure(self, order: Order) -> Times | Unusable:
        """Fulfil an order; a kernel that takes its process down is Unusable.

        Raises:
            OneXNError: the board dies, refuses or stays silent: there a bad kernel and a bad board look the same.
        """
        try:
            pipe = self._started()
            try:
                pipe.send(order)
            except OSError:
                raise _Died("the process died between two kernels") from None
            return self._listen("building it")
        except _Died as death:
            self._stop()
            if self._setup.board is not None:
                raise OneXNError(f"RPC at {self._setup.board}", death.reason,
                                 "Check the board and start again: what was measured is kept") from None
            return Unusable(death.reason)

    def _started(self) -> Connection:
        """The pipe to a process that is ready."""
        if self._pipe is None:
            if self._setup.board is not None:
                check_reachable(self._setup.board)
            context = multiprocessing.get_context("spawn")
            self._pipe, there = context.Pipe()
            self._process = context.Process(target=serve, args=(there, self._setup), daemon=True)
            self._process.start()
            there.close()
            try:
                ready = self._listen(STARTING)
            except _Died as death:
                self._stop()
                raise OneXNError("tuning", death.reason, "Check the board and its network, and the memory left") \
                    from None
            assert isinstance(ready, Ready)
            self._core = ready.core
        return self._pipe

    def _listen(self, doing: str) -> Any:
        """What the process answers; _Died where it does not."""
        assert self._pipe is not None
        assert self._process is not None
        limit = STARTING_SECONDS if doing == STARTING else self._patience
        while True:
            if not self._pipe.poll(limit):
                raise _Died(f"has been silent for {limit:g} s while {doing}")
            try:
                message = self._pipe.recv()
            except (EOFError, ConnectionError):
                self._process.join()
                raise _Died(f"the process died while {doing} (exit code {self._process.exitcode})") from None
            if isinstance(message, Progress):
                doing, limit = message.doing, self._patience
                self._report(doing)
            elif isinstance(message, Failure):
                where = "tuning" if self._setup.board is None else f"RPC at {self._setup.board}"
                raise OneXNError(where, f"{message.reason} (while {doing})", message.fix)
            else:
                return message

    def _stop(self) -> None:
        if self._process is not None and self._pipe is not None:
            with contextlib.suppress(OSError):
                self._pipe.close()
            self._process.kill()
            self._process.join()
        self._process = self._pipe = None


class _Died(Exception):
    """The process ended or stays silent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
