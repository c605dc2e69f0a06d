"""`onexn tune`: faster tiles for the layers of an ONNX file, by measuring here or on a board."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onexn_plugins.cli.common import Result, add_onnx_shapes
from onexn_plugins.report import Column, Table, to_text

if TYPE_CHECKING:
    from onexn_plugins.tvm_backend.tuning.search import TuningReport

HELP = "Search tiles and block sizes for each layer of an ONNX file, here or on a board over TVM RPC."
EXAMPLE = "onexn tune pruned.onnx --database tuning.json; onexn bench pruned.onnx --tuning tuning.json"
COLUMNS = (Column("name", "layer"), Column("default", "default"), Column("default_us", "takes", "microseconds"),
           Column("best", "best"), Column("best_us", "takes", "microseconds"), Column("gain", "saved", "percent"),
           Column("tried", "tried", "count"))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx", help="the network")
    parser.add_argument("--target", default="host", help="host, or a board's processor: cortex-a53, cortex-a72, ...")
    parser.add_argument("--database", type=Path, default=Path("onexn-tuning.json"), metavar="FILE",
                        help="what is known and gets known; stop and start again as you like (default %(default)s)")
    parser.add_argument("--trials", type=int, default=16, help="candidates per distinct layer (default 16)")
    parser.add_argument("--seconds", type=float, help="stop after so long; the same command goes on")
    parser.add_argument("--threads", type=int, default=1, help="threads a kernel runs on (default 1)")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="the RPC tracker, or without --key the board's own server")
    parser.add_argument("--key", help="the name under which the board registered with the tracker")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS",
                        help="give a kernel or the board up after so long a silence (default 120)")
    add_onnx_shapes(parser)


def run(arguments: argparse.Namespace) -> Result:
    from onexn_plugins.progress import Progress
    from onexn_plugins.tvm_backend import tune

    with ExitStack() as stack:
        progress = None if arguments.json else Progress(stream=sys.stderr)
        if progress:
            stack.enter_context(progress.stage(f"tuning {arguments.model} for {arguments.target}"))

        def show(done: int, total: int, note: str) -> None:
            if progress:
                progress.step(f"{_bar(done, total)} {done} of {total}  {note}")

        report = tune(arguments.model, target=arguments.target, database=arguments.database, trials=arguments.trials,
                      threads=arguments.threads, rpc=arguments.rpc, key=arguments.key, timeout=arguments.timeout,
                      seconds=arguments.seconds, progress=show, input_shapes=arguments.input_shapes)
    return Result({"model": arguments.model, **report.to_dict()}, _describe(report))


def _bar(done: int, total: int, width: int = 20) -> str:
    filled = width * done // max(1, total)
    return "█" * filled + "░" * (width - filled)


def _describe(report: TuningReport) -> str:
    rows = tuple(_row(problem) for problem in report.to_dict()["problems"])
    better = sum(problem.gain > 0 for problem in report.problems)
    lines = [to_text(Table(COLUMNS, rows)),
             f"{better} of {len(rows)} distinct layers are faster; stored in {report.database}"]
    if report.emulated:
        lines.append("measured on an EMULATED board: these times say nothing about a real one, and choose nothing")
    if not report.finished:
        lines.append("not finished: the same command goes on from here")
    return "\n".join(lines)


def _row(problem: dict[str, Any]) -> dict[str, Any]:
    first, *others = problem["layers"]
    return {**problem, "name": first + (f" and {len(others)} more" if others else "")}
