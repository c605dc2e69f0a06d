"""The process of one engine, in that engine's own Python. It imports nothing of this package but the engine's file.

    python -m benchmarks.latency.worker prepare ENGINE ONNX FOLDER
    python -m benchmarks.latency.worker serve ENGINE PREPARED IMAGE REFERENCE CPU

Both answer in JSON lines on standard output. `serve` loads the network, compares its output with the reference and says
{"difference"}; then each line {"calls": k} runs k inferences and is answered with
    {"milliseconds": [k numbers], "busy": cores in use during the turn, "idle": cores in use since the turn before}
so that the parent sees an engine that runs on more than one thread, or spins while others are timed. An error is
answered with {"error": why} and ends the process.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from benchmarks.latency.engines import Runner, engine

NO_REFERENCE = "-"
WARM_UP = 3


def main(arguments: list[str]) -> int:
    answers = _private_stdout()
    try:
        if arguments[0] == "prepare":
            name, onnx, folder = arguments[1:]
            _say(answers, path=str(engine(name).prepare(Path(onnx), Path(folder))))
        else:
            _serve(answers, *arguments[1:])
    except Exception as error:
        _say(answers, error=_explained(error))
        return 1
    return 0


def _serve(answers: TextIO, name: str, prepared: str, image: str, reference: str, cpu: str) -> None:
    run = engine(name).load(Path(prepared), np.load(image))
    if hasattr(os, "sched_setaffinity"):  # only now: loading may use every core
        for thread in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(thread), {int(cpu)})
    output = np.array(run()).ravel()
    for _ in range(WARM_UP):
        run()
    _say(answers, difference=None if reference == NO_REFERENCE else _difference(output, np.load(reference).ravel()))
    wall, processor = time.perf_counter(), time.process_time()
    for line in sys.stdin:
        idle = (time.process_time() - processor) / (time.perf_counter() - wall)
        answer = _turn(run, int(json.loads(line)["calls"]))
        wall, processor = time.perf_counter(), time.process_time()
        _say(answers, **answer, idle=round(idle, 4))


def _turn(run: Runner, calls: int) -> dict[str, Any]:
    processor, marks = time.process_time(), [time.perf_counter()]
    for _ in range(calls):
        run()
        marks.append(time.perf_counter())
    busy = (time.process_time() - processor) / (marks[-1] - marks[0])
    return {"milliseconds": [1e3 * value for value in np.diff(marks)], "busy": round(busy, 3)}


def _difference(output: np.ndarray, reference: np.ndarray) -> float:
    """The largest difference as a share of the reference's largest value."""
    if output.shape != reference.shape:
        raise ValueError(f"its output holds {output.size} values, the reference {reference.size}")
    return float(np.abs(output - reference).max() / np.abs(reference).max())


def _private_stdout() -> TextIO:
    """Standard output for our lines alone: what engines print goes to standard error."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return private


def _say(stream: TextIO, **values: Any) -> None:
    print(json.dumps(values), file=stream, flush=True)


def _explained(error: Exception) -> str:
    detail = getattr(error, "stderr", None)  # of a converter that failed
    text = detail.decode(errors="replace") if isinstance(detail, bytes) else str(error)
    return f"{type(error).__name__}: {last_line(text)}"


def last_line(text: str) -> str:
    """Of what a program said, without folders: it is going to be published."""
    last = ([line for line in text.splitlines() if line.strip()] or ["it said nothing"])[-1].strip()
    return re.sub(r"(?:/[^\s/:'\"]+)+/", "", last)[:300]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
