"""python -m benchmarks.tune: tunes networks for this machine, then times them tuned and by default, interleaved.

The search may take several calls of --seconds each: it goes on where it was. Every call times the networks with what is
known by then; it ends with 1 where the search has not.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.record import command_line, record
from benchmarks.latency.networks import NETWORKS, Exported, export
from benchmarks.latency.parts import Variant
from onexn_plugins.progress import Progress
from onexn_plugins.report import Column, Page, Section, Table, save, to_text
from onexn_plugins.report.cells import Cell
from onexn_plugins.timing import interleave
from onexn_plugins.tvm_backend import compile_model, tune
from onexn_plugins.tvm_backend.tuning.search import Found, TuningReport

Row = dict[str, Cell]
NETWORK_COLUMNS = (Column("name", "Network"), Column("default_ms", "By default", "milliseconds"),
                   Column("tuned_ms", "Tuned", "milliseconds"), Column("speedup", "Tuned is faster by", "times"),
                   Column("difference", "Outputs differ by", "scientific"),
                   Column("changed", "Problems changed"), Column("finished", "Search ended", "yes_no"))
PROBLEM_COLUMNS = (Column("layers", "Layers"), Column("default", "Default"), Column("best", "Tuned"),
                   Column("default_us", "Default takes", "microseconds"),
                   Column("best_us", "Tuned takes", "microseconds"), Column("gain", "Saved", "percent"),
                   Column("tried", "Candidates", "count"))


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    torch.set_num_threads(1)
    facts = record(command_line("benchmarks.tune"))
    options.work.mkdir(parents=True, exist_ok=True)
    options.out.mkdir(parents=True, exist_ok=True)
    cases = [(network, ratio) for network in options.networks for ratio in options.ratios]
    end, reports = time.monotonic() + options.seconds, {}
    with Progress().stage("tuning"):
        for network, ratio in cases:
            reports[network, ratio] = _tune(network, ratio, options, end - time.monotonic())
    rows = [_compare(network, ratio, options, reports[network, ratio]) for network, ratio in cases]
    networks = Table(NETWORK_COLUMNS, tuple(rows))
    sections = [Section("Networks", table=networks)]
    for (network, ratio), report in reports.items():
        changed = tuple(_problem(found) for found in report.problems if found.gain)
        if changed:
            sections.append(Section(_name(network, ratio, options), table=Table(PROBLEM_COLUMNS, changed)))
    page = Page("What tuning brings", _summary(options), tuple(sections), record=facts)
    print(to_text(networks))
    print(save(page, options.out / "tuning.json"))
    if all(report.finished for report in reports.values()):
        return 0
    print("not finished: the same command goes on from here")
    return 1


def _tune(network: str, ratio: float, options: argparse.Namespace, seconds: float) -> TuningReport:
    return tune(_onnx(network, ratio, options), database=options.work / "database.json", trials=options.trials,
                seconds=seconds)


def _compare(network: str, ratio: float, options: argparse.Namespace, report: TuningReport) -> Row:
    path = _onnx(network, ratio, options)
    image = np.random.default_rng(0).standard_normal((1, 3, options.size, options.size)).astype(np.float32)
    default, tuned = compile_model(path), compile_model(path, tuning=report.database)
    expected, found = np.asarray(default.run(image)), np.asarray(tuned.run(image))
    timings = interleave({"default": lambda: default.run(image), "tuned": lambda: tuned.run(image)},
                         rounds=options.rounds)
    return {"name": _name(network, ratio, options), "default_ms": asdict(timings.milliseconds("default")),
            "tuned_ms": asdict(timings.milliseconds("tuned")), "speedup": asdict(timings.speedup("tuned", "default")),
            "difference": float(np.abs(expected - found).max() / np.abs(expected).max()),
            "changed": f"{sum(found.gain > 0 for found in report.problems)} of {len(report.problems)}",
            "finished": report.finished}


def _problem(found: Found) -> Row:
    return {**asdict(found), "layers": ", ".join(found.layers), "failed": "; ".join(found.failed)}


def _onnx(network: str, ratio: float, options: argparse.Namespace) -> Path:
    """The network's file, exported once."""
    folder = options.work / f"{network}_{options.block_size}_{ratio:g}_{options.size}"
    if not folder.exists():
        folder.mkdir()
        export(Variant(network, ratio, options.block_size), folder, options.size)
    return Exported(folder).onnx


def _name(network: str, ratio: float, options: argparse.Namespace) -> str:
    return f"{network}, 1×{options.block_size}, {100 * ratio:g} %" if ratio else f"{network}, dense"


def _summary(options: argparse.Namespace) -> str:
    return (f"Batch 1, float32, {options.size}×{options.size}, one thread, random weights; at most {options.trials} "
            f"candidates per problem, {options.rounds} interleaved rounds of three timed calls for the networks.")


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tune", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=["mobilenet_v2"])
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.75, 0.0])
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--size", type=int, default=224, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--trials", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=3600.0, help="for the search, in this call")
    parser.add_argument("--work", type=Path, default=Path("out/tune"), help="of the search (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("out/tune"), help="of the JSON (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
