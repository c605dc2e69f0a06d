"""python -m benchmarks.fuzz.networks.worker FIRST LAST [CORE]: judges the networks of these numbers; a JSON line for
each. CORE is a 64-bit ARM core that the networks are compiled for and run as, under emulation.

What fails is made smaller, and said with the operators that are left.
"""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from onnx import ModelProto, helper

from benchmarks.fuzz.networks.generator import network
from benchmarks.fuzz.networks.judge import FINE, judge
from benchmarks.fuzz.networks.minimise import minimised
from benchmarks.fuzz.networks.runners import EmulatedCore, run_here


def outcome(number: int, judge_it: Callable[..., str]) -> str:
    """"right", "refused: why", "uncompared: why", or what is wrong with which operators."""
    model, options = network(number), ways(number)
    judged = partial(judge_it, **options)
    found = judged(model)
    kind = found.split(":")[0]
    if kind in FINE:
        return found
    small = minimised(model, lambda candidate: judged(candidate).split(":")[0] == kind)
    return f"{judged(small)} | {_said(small)}{options or ''}"[:1000]


def ways(number: int) -> dict[str, Any]:
    """How the network of that number is compiled: mostly as by default."""
    random, options = Random(-1 - number), dict[str, Any]()
    if random.random() < 0.15:
        options["threads"] = 2
    if random.random() < 0.15:
        options["strict"] = True
    if random.random() < 0.1:
        options["block_size"] = random.choice([1, 2, 4, 8, 16, 32])
    return options


def _said(model: ModelProto) -> str:
    return "; ".join(helper.printable_node(node).replace("%", "") for node in model.graph.node)


def main(first: int, last: int, core: str | None = None) -> None:
    warnings.simplefilter("ignore")
    emulated = EmulatedCore(core) if core else None
    with tempfile.TemporaryDirectory(prefix="onexn-fuzz-") as folder:
        judge_it = partial(judge, path=Path(folder) / "model.onnx", target=core or "host", run=emulated or run_here)
        for number in range(first, last):
            print(json.dumps({"number": number}), flush=True)
            print(json.dumps({"number": number, "outcome": outcome(number, judge_it)}), flush=True)
    if emulated:
        emulated.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
