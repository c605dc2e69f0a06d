"""python -m benchmarks.networks: torchvision's and timm's CNNs, dense and pruned, against torch and onnxruntime.

Each case runs in a process of its own. Results are written after every case; with --missing, cases that the results
already hold are left out, so that a stopped run goes on. A case is right if it is close to torch in float64: how far
torch in float32 and onnxruntime are from that depends on the network. Rows without that difference are of earlier
commits and were close to both of these. With --opsets the files are not export_onnx's but those of torch's two
exporters and onnx's converter, and the results stand in opsets.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks.common.record import commit, record
from benchmarks.networks.files import OLDEST, OPSETS, TOOLS
from benchmarks.networks.page import Row, summary, write
from benchmarks.networks.zoo import NETWORKS, OF_MANY_OPSETS, SMALLEST

RESULTS = Path(__file__).with_name("results")
PIXELS, RATIOS = (64, 224), (0.0, 0.5)
TOLERANCE = 1e-4
SECONDS = 300  # for one case


def main(arguments: list[str] | None = None) -> int:
    """0 where every network is right."""
    options = _options(arguments)
    rows: list[Row] = json.loads(options.out.read_text())["networks"] if options.out.exists() else []
    for case in _cases(options):
        if options.missing and any(case.items() <= row.items() for row in rows):
            continue
        row = case | _run(case) | {"commit": commit()}
        rows = sorted([other for other in rows if not case.items() <= other.items()] + [row], key=_order)
        print(_line(row), flush=True)
        write(options.out, {**record(options.command), "block_size": 4, "tolerance": TOLERANCE, "networks": rows})
    print(summary(rows))
    return int(any(row["state"] not in ("right", "no file") for row in rows))


def _cases(options: argparse.Namespace) -> Iterator[Row]:
    files = [{"opset": opset, "tool": tool} for opset, tool in product(options.opsets, TOOLS)
             if opset >= OLDEST.get(tool, 0)] or [{}]
    for network, pixels, ratio, file in product(options.networks, options.pixels, options.ratios, files):
        size = max(pixels, SMALLEST.get(network, 0))
        yield {"network": network, "pixels": size, "pruning_ratio": ratio, **file}


def _run(case: Row) -> Row:
    """"right", "wrong", "no file", or what ended the process."""
    words = [str(value) for value in case.values()]
    try:
        done = subprocess.run([sys.executable, "-m", "benchmarks.networks.case", *words], capture_output=True,
                              text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"state": f"not done in {SECONDS} s"}
    if done.returncode:
        said = done.stderr.strip().splitlines()
        return {"state": f"ended with {done.returncode}", "said": said[-1] if said else "nothing"}
    row = json.loads(done.stdout.splitlines()[-1])
    if "no_file" in row:
        return {"state": "no file", "said": row["no_file"]}
    return {"state": "right" if row["difference_exact"] <= TOLERANCE else "wrong", **row}


def _order(row: Row) -> tuple[Any, ...]:
    return (NETWORKS.index(row["network"]), row["pixels"], row["pruning_ratio"], row.get("opset", 0),
            row.get("tool", ""))


def _line(row: Row) -> str:
    return "  ".join(str(row.get(key, "")) for key in (
        "network", "opset", "tool", "pixels", "pruning_ratio", "state", "said", "difference_torch", "sparse", "dense",
        "ordinary", "compile_seconds"))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, help="all; with --opsets some that differ most")
    parser.add_argument("--opsets", nargs="*", type=int, help=f"ONNX opsets, {OPSETS} where none is named")
    parser.add_argument("--pixels", nargs="+", type=int, help=f"{PIXELS}; with --opsets {PIXELS[:1]}")
    parser.add_argument("--ratios", nargs="+", type=float, help=f"of blocks removed, {RATIOS}; with --opsets 0.5")
    parser.add_argument("--missing", action="store_true", help="only cases that the results do not hold")
    parser.add_argument("--out", type=Path, help="networks.json or opsets.json of this folder's results")
    options = parser.parse_args(arguments)
    many = options.opsets is not None
    options.command = "python -m benchmarks.networks" + (" --opsets" if many else "")
    options.opsets = options.opsets or (OPSETS if many else ())
    options.networks = options.networks or (OF_MANY_OPSETS if many else NETWORKS)
    options.pixels = options.pixels or (PIXELS[:1] if many else PIXELS)
    options.ratios = options.ratios or (RATIOS[1:] if many else RATIOS)
    options.out = options.out or RESULTS / ("opsets.json" if many else "networks.json")
    return options


if __name__ == "__main__":
    sys.exit(main())
