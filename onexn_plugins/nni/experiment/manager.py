"""NNI's manager and everything it starts: brought up patiently, and gone when the experiment is over.

NNI leaves processes behind where its manager is killed, or where the process that owns the experiment is. So all that
an experiment starts carries a mark in its environment, and is found by that.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from nni.experiment import Experiment, RunMode, launcher, rest

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.nni.experiment.config import Checked
from onexn_plugins.nni.experiment.logs import disk_is_full, last_words, tuner_raised, tuner_started
from onexn_plugins.nni.experiment.quiet import quiet

STARTS = 5
SERVER_SECONDS, STOP_SECONDS, KILL_SECONDS = 60.0, 30.0, 5.0
LOOPBACK = "127.0.0.1"
_MARK = "ONEXN_EXPERIMENT"
_SHIM = Path(__file__).with_name("loopback.cjs")


class Manager:
    """A running experiment of NNI.

    Attributes:
        id: NNI's.
        directory: where this experiment's logs, database and trials are.
        port: of NNI's page and REST.
    """

    def __init__(self, checked: Checked, port: int, listen: str) -> None:
        self._experiment = Experiment(checked.config)
        self.id: str = self._experiment.id
        self.directory = checked.directory / self.id
        self.port, self._listen = port, listen

    def start(self) -> None:
        """Raises what NNI raises where its server does not come up; nothing is left running then."""
        variables = {_MARK: self.id}
        if self._listen != "0.0.0.0":
            variables |= {"ONEXN_LISTEN": self._listen, "NODE_OPTIONS": f'--require "{_SHIM}"'}
        try:
            with _environment(variables), quiet(), _patience(self._await_server):
                self._experiment.start(self.port, run_mode=RunMode.Detach)  # its output goes to files in the log folder
        except BaseException:
            self.stop()
            raise

    def _await_server(self, port: int, retry: int = 0, url_prefix: str | None = None) -> None:
        """Until NNI's server answers. NNI itself gives it four seconds, which is not enough for a busy machine."""
        deadline = time.monotonic() + SERVER_SECONDS
        while True:
            try:
                rest.get(port, "/check-status", url_prefix)
                return
            except Exception:
                if time.monotonic() > deadline or not self._marked():
                    raise
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

    def tuner_runs(self) -> bool:
        """NNI's dispatcher, in which the tuner lives, is there."""
        return any("--exp_params" in " ".join(_command(process)) for process in self._marked())

    def stop(self) -> None:
        """End the manager, tuner and trials; by NNI's own way first, which also ends trials on other machines."""
        process, self._experiment._proc = self._experiment._proc, None
        with quiet():
            if process is not None and process.poll() is None:
                with contextlib.suppress(Exception):
                    rest.delete(self.port, "/experiment")
                    process.wait(STOP_SECONDS)
            _end([*self._marked(), *self._orphans()])
            if process is not None:
                with contextlib.suppress(Exception):
                    process.wait(KILL_SECONDS)
            self._experiment.stop()  # what is left of it: NNI's logging in this process

    def _marked(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _carries(process, self.id)]

    def _orphans(self) -> list[psutil.Process]:
        """Children of what carries the mark, should one have changed its environment."""
        found: list[psutil.Process] = []
        for process in self._marked():
            with contextlib.suppress(psutil.Error):
                found += process.children(recursive=True)
        return found


def start(checked: Checked, port: int | None, listen: str, say: Callable[[str], None]) -> Manager:
    """A manager whose tuner has connected. A slow first start, of an installation never used yet, is tried again.

    Raises:
        OneXNError: it does not start, and the reason that its log gives.
    """
    for attempt in range(1, STARTS + 1):
        manager = Manager(checked, port or free_port(), listen)
        try:
            manager.start()
            _await_tuner(manager)
        except Exception as error:
            manager.stop()
            hopeless = tuner_raised(manager.directory) or disk_is_full(manager.directory)
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


def _await_tuner(manager: Manager, seconds: float = 20.0) -> None:
    """NNI gives its tuner 10 seconds to connect, which a busy machine may not make; it then fails by itself."""
    deadline = time.monotonic() + seconds
    while manager.alive and manager.status() != "ERROR":
        if tuner_started(manager.directory) or time.monotonic() > deadline:
            return
        time.sleep(0.3)
    raise RuntimeError("NNI's manager ended at its start")


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


def _carries(process: psutil.Process, mark: str) -> bool:
    try:
        return process.pid != os.getpid() and process.environ().get(_MARK) == mark
    except (psutil.Error, OSError):
        return False


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.Error, OSError):
        return []


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
