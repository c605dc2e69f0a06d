"""NNI's manager and everything it starts: brought up patiently, and gone when the experiment is over.

NNI leaves processes behind where its manager is killed, or where the process that owns the experiment is. So all that
an experiment starts carries a mark in its environment, and is found by that (`processes.py`); and a guard outlives the
owner (`guard.py`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from nni.experiment import Experiment, RunMode, launcher, rest

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.nni.experiment.config import Checked
from onexn_plugins.nni.experiment.guard import Guard
from onexn_plugins.nni.experiment.logs import disk_is_full, last_words, tuner_raised, tuner_started, tuner_was_not_made
from onexn_plugins.nni.experiment.processes import KILL_SECONDS, MARK, end_all, marked
from onexn_plugins.nni.experiment.quiet import quiet

STARTS = 5
# A machine with ten times more work than cores needs a minute for what takes three seconds of its time.
SERVER_SECONDS, TUNER_SECONDS, STOP_SECONDS = 120.0, 120.0, 30.0
LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
_PRELOAD = Path(__file__).with_name("preload.cjs")


class Manager:
    """A running experiment of NNI.

    Attributes:
        id: NNI's.
        directory: where this experiment's logs, database and trials are.
        port: of NNI's page and REST.
    """

    def __init__(self, checked: Checked, port: int, listen: str, deadline: float) -> None:
        self._experiment = Experiment(checked.config)
        self._here = checked.platform == "local"
        self._deadline = deadline
        self.id: str = self._experiment.id
        self.directory = checked.directory / self.id
        self.port, self._listen = port, listen
        self._guard: Guard | None = None

    def start(self, result: dict[str, Any]) -> None:
        """Raises what NNI raises where its server does not come up; nothing is left running then.

        Args:
            result: what is written down should this process be killed: `ExperimentResult`'s record and name.
        """
        killed = {"id": self.id, "directory": str(self.directory), "ended": "killed",
                  "reason": "the process that ran the experiment was killed"}
        self._guard = Guard(self.id, self.port, result | killed)
        variables = {MARK: self.id,
                     "NODE_OPTIONS": f'--require "{_PRELOAD}"', "ONEXN_TUNER_SECONDS": str(TUNER_SECONDS)}
        if self._listen != EVERYWHERE:
            variables["ONEXN_LISTEN"] = self._listen
        if self._here:  # `python`, wherever it stands in a trial's command, is this environment's
            variables["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
        try:
            with _environment(variables), quiet(), _patience(self._await_server):
                self._experiment.start(self.port, run_mode=RunMode.Detach)  # its output goes to files in the log folder
        except BaseException:
            self.stop()
            raise

    def _await_server(self, port: int, retry: int = 0, url_prefix: str | None = None) -> None:
        """Until NNI's server answers. NNI itself gives it four seconds, which is not enough for a busy machine."""
        deadline = min(self._deadline, time.monotonic() + SERVER_SECONDS)
        while True:
            try:
                rest.get(port, "/check-status", url_prefix)
                return
            except Exception as error:
                if time.monotonic() > deadline or not marked(self.id):
                    raise RuntimeError("NNI's server does not answer") from error
                time.sleep(0.5)

    def status(self) -> str | None:
        """RUNNING, DONE, ERROR, ... as NNI says; None where it does not answer."""
        try:
            with quiet():
                return self._experiment.get_status()
        except Exception:
            return None

    @property
    def alive(self) -> bool:
        """The manager's process is there."""
        process = self._experiment._proc
        return process is not None and process.poll() is None

    @property
    def killed_by(self) -> str:
        """The name of the signal that ended the manager; empty where none did."""
        code = getattr(self._experiment._proc, "returncode", None)
        return signal.Signals(-code).name if code is not None and code < 0 else ""

    def tuner_runs(self) -> bool:
        """NNI's dispatcher, in which the tuner lives, is there."""
        return any("--exp_params" in " ".join(_command(process)) for process in marked(self.id))

    def stop(self) -> None:
        """End the manager, tuner and trials; by NNI's own way first, which also ends trials on other machines."""
        process, self._experiment._proc = self._experiment._proc, None
        with quiet():
            if process is not None and process.poll() is None:
                with contextlib.suppress(Exception):
                    rest.delete(self.port, "/experiment")
                    process.wait(STOP_SECONDS)
            end_all(self.id)
            if process is not None:
                with contextlib.suppress(Exception):
                    process.wait(KILL_SECONDS)
            self._experiment.stop()  # what is left of it: NNI's logging in this process
        if self._guard is not None:
            self._guard.over()
            self._guard = None


