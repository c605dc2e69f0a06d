"""python -m benchmarks.onnx_backend.worker FIRST LAST: judges the tests of these numbers; a JSON line for each."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from pathlib import Path

from benchmarks.onnx_backend.cases import cases
from benchmarks.onnx_backend.judge import judge


def main(first: int, last: int) -> None:
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory(prefix="onexn-backend-") as folder:
        for number, case in list(enumerate(cases()))[first:last]:
            print(json.dumps({"number": number}), flush=True)
            print(json.dumps({"number": number, "outcome": judge(case, Path(folder))}), flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
