"""python -m benchmarks.networks: torchvision's and timm's CNNs, dense and pruned, against torch and onnxruntime.

Each case runs in a process of its own. Results are written after every case; with --missing, cases that the results
already hold are left out, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.common.record import commit, record
from benchmarks.networks.zoo import NETWORKS, SMALLEST
from onexn_plugins.report import Column, Table
from onexn_plugins.report.tables import to_markdown

RESULTS = Path(__file__).with_name("results") / "networks.json"
PIXELS, RATIOS = (64, 224), (0.0, 0.5)
TOLERANCE = 1e-4
SECONDS = 300  # for one case

Row = dict[str, Any]


def main(arguments: list[str] | None = None) -> int:
    """0 where every network is right."""
    options = _options(arguments)
    rows: list[Row] = json.loads(options.out.read_text())["networks"] if options.out.exists() else []
    for network in options.networks:
        for size in options.pixels:
            for ratio in options.ratios:
                case = {"network": network, "pixels": max(size, SMALLEST.get(network, 0)), "pruning_ratio": ratio}
                if options.missing and any(case.items() <= row.items() for row in rows):
                    continue
                row = case | _run(case) | {"commit": commit()}
                rows = [other for other in rows if not case.items() <= other.items()] + [row]
                print(_line(row), flush=True)
                _write(options.out, sorted(rows, key=_order))
    return int(any(row["state"] != "right" for row in rows))


def _run(case: Row) -> Row:
    """"right", "wrong", or what ended the process."""
    words = [str(value) for value in case.values()]
    try:
        done = subprocess.run([sys.executable, "-m", "benchmarks.networks.case", *words], capture_output=True,
                              text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"state": f"not done in {SECONDS} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"state": f"ended with {done.returncode}: {said[-1] if said else 'silently'}"}
    row = json.loads(done.stdout.splitlines()[-1])
    right = max(row["difference_torch"], row["difference_onnxruntime"]) <= TOLERANCE
    return {"state": "right" if right else "wrong", **row}


def _order(row: Row) -> tuple[int, int, float]:
    return NETWORKS.index(row["network"]), row["pixels"], row["pruning_ratio"]


def _line(row: Row) -> str:
    return "  ".join(str(row.get(key, "")) for key in (
        "network", "pixels", "pruning_ratio", "state", "difference_torch", "sparse", "dense", "ordinary",
        "compile_seconds"))


def _write(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    result = {**record("python -m benchmarks.networks"), "block_size": 4, "tolerance": TOLERANCE, "networks": rows}
    path.write_text(_json(result), encoding="utf-8")
    columns = (Column("network", "network"), Column("pixels", "pixels"),
               Column("pruning_ratio", "removed", "ratio"), Column("state", "result"),
               Column("difference_torch", "from torch", "scientific"),
               Column("difference_onnxruntime", "from onnxruntime", "scientific"), Column("sparse", "sparse"),
               Column("dense", "dense"), Column("ordinary", "TVM's own"),
               Column("compile_seconds", "compiling", "seconds"))
    text = ("# Networks compiled for the host, against torch and onnxruntime\n\nLargest difference over the output's "
            "largest value; layers by how they are computed. Written by `python -m benchmarks.networks`.\n\n")
    path.with_suffix(".md").write_text(text + to_markdown(Table(columns, tuple(rows))) + "\n", encoding="utf-8")


def _json(result: dict[str, Any]) -> str:
    """Indented, but a layer on one line."""
    text = json.dumps({**result, "networks": []}, indent=1, ensure_ascii=False)
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in result["networks"])
    return text.replace('"networks": []', f'"networks": [\n{rows}\n ]') + "\n"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--pixels", nargs="+", type=int, default=PIXELS)
    parser.add_argument("--ratios", nargs="+", type=float, default=RATIOS)
    parser.add_argument("--missing", action="store_true", help="only cases that the results do not hold")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
