"""`onexn repair`: prune and put right again, from a folder of unlabelled photos."""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict
from pathlib import Path

from torch import nn

from onexn_plugins.cli.common import (
    Result,
    add_block_size,
    add_model,
    add_photos,
    example_input,
    in_float32,
    preprocess,
    read_model,
    save_weights,
)
from onexn_plugins.errors import OneXNError
from onexn_plugins.export import export_onnx
from onexn_plugins.files import check_writable
from onexn_plugins.masking import fold
from onexn_plugins.measurement import measure
from onexn_plugins.repair import Budget, Repaired, repair
from onexn_plugins.repair.thinning import AUTO
from onexn_plugins.report import Column, Table, to_text

HELP = "Prune a model in 1×N blocks and repair it from unlabelled photos, without training."
EXAMPLE = ("onexn repair mobilenet_v2 --weights trained.safetensors --images photos --pruning-ratio 0.5 "
           "--output repaired.safetensors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_block_size(parser)
    add_photos(parser)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--pruning-ratio", type=float, default=0.5, metavar="P",
                        help="share of the blocks, and of their multiply-adds, to remove (default 0.5)")
    budget.add_argument("--latency", type=float, metavar="MS", help="milliseconds that the compiled network may take")
    budget.add_argument("--macs", type=float, metavar="N", help="multiply-adds that may be left")
    budget.add_argument("--bytes", type=float, metavar="N", help="bytes of weights that may be left")
    budget.add_argument("--speedup", type=float, metavar="X",
                        help="times less than the dense network's cost, by the cost model of --target")
    parser.add_argument("--target", default="host", help="processor of --latency (one that runs here) or --speedup "
                                                         "(any; default host)")
    parser.add_argument("--channels", type=_share, default=0.0, metavar="SHARE",
                        help="of the multiply-adds that goes with whole hidden channels before the blocks; "
                             "'auto' plans both together (default 0)")
    parser.add_argument("--table", type=Path, metavar="FILE", help="measured latencies, written once and kept")
    parser.add_argument("--no-rearrange", action="store_true", help="leave the channels where they are")
    parser.add_argument("--distil", type=float, default=0, metavar="MINUTES", help="then train on the dense outputs")
    parser.add_argument("--seed", type=int, default=0, help="of the rearrangement and the distillation")
    parser.add_argument("--ignore", action="append", default=[], metavar="LAYER", help="leave this layer dense")
    parser.add_argument("--full", action="store_true", default=None, help="prune Linear layers too")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE",
                        help="written on the way; the same command goes on from it after an interruption")
    parser.add_argument("--output", "-o", type=Path, metavar="FILE",
                        help="where to save the weights (.safetensors), or the network as ONNX (.onnx)")


def run(arguments: argparse.Namespace) -> Result:
    if arguments.output is not None:
        check_writable(arguments.output)
        if arguments.channels and arguments.output.suffix != ".onnx":
            raise OneXNError("--output", "the weights of a network that loses channels no longer fit the model",
                             f"Write the network itself: --output {arguments.output.with_suffix('.onnx')}")
    model = read_model(arguments)
    result = repair(
        model, arguments.images, block_size=arguments.block_size, pruning_ratio=_ratio(arguments),
        channels=arguments.channels, rearrange=not arguments.no_rearrange,
        distil_minutes=arguments.distil, ignored_layers=arguments.ignore,
        full=arguments.full, preprocess=preprocess(arguments), seed=arguments.seed, checkpoint=arguments.checkpoint,
        progress=None if arguments.json else _Line())
    fold(model)
    report = measure(model, arguments.block_size)
    values = {"model": arguments.model, "images": result.images, "skipped": [list(each) for each in result.skipped],
              "steps": [asdict(step) for step in result.steps], "ratios": result.ratios, "channels": result.channels,
              "notes": result.notes,
              "sparsity": report.sparsity._asdict()}
    lines = [*_lines(result), f"pruned: {report.sparsity.blocks:.1%} of the blocks, {report.sparsity.weights:.1%} of "
                              "the weights of prunable layers"]
    if arguments.latency is not None:
        values["latency"] = {"planned_ms": arguments.latency, "measured_ms": _milliseconds(model, arguments)}
        lines.append("planned for {planned_ms:.3g} ms, measured {measured_ms:.3g} ms".format(**values["latency"]))
    if arguments.output is not None:
        is_network = arguments.output.suffix == ".onnx"
        if is_network:
            model = in_float32(model)
            export_onnx(model, example_input(model, arguments), arguments.output, block_size=arguments.block_size)
        else:
            save_weights(model, arguments.output)
        values["output"] = str(arguments.output)
        lines.append(f"{'network' if is_network else 'weights'}: {arguments.output}")
    return Result(values, "\n".join(lines))


def _ratio(arguments: argparse.Namespace) -> float | Budget:
    given = (arguments.macs, arguments.bytes, arguments.latency, arguments.speedup)
    if all(each is None for each in given):
        return arguments.pruning_ratio
    return Budget(*given[:3], arguments.target, arguments.table, arguments.speedup)


def _milliseconds(model: nn.Module, arguments: argparse.Namespace) -> float:
    """Of the compiled network, the median."""
    from onexn_plugins.tvm_backend import compile_module

    model = in_float32(model)
    return compile_module(model, example_input(model, arguments), target=arguments.target).benchmark(repeat=30).median


def _share(text: str) -> float | str:
    return text if text == AUTO else float(text)


def _lines(result: Repaired) -> list[str]:
    columns = (Column("step", "step"), Column("kl", "KL to dense", "text"),
               Column("agreement", "same class", "percent"), Column("macs", "multiply-adds", "millions"),
               Column("seconds", "took", "seconds"), Column("kept", "kept"))
    rows = tuple({"step": step.name, "kl": f"{step.kl:.4f}", "agreement": step.agreement, "macs": step.macs,
                  "seconds": step.seconds, "kept": "yes" if step.kept else "no, it was worse"} for step in result.steps)
    lines = [to_text(Table(columns, rows)), f"{result.images} images calibrated and judged the steps"]
    if result.skipped:
        lines.append(f"{len(result.skipped)} files could not be read, such as {result.skipped[0][0]}: "
                     f"{result.skipped[0][1]}")
    if result.channels:
        lines.append(f"{len(result.channels)} layers lost output channels, at most "
                     f"{max(result.channels.values()):.0%} of them")
    return [*lines, *result.notes[:5], *([f"and {len(result.notes) - 5} more notes (--json lists them)"]
                                         if len(result.notes) > 5 else [])]


class _Line:
    """What runs now, on the error stream: one line that is rewritten on a terminal, a line now and then in a log."""

    def __init__(self) -> None:
        self._started = self._last = time.monotonic()

    def __call__(self, done: int, total: int, what: str) -> None:
        now, live = time.monotonic(), sys.stderr.isatty()
        if done < total and now - self._last < (0.2 if live else 10):
            return
        self._last = now
        line = f"{now - self._started:5.0f} s  {what}, {done} of {total}"
        end = "" if live and done < total else "\n"
        print(f"\r{line[:100]:<100}" if live else line, end=end, file=sys.stderr, flush=True)
