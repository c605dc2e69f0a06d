"""python -m benchmarks.fuzz.networks: judges random networks, and goes on where it ended before.

Each outcome is a line of the log as soon as it is known. The summary beside it says how many networks came out how, and
lists every fault by its number; what became of faults is told by hand in results/found.json.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.common.emulation.arm64_root import arm64_machine
from benchmarks.common.record import command_line, record
from benchmarks.common.workers import judged
from benchmarks.fuzz.networks.judge import FINE
from onexn_plugins.tvm_backend import targets
from onexn_plugins.tvm_backend.processors import find_target

BOARDS = [name for name in targets()[1:] if (find_target(name).architecture, find_target(name).system)
          == ("aarch64", "linux")]


def main(arguments: list[str] | None = None) -> int:
    """0 where every network was refused or computed right."""
    options = _options(arguments)
    facts = record(command_line("benchmarks.fuzz.networks"))
    words = ["benchmarks.fuzz.networks.worker", *([options.core] if options.core else [])]
    if options.core:
        arm64_machine(partial(print, file=sys.stderr))  # fetched before a worker waits for it
    outcomes = _read(options.log)
    with options.log.open("a", encoding="utf-8") as log:
        def tell(number: int, outcome: str) -> None:
            log.write(json.dumps({"number": number, "outcome": outcome}, ensure_ascii=False) + "\n")
            log.flush()

        for numbers in _runs(set(range(options.first, options.first + options.count)) - outcomes.keys()):
            outcomes |= judged(words, numbers[0], numbers[-1] + 1, tell)
    whole = {**facts, **summary(outcomes)}
    print(json.dumps(whole, indent=1, ensure_ascii=False))
    if options.out:
        options.out.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(bool(whole["faults"]))


def summary(outcomes: dict[int, str]) -> dict[str, Any]:
    """Counts, why networks were refused, and every fault by its number."""
    kinds = {number: outcome.split(":")[0] for number, outcome in sorted(outcomes.items())}
    return {"networks": len(outcomes), "outcomes": dict(Counter(kind for kind in kinds.values() if kind in FINE)),
            "refusals": dict(Counter(outcomes[number] for number, kind in kinds.items() if kind == "refused")
                             .most_common()),
            "uncompared": {number: outcomes[number] for number, kind in kinds.items() if kind == "uncompared"},
            "faults": {number: outcomes[number] for number, kind in kinds.items() if kind not in FINE}}


def _runs(numbers: set[int]) -> list[list[int]]:
    """Numbers that follow each other, together."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return runs


def _read(log: Path) -> dict[int, str]:
    if not log.exists():
        return {}
    entries = map(json.loads, log.read_text(encoding="utf-8").splitlines())
    return {entry["number"]: entry["outcome"] for entry in entries}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz.networks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20000, help="how many (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one")
    parser.add_argument("--core", choices=BOARDS,
                        help="a 64-bit ARM core to compile for and to run as, emulated (default: this machine)")
    parser.add_argument("--log", type=Path, default=Path("networks.jsonl"), help="outcomes so far")
    parser.add_argument("--out", type=Path, help="the summary, as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
