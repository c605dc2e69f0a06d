"""python -m benchmarks.fuzz.worker FIRST LAST COMPILE: judges the mutants of these numbers; a JSON line for each.

A process of its own, with bounded memory, because what is looked for are crashes.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
from pathlib import Path

from benchmarks.fuzz.judge import judge
from benchmarks.fuzz.mutations import mutant
from benchmarks.fuzz.seeds import seed_models

MEMORY = 12 * 2**30


def main(first: int, last: int, compile_every: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    models = seed_models()
    with tempfile.TemporaryDirectory(prefix="onexn-fuzz-") as folder:
        path = Path(folder) / "model.onnx"
        for number in range(first, last):
            print(json.dumps({"number": number}), flush=True)
            path.write_bytes(mutant(models, number))
            print(json.dumps({"number": number, "outcome": judge(path, run=number % compile_every == 0)}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
