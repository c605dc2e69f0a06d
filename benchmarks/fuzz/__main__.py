"""python -m benchmarks.fuzz: damaged ONNX files and artefacts, and what the package makes of them; writes JSON.

Numbers of the damage make a run repeatable: whatever is found is looked at again with --first NUMBER --files 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common.record import command_line, record

RESULTS = Path(__file__).with_name("results") / "fuzz.json"
FINE = ("refused", "read", "right", "no reference")
SECONDS = 60  # for one file


def main(arguments: list[str] | None = None) -> int:
    """0 where every file was refused or computed right."""
    options = _options(arguments)
    facts = record(command_line("benchmarks.fuzz"))
    models = ["benchmarks.fuzz.worker", str(options.compile_every)]
    kinds = {"onnx": (models, options.files), "artefacts": (["benchmarks.fuzz.artefacts"], options.artefacts)}
    results = {kind: _summary(_judged(words, options.first, options.first + count))
               for kind, (words, count) in kinds.items() if count}
    print(json.dumps(results, indent=1, ensure_ascii=False))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**facts, **results}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(result["faults"] for result in results.values()))


def _judged(words: list[str], first: int, last: int) -> dict[int, str]:
    """The outcome of every number; a process that dies or hangs is started again behind the file that did it."""
    module, *options = words
    outcomes: dict[int, str] = {}
    while first < last:
        command = [sys.executable, "-m", module, str(first), str(last), *options]
        ended = _follow(command, outcomes)
        started = max(outcomes, default=first - 1)
        if ended == "done" and started == last - 1:
            return outcomes
        if started < first:
            raise SystemExit(f"{' '.join(command[1:])} could not start: {ended}")
        outcomes[started] = ended
        first = started + 1
    return outcomes


def _follow(command: list[str], outcomes: dict[int, str]) -> str:
    """Read a worker's lines into outcomes; "done", or how it ended."""
    worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert worker.stdout is not None
    with _Watch(worker) as watch:
        for line in worker.stdout:
            watch.alive()
            entry = json.loads(line)
            outcomes[entry["number"]] = entry.get("outcome", "begun")
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


def _summary(outcomes: dict[int, str]) -> dict[str, Any]:
    faults = {number: outcome for number, outcome in sorted(outcomes.items()) if outcome not in FINE}
    return {"files": len(outcomes), "outcomes": dict(Counter(value for value in outcomes.values() if value in FINE)),
            "faults": faults}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=4000, help="damaged ONNX files (default %(default)s)")
    parser.add_argument("--artefacts", type=int, default=1000, help="damaged artefacts (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--compile-every", type=int, default=1, metavar="K",
                        help="compile and run every K-th file that is not refused (default: all)")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
