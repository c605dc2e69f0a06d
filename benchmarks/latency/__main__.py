"""python -m benchmarks.latency: pruned networks beside dense peers, interleaved; writes JSON and a page."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common.record import command_line, record
from benchmarks.latency.networks import NETWORKS, pruned_onnx
from benchmarks.latency.peers import Runner, installed
from onexn_plugins.progress import Progress
from onexn_plugins.report import Column, Page, Plot, Section, Table, save, to_text, write_html
from onexn_plugins.report.cells import Cell
from onexn_plugins.timing import Timings, interleave
from onexn_plugins.tvm_backend import compile_model

Row = dict[str, Cell]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    torch.set_num_threads(1)
    facts, started = record(command_line("benchmarks.latency")), time.monotonic()
    peers, absent = installed()
    progress, sections = Progress(), []
    with tempfile.TemporaryDirectory(prefix="onexn-latency-") as folder:
        for network in options.networks:
            with progress.stage(network):
                rows = _measure(network, options, Path(folder), progress)
            sections.append(_section(network, options, rows, list(peers)))
            print(f"\n{to_text(sections[-1].table)}\n")
    page = Page("Latency of 1×N-pruned networks", _summary(options, absent), tuple(sections),
                record=facts | {"seconds": round(time.monotonic() - started, 1)})
    options.out.mkdir(parents=True, exist_ok=True)
    print(save(page, options.out / "latency.json"), write_html(page, options.out / "latency.html"))
    return 0


def _measure(network: str, options: argparse.Namespace, folder: Path, progress: Progress) -> list[Row]:
    """All ratios and all peers of one network in a single interleaved run; peers run the dense file."""
    array = np.random.default_rng(0).standard_normal((1, 3, options.size, options.size)).astype(np.float32)
    contenders: dict[str, Runner] = {}
    rows: list[Row] = []
    ratios = sorted({0.0, *options.ratios})
    for ratio in ratios:
        progress.step(f"export and compile, {ratio:.0%} removed")
        path = pruned_onnx(network, options.block_size, ratio, options.size, folder)
        started = time.monotonic()
        compiled = compile_model(path, threads=options.threads)
        rows.append({"name": _name(options.block_size, ratio), "compile_seconds": time.monotonic() - started,
                     "sparse_layers": f"{sum(layer.sparse for layer in compiled.layers)} of {len(compiled.layers)}"})
        contenders[str(rows[-1]["name"])] = lambda compiled=compiled: compiled.run(array)
        if ratio == 0.0:
            for name, factory in installed()[0].items():
                contenders[name] = factory(path, array, options.threads)
    timings = interleave(contenders, rounds=options.rounds, progress=progress.rounds)
    return [row | _timed(str(row["name"]), timings) for row in rows]


def _timed(name: str, timings: Timings) -> Row:
    peers = [peer for peer in timings.samples if peer in installed()[0]]
    times: Mapping[str, Any] = {peer: timings.milliseconds(peer) for peer in peers}
    best = min(peers, key=lambda peer: times[peer].value)
    return {"ours_ms": asdict(timings.milliseconds(name)), "speedup": asdict(timings.speedup(name, best)), "best": best,
            **{f"{peer}_ms": asdict(times[peer]) for peer in peers}}


def _section(network: str, options: argparse.Namespace, rows: list[Row], peers: list[str]) -> Section:
    columns = (Column("name", network), Column("ours_ms", "This package", "milliseconds"),
               *(Column(f"{peer}_ms", f"{peer}, dense", "milliseconds") for peer in peers),
               Column("speedup", "Faster than the best of them", "times"), Column("best", "Best of them"),
               Column("sparse_layers", "Layers compiled sparse"), Column("compile_seconds", "Compiling", "seconds"))
    return Section(network, table=Table(columns, tuple(rows)),
                   plots=(Plot("bars", f"{network}: latency of one image", ("ours_ms", f"{peers[0]}_ms"),
                               caption="Shorter is better; medians, lines from the 10th to the 90th percentile."),))


def _summary(options: argparse.Namespace, absent: list[str]) -> str:
    threads = "one thread" if options.threads == 1 else f"{options.threads} threads"
    missing = f" Not installed here, so left out: {', '.join(absent)}." if absent else ""
    return (f"1×{options.block_size} blocks, batch 1, float32, {options.size}×{options.size}, {threads}, random "
            f"weights; {options.rounds} interleaved rounds of three timed calls.{missing}")


def _name(block_size: int, ratio: float) -> str:
    return f"1×{block_size}, {100 * ratio:g} %" if ratio else "dense"


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__)
    parser.add_argument("--networks", nargs="+", choices=sorted(NETWORKS), default=sorted(NETWORKS))
    parser.add_argument("--ratios", nargs="+", type=float, default=[0.5, 0.75, 0.9])
    parser.add_argument("--block-size", type=int, default=4)
    parser.add_argument("--size", type=int, default=224, help="side of the image in pixels")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("out/latency"), help="folder (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
