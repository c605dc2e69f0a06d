"""python -m benchmarks.density: one layer, dense and with its zero blocks skipped, A B A B, at many shares kept.

These are the numbers behind the cost model of onexn_plugins.tvm_backend.planning.plan: the time that skipping takes
of the dense kernel's, and from which share kept it is no gain any more. "model" is what the planner expects.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common.record import command_line, record
from benchmarks.common.requests import single
from benchmarks.common.weights import pruned
from onexn_plugins.report import Column, Table, to_text
from onexn_plugins.timing import Interval
from onexn_plugins.tvm_backend.kernels.choose import dense_block
from onexn_plugins.tvm_backend.kernels.parts.tiling import default_tile
from onexn_plugins.tvm_backend.kernels.problem import Choice, Conv, Epilogue, Linear
from onexn_plugins.tvm_backend.planning.plan import Planner
from onexn_plugins.tvm_backend.processors import find_target, vector_unit
from onexn_plugins.tvm_backend.tuning.bench import Bench
from onexn_plugins.tvm_backend.tuning.worker import Order, Setup, Unusable

RESULTS = Path(__file__).with_name("results") / "density.json"
LAYERS: dict[str, Conv | Linear] = {
    "1×1, 96→576, 14×14": Conv(1, 96, 14, 14, 576),
    "1×1, 576→96, 14×14": Conv(1, 576, 14, 14, 96),
    "1×1, 24→144, 56×56": Conv(1, 24, 56, 56, 144),
    "1×1, 256→64, 56×56": Conv(1, 256, 56, 56, 64),
    "3×3, 128→128, 28×28": Conv(1, 128, 28, 28, 128, (3, 3), padding=(1, 1, 1, 1)),
    "linear, 1280→1000": Linear(1, 1280, 1000),
    "linear, 49 rows, 768→3072": Linear(49, 768, 3072),
    "linear, 196 rows, 384→1536": Linear(196, 384, 1536),
    "linear, 3136 rows, 96→384": Linear(3136, 96, 384),
}
SHARES = (0.99, 0.97, 0.95, 0.9, 0.8, 0.5)


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    facts = record(command_line("benchmarks.density"))
    target = find_target("host")
    rows: list[dict[str, Any]] = []
    with Bench(Setup(target, None, 1), patience=60) as bench:
        for name in options.layers:
            for block_size in options.block_sizes:
                for share in options.shares:
                    row = _measure(bench, len(rows), name, block_size, share, options.pairs)
                    if row is not None:
                        rows.append(row)
                        print({key: value for key, value in row.items() if key != "times"}, file=sys.stderr, flush=True)
    columns = (Column("layer", "layer"), Column("block_size", "N"), Column("kept", "kept", "percent"),
               Column("ratio", "time, of dense", "times"), Column("model", "expected", "times"))
    print(to_text(Table(columns, tuple(rows))))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({**facts, "rows": rows}, indent=1, ensure_ascii=False) + "\n")
    return 0


def _measure(bench: Bench, number: int, name: str, block_size: int, share: float, pairs: int) -> dict[str, Any] | None:
    problem, unit = LAYERS[name], vector_unit(find_target("host"))
    weight = pruned(problem, share, block_size)
    request = single(problem, weight, np.zeros(len(weight), np.float32), Epilogue(), unit)
    without_blocks = dense_block(problem, unit)
    dense = Choice(False, default_tile(problem, without_blocks, unit))
    skipping = Choice(True, default_tile(problem, block_size, unit))
    times = bench.measure(Order(number, request, dense, skipping, pairs))
    if isinstance(times, Unusable):
        print(f"{name}, N={block_size}: {times.reason}", file=sys.stderr)
        return None
    ratio = Interval.of(np.array(times.candidate) / np.array(times.default))
    return {"layer": name, "block_size": block_size, "kept": share,
            "dense_us": round(float(np.median(times.default)), 2),
            "skipping_us": round(float(np.median(times.candidate)), 2),
            "ratio": {"value": round(ratio.value, 4), "low": round(ratio.low, 4), "high": round(ratio.high, 4)},
            "model": round(share / Planner(unit, None, {}).efficiency(problem, block_size), 4)}


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.density", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", choices=LAYERS, default=list(LAYERS))
    parser.add_argument("--block-sizes", nargs="+", type=int, default=[4])
    parser.add_argument("--shares", nargs="+", type=float, default=SHARES)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
