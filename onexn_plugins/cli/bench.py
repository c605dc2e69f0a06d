"""`onexn bench`: latency on this machine, beside onnxruntime on the same file."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from onexn_plugins.cli.common import Result, add_onnx_shapes, add_strict, add_tuning, is_onnx, stage
from onexn_plugins.cli.run import onnxruntime_session, open_model, random_inputs
from onexn_plugins.errors import OneXNError
from onexn_plugins.report import Column, Table, to_text

HELP = "Time a model on this machine, interleaved with onnxruntime on the same ONNX file."
EXAMPLE = "onexn bench pruned.onnx --rounds 30"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="an ONNX file, or what `onexn compile` saved for this machine")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each contender (default 20)")
    parser.add_argument("--threads", type=int, default=1, help="threads of each contender (default 1)")
    parser.add_argument("--profile", action="store_true", help="also time every kernel of the compiled network")
    add_onnx_shapes(parser)
    add_tuning(parser)
    add_strict(parser)


def run(arguments: argparse.Namespace) -> Result:
    from onexn_plugins.timing import interleave

    if arguments.rounds < 1:
        raise OneXNError("--rounds", f"must be at least 1, got {arguments.rounds}", "20 give a steady median")
    compiled = open_model(arguments, arguments.threads)
    arrays = random_inputs(compiled)
    contenders: dict[str, Callable[[], object]] = {"onexn": lambda: compiled.run(*arrays)}
    if is_onnx(arguments.model):
        session = onnxruntime_session(arguments.model, arguments.threads)
        feed = dict(zip([item.name for item in session.get_inputs()], arrays, strict=True))
        contenders["onnxruntime"] = lambda: session.run(None, feed)
    with stage(arguments, f"timing, {arguments.rounds} rounds"):
        timings = interleave(contenders, rounds=arguments.rounds)
    rows: list[dict[str, Any]] = []
    for name in contenders:
        time = timings.milliseconds(name)
        rows.append({"name": name, "median_ms": time.value, "p10_ms": time.low, "p90_ms": time.high,
                     "speedup": timings.speedup("onexn", name).value})
    columns = (Column("name", "contender"), Column("median_ms", "median", "milliseconds"),
               Column("p10_ms", "p10", "milliseconds"), Column("p90_ms", "p90", "milliseconds"),
               Column("speedup", "onexn is faster by", "times"))
    values = {"model": arguments.model, "threads": arguments.threads, "rounds": arguments.rounds, "contenders": rows}
    tables = [Table(columns, tuple(rows))]
    if arguments.profile:
        with stage(arguments, "timing every kernel"):
            values["profile"] = compiled.profile(arguments.rounds).to_dict()
        tables.append(_profile_table(values["profile"]["kernels"]))
    return Result(values, "\n\n".join(map(to_text, tables)))


def _profile_table(kernels: list[dict[str, Any]]) -> Table:
    """What takes longest first."""
    columns = (Column("name", "layers"), Column("kernel", "kernel"), Column("milliseconds", "median", "milliseconds"),
               Column("share", "of the time", "percent"), Column("macs", "multiply-adds", "millions"),
               Column("roofline", "of the machine's best", "percent"))
    slowest = sorted(kernels, key=lambda kernel: float(kernel["milliseconds"]), reverse=True)
    return Table(columns, tuple(slowest))
