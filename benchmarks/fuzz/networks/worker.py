"""python -m benchmarks.fuzz.networks.worker FIRST LAST: judges the networks of these numbers; a JSON line for each.

What fails is made smaller, and said with the operators that are left.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

from onnx import ModelProto, helper

from benchmarks.fuzz.networks.generator import network
from benchmarks.fuzz.networks.judge import FINE, judge
from benchmarks.fuzz.networks.minimise import minimised


def outcome(number: int, path: Path) -> str:
    """"right", "refused: why", "uncompared: why", or what is wrong with which operators."""
    model = network(number)
    found = judge(model, path)
    kind = found.split(":")[0]
    if kind in FINE:
        return found
    small = minimised(model, lambda candidate: judge(candidate, path).split(":")[0] == kind)
    return f"{judge(small, path)} | {_said(small)}"[:1000]


def _said(model: ModelProto) -> str:
    return "; ".join(helper.printable_node(node).replace("%", "") for node in model.graph.node)


def main(first: int, last: int) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="onexn-fuzz-") as folder:
        for number in range(first, last):
            print(json.dumps({"number": number}), flush=True)
            print(json.dumps({"number": number, "outcome": outcome(number, Path(folder) / "model.onnx")}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