def start(checked: Checked, port: int | None, listen: str, result: dict[str, Any],
          say: Callable[[str], None], deadline: float = float("inf")) -> Manager:
    """A manager whose tuner has connected. A slow first start, of an installation never used yet, is tried again.

    Args:
        checked: what to run.
        port: of NNI's page and REST.
        listen: the address these listen on.
        result: the experiment's name and record, for the case that this process is killed.
        say: told what happens.
        deadline: on time.monotonic(), for all attempts together.

    Raises:
        OneXNError: it does not start, and the reason that its log gives.
    """
    for attempt in range(1, STARTS + 1):
        manager = Manager(checked, port or free_port(), listen, deadline)
        try:
            manager.start(result)
            _await_tuner(manager, deadline)
        except Exception as error:
            manager.stop()
            hopeless = (time.monotonic() > deadline or disk_is_full(manager.directory)
                        or tuner_raised(manager.directory) or tuner_was_not_made(manager.directory))
            if attempt == STARTS or hopeless:
                why = " | ".join(filter(None, (first_line(error), last_words(manager.directory))))
                raise OneXNError("experiment", f"does not start: {why}",
                                 f"See the logs in {manager.directory / 'log'}") from error
            say(f"start {attempt} of {STARTS} failed ({first_line(error)}), trying again")
        except BaseException:
            manager.stop()
            raise
        else:
            return manager
    raise AssertionError("unreachable: the last attempt returns or raises")


def _await_tuner(manager: Manager, deadline: float) -> None:
    """Until the tuner has connected; raises where it, or the manager, ends before."""
    deadline, seen = min(deadline, time.monotonic() + TUNER_SECONDS), False
    while manager.alive and manager.status() != "ERROR" and time.monotonic() < deadline:
        if tuner_started(manager.directory):
            return
        runs = manager.tuner_runs()
        if seen and not runs:
            raise RuntimeError("NNI's tuner ended at its start")
        seen |= runs
        time.sleep(0.3)
    raise RuntimeError("NNI's manager ended at its start" if not manager.alive else "NNI's tuner did not connect")


def free_port() -> int:
    """A port whose successor is free too: NNI's services on other machines take both."""
    for _ in range(100):
        with socket.socket() as first, socket.socket() as second:
            first.bind((LOOPBACK, 0))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                second.bind((LOOPBACK, port + 1))
                return port
    raise OneXNError("port", "no two free ports in a row were found", "Name one with port")


def check_port(port: int) -> None:
    """Raise OneXNError where something listens on it already."""
    if isinstance(port, bool) or not isinstance(port, int) or not 1024 < port < 65535:
        raise OneXNError("port", f"must be between 1025 and 65534, got {port!r}", "Leave it out for a free one")
    for number in (port, port + 1):
        with socket.socket() as probe:
            if probe.connect_ex((LOOPBACK, number)) == 0:
                raise OneXNError("port", f"{number} is taken (NNI needs {port} and {port + 1})",
                                 "Name another, or leave it out for a free one")


def check_listen(address: str) -> str:
    """The address in numbers; OneXNError where it is none of this machine."""
    try:
        family, kind, _, _, place = socket.getaddrinfo(address, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(place)
    except (OSError, UnicodeError, TypeError) as error:
        raise OneXNError("listen", f"{address!r} is no address of this machine: {error}",
                         "Leave it out for this machine alone, or give 0.0.0.0 for everywhere") from error
    return EVERYWHERE if place[0] == "::" else str(place[0])


@contextlib.contextmanager
def _patience(await_server: Callable[..., None]) -> Iterator[None]:
    """NNI's launcher waits for its server this way."""
    own = launcher._check_rest_server
    launcher._check_rest_server = await_server
    try:
        yield
    finally:
        launcher._check_rest_server = own


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []
