"""The parent's side of the protocol in worker.py."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency.engines import TITLES
from benchmarks.latency.environments import ROOT
from benchmarks.latency.worker import NO_REFERENCE, last_line
from onexn_plugins.errors import OneXNError
from onexn_plugins.timing import CALLS_PER_TURN

# Waiting threads sleep instead of spinning, and nobody phones home.
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "TVM_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE",
         "KMP_BLOCKTIME": "0", "NM_DISABLE_ANALYTICS": "True", "TF_CPP_MIN_LOG_LEVEL": "3"}
# Largest difference from the reference that is rounding, as a share of the output's scale.
DIFFERENCE_BAR = 1e-3
# A second thread would show as more than one core in use, a spinning one as work while others are timed.
BUSY_BAR, IDLE_BAR = 1.2, 0.05
# A network that is not loaded, or not run four times, within this time hangs.
ANSWER_SECONDS = 120.0


class Worker:
    """One network in one engine, ready to be timed.

    Attributes:
        difference: from the reference, None where there was none.
        busy, idle: cores in use during its turns and between them, per turn.

    Raises:
        OneXNError: the engine cannot load the network, computes something else, or died.
    """

    def __init__(self, name: str, python: Path, prepared: Path, image: Path, reference: Path | None) -> None:
        self.name, self.busy, self.idle = name, [0.0], [0.0]
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  (close() closes it)
        self._process = subprocess.Popen(
            command(python, "serve", name, prepared, image, reference or NO_REFERENCE, shared_cpu()), cwd=ROOT,
            env=os.environ | QUIET, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True)
        try:
            self.difference = self._answer()["difference"]
            if self.difference is not None and not self.difference <= DIFFERENCE_BAR:
                raise self._error(f"its output differs by {self.difference:.1e} of the scale")
        except OneXNError:
            self.close()
            raise

    def turn(self) -> np.ndarray:
        """Milliseconds of CALLS_PER_TURN inferences in a row."""
        answer = self._ask(calls=CALLS_PER_TURN)
        self.busy.append(answer["busy"])
        self.idle.append(answer["idle"])
        return np.array(answer["milliseconds"])

    def disturbance(self) -> str | None:
        """What in its behaviour would spoil a timing on one thread, its own or another's."""
        busy, idle = float(np.median(self.busy[1:])), float(np.median(self.idle[1:]))
        if busy > BUSY_BAR:
            return f"keeps {busy:.1f} cores busy"
        return f"keeps {idle:.0%} of a core busy while others are timed" if idle > IDLE_BAR else None

    def close(self) -> None:
        """End the process: its input ends, and so does it."""
        assert self._process.stdin is not None
        with suppress(OSError):  # it died before
            self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _ask(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
        except OSError as error:
            raise self._error("its process is gone") from error
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        patience = threading.Timer(ANSWER_SECONDS, self._process.kill)
        patience.start()
        line = self._process.stdout.readline()
        patience.cancel()
        if not line:
            self._log.seek(0)
            raise self._error(f"its process died: {last_line(self._log.read())}")
        answer = json.loads(line)
        if "error" in answer:
            raise self._error(answer["error"])
        return answer

    def _error(self, reason: str) -> OneXNError:
        return OneXNError(TITLES[self.name], reason, "Leave it out, or repair its environment")


def prepare(name: str, python: Path, onnx: Path, folder: Path, seconds: float) -> Path:
    """Translate a network for an engine, in the engine's process.

    Raises:
        OneXNError: it cannot be translated, or not within `seconds`.
    """
    title = TITLES[name]
    # A session of its own, so that a converter which is a program itself ends with it.
    process = subprocess.Popen(command(python, "prepare", name, onnx, folder), cwd=ROOT, env=os.environ | QUIET,
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True)
    try:
        answers, log = process.communicate(timeout=seconds)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        raise OneXNError(title, f"did not translate the network within {seconds:.0f} s", "Leave it out") from error
    answer = json.loads(answers.splitlines()[-1]) if answers else {"error": last_line(log)}
    if "error" in answer:
        raise OneXNError(title, answer["error"], "Leave it out, or repair its environment")
    return Path(answer["path"])


def command(python: Path, *words: object) -> list[str]:
    return [str(python), "-m", "benchmarks.latency.worker", *map(str, words)]


def shared_cpu() -> int:
    """The core on which all engines take their turns: the last one that this process may use."""
    return max(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
