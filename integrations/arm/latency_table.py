"""A latency table of several networks on one board over TVM RPC, as Markdown and JSON.

    python latency_table.py dense.onnx pruned.onnx --rpc 127.0.0.1:9190 --key rpi4 --target cortex-a72
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime

from onexn_plugins.errors import OneXNError
from onexn_plugins.tvm_backend import (
    Artefact,
    Board,
    Compiled,
    RemoteRun,
    compile_model,
    parse_board,
    read_artefact,
    run_remotely,
)


def main() -> int:
    arguments = parse()
    try:
        board = parse_board(arguments.rpc, arguments.key)
        with tempfile.TemporaryDirectory() as folder:
            rows = measure(arguments.models, arguments.target, board, arguments.repeat, arguments.turns, Path(folder))
    except OneXNError as error:
        print(error, file=sys.stderr)
        return 2
    print(table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps({"target": arguments.target, "rows": rows}, indent=1) + "\n")
    return 0


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL.onnx", help="the first is what the others are compared to")
    parser.add_argument("--rpc", required=True, metavar="HOST:PORT")
    parser.add_argument("--key", help="the board's name at the tracker; without it --rpc is the board's own server")
    parser.add_argument("--target", required=True, help="cortex-a53, cortex-a72, cortex-a76, ...")
    parser.add_argument("--repeat", type=int, default=50, help="timed runs of each network (default 50)")
    parser.add_argument("--turns", type=int, default=5, help="its runs are cut into so many turns (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE")
    return parser.parse_args()


def measure(
    models: list[str], target: str, board: Board, repeat: int, turns: int, folder: Path
) -> list[dict[str, object]]:
    """One row per network; they take turns on the board."""
    saved: dict[str, tuple[Artefact, list[np.ndarray]]] = {}
    for number, model in enumerate(models):
        print(f"compiling {model}", file=sys.stderr)
        compiled = compile_model(model, target=target)
        saved[model] = read_artefact(compiled.save(folder / str(number)), run_here=False), inputs_of(compiled)
    runs: dict[str, list[RemoteRun]] = {model: [] for model in models}
    for turn in range(turns):
        for model, (network, inputs) in saved.items():
            print(f"turn {turn + 1} of {turns}: {model}", file=sys.stderr)
            runs[model].append(run_remotely(network, board, inputs, repeat=max(1, repeat // turns)))
    return [row(model, saved[model][1], runs[model]) for model in models]


def row(model: str, inputs: list[np.ndarray], runs: list[RemoteRun]) -> dict[str, object]:
    milliseconds = [time for run in runs for time in run.milliseconds]
    p10, p90 = (float(value) for value in np.percentile(milliseconds, (10, 90)))
    return {"model": model, "median_ms": statistics.median(milliseconds), "p10_ms": p10, "p90_ms": p90,
            "runs": len(milliseconds), "difference": difference(model, inputs, runs[-1].outputs),
            "core": runs[-1].core, "emulated": runs[-1].emulated}


def inputs_of(compiled: Compiled) -> list[np.ndarray]:
    """Reproducible images."""
    generator = np.random.default_rng(0)
    return [generator.standard_normal(tensor.shape).astype(tensor.dtype) for tensor in compiled.inputs]


def difference(model: str, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> float:
    """The largest one from onnxruntime's outputs, of their scale."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    expected = session.run(None, dict(zip((item.name for item in session.get_inputs()), inputs, strict=True)))
    return float(np.max([np.abs(output - reference).max() / (np.abs(reference).max() or 1.0)
                         for output, reference in zip(outputs, expected, strict=True)]))


def table(rows: list[dict]) -> str:
    """The rows as Markdown."""
    lines = ["| network | median ms | p10 | p90 | faster by | difference |", "|---|---|---|---|---|---|"]
    for entry in rows:
        faster = rows[0]["median_ms"] / entry["median_ms"]
        lines.append(f"| {Path(entry['model']).stem} | {entry['median_ms']:.2f} | {entry['p10_ms']:.2f} | "
                     f"{entry['p90_ms']:.2f} | {faster:.2f} | {entry['difference']:.0e} |")
    if any(entry["emulated"] for entry in rows):
        lines += ["", "EMULATED: no ARM core was found on the board, so these times say nothing about a real one."]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
