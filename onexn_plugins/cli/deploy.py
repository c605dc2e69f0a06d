"""`onexn deploy`: an ONNX file compiled here, run and timed on a board over TVM RPC."""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from onexn_plugins.cli.common import Result, add_onnx_shapes, add_strict, add_tuning, is_onnx, stage
from onexn_plugins.cli.run import TOLERANCE, difference, random_inputs
from onexn_plugins.errors import OneXNError

HELP = "Compile an ONNX file, run it on a board over TVM RPC, compare its output and time it."
EXAMPLE = "onexn deploy pruned.onnx --rpc 192.168.1.7:9190 --key rpi4 --target cortex-a72"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL.onnx", help="the network")
    parser.add_argument("--rpc", required=True, metavar="HOST:PORT",
                        help="the RPC tracker, or without --key the board's own RPC server")
    parser.add_argument("--key", help="the name under which the board registered with the tracker")
    parser.add_argument("--target", required=True, help="the board's processor: cortex-a53, cortex-a72, ...")
    parser.add_argument("--threads", type=int, default=1, help="threads on the board (default 1)")
    parser.add_argument("--repeat", type=int, default=50, help="timed runs (default 50)")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="SECONDS",
                        help="give the board up after so long a silence (default 120)")
    add_onnx_shapes(parser)
    add_tuning(parser)
    add_strict(parser)


def run(arguments: argparse.Namespace) -> Result:
    from onexn_plugins.tvm_backend import compile_model
    from onexn_plugins.tvm_backend.output.artefact import read
    from onexn_plugins.tvm_backend.running.rpc import parse_board, run_remotely

    _check(arguments)
    board = parse_board(arguments.rpc, arguments.key)
    with tempfile.TemporaryDirectory(prefix="onexn-") as folder:
        with stage(arguments, f"compiling {arguments.model} for {arguments.target}"):
            compiled = compile_model(arguments.model, target=arguments.target, threads=arguments.threads,
                                     tuning=arguments.tuning, input_shapes=arguments.input_shapes,
                                     strict=arguments.strict)
            saved = read(compiled.save(Path(folder) / "network"), run_here=False)
        inputs = random_inputs(compiled)
        remote = run_remotely(saved, board, inputs, repeat=arguments.repeat, patience=arguments.timeout,
                              report=lambda note: None if arguments.json else print(f"      {note}", file=sys.stderr))
    error = difference(arguments.model, inputs, remote.outputs)
    values: dict[str, Any] = {"model": arguments.model, "target": arguments.target, "board": str(board),
                              "key": arguments.key, "core": remote.core, "emulated": remote.emulated,
                              "threads": arguments.threads, "difference": error, **_summary(remote.milliseconds)}
    return Result(values, _describe(values), int(error > TOLERANCE))


def _check(arguments: argparse.Namespace) -> None:
    from onexn_plugins.tvm_backend.processors import find_target

    if not is_onnx(arguments.model):
        raise OneXNError(arguments.model, "is no ONNX file", "Give the ONNX file; it is compiled for the board")
    if arguments.repeat < 1 or not arguments.timeout > 0:
        raise OneXNError("deploy", "--repeat and --timeout have to be positive", "Leave them out for 50 and 120")
    if not find_target(arguments.target).tvm_runtime:
        raise OneXNError(f"target {arguments.target!r}", "has no TVM runtime, so there is no RPC server for it",
                         f"Run onexn compile --target {arguments.target}, copy the folder and run its `network`")


def _summary(milliseconds: tuple[float, ...]) -> dict[str, Any]:
    p10, p90 = (float(value) for value in np.percentile(milliseconds, (10, 90)))
    return {"repeat": len(milliseconds), "median_ms": statistics.median(milliseconds), "p10_ms": p10, "p90_ms": p90}


def _describe(values: dict[str, Any]) -> str:
    time = f"{values['median_ms']:.2f} ms (p10 {values['p10_ms']:.2f}, p90 {values['p90_ms']:.2f})"
    machine = "an EMULATED board, its time says nothing about a real one" if values["emulated"] else values["core"]
    return (f"{values['model']} on {machine or values['target']}: {time} over {values['repeat']} runs, "
            f"within {values['difference']:.1e} of onnxruntime's output here")
