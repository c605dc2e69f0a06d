"""python -m benchmarks.onnx_backend: the ONNX project's operator tests through compile_model; writes a table as JSON.

Each test runs in a process that may die of it. A test is right if its outputs have the types, shapes and values that it
expects, to its own tolerances. The table counts by operator; what is not right is named with the reason.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.common.record import command_line, record
from benchmarks.common.workers import judged
from benchmarks.onnx_backend.cases import Case, cases

RESULTS = Path(__file__).with_name("results") / "onnx_backend.json"

# "disputed": onnxruntime computes what we do, and the test expects something else.
FINE = ("right", "right with constants", "refused", "disputed")


def main(arguments: list[str] | None = None) -> int:
    """0 where no test is wrong and none ends with an internal message."""
    options = _options(arguments)
    facts = record(command_line("benchmarks.onnx_backend"))
    chosen = cases()
    last = min(len(chosen), options.first + (options.tests or len(chosen)))
    outcomes = judged(["benchmarks.onnx_backend.worker"], options.first, last)
    results = _table([(chosen[number], outcome) for number, outcome in sorted(outcomes.items())])
    print(json.dumps(results["tests"], indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**facts, **results}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return int(any(kind not in FINE for kind in results["tests"]))


def _table(outcomes: list[tuple[Case, str]]) -> dict[str, Any]:
    operators: dict[str, Counter[str]] = {}
    for case, outcome in outcomes:
        operators.setdefault(case.operator, Counter())[_kind(outcome)] += 1
    return {
        "tests": dict(Counter(_kind(outcome) for _, outcome in outcomes)),
        "operators": {operator: dict(counts) for operator, counts in sorted(operators.items())},
        "not right": {case.name: outcome for case, outcome in outcomes if not outcome.startswith("right")},
    }


def _kind(outcome: str) -> str:
    """The first words; a process that ended is a "crash"."""
    kind = outcome.split(":")[0]
    return kind if kind in ("right", "right with constants", "refused", "disputed", "internal", "wrong") else "crash"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.onnx_backend", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=int, default=0, help="how many (default: all)")
    parser.add_argument("--first", type=int, default=0, help="number of the first one, by name")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
