"""The paper's tables and figures from the committed runs, with the paper's own numbers beside them as theirs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.accuracy.rows import HARD_RATIOS, Row, grid
from benchmarks.accuracy.runs import Runs, change, find, key_of, spread, title
from onexn_plugins.report import Column, Plot, Section, Table
from onexn_plugins.report.cells import Cell, number

PAPER = Path(__file__).parent / "paper"
POINTS, TOP1 = "points", "percent"
BLOCK_SIZES = (2, 4, 8, 16, 32)
RATIOS = (0.3, 0.5, 0.7, 0.75, 0.9)
# Our method beside the name under which the paper's figure has it.
IN_THE_PAPER = {"weights_level": "weight", "filters_at_ratio": "filter", "block_l1": "1x4"}
RUNS_COLUMNS = (
    Column("name", "method"), Column("ratio", "pruned", "ratio"), Column("rearranged", "rearranged"),
    Column("seeds", "seeds", "count"), Column("top1", "top-1", TOP1), Column("change", "against dense", POINTS),
    Column("weights", "weights left", TOP1), Column("macs", "MACs left", TOP1),
    Column("ours", "our backend, faster by", "times"), Column("onnxruntime", "onnxruntime, faster by", "times"))


def sections(runs: Runs) -> list[Section]:
    """Whatever has at least one run."""
    found = (methods(runs), against_filters(runs), kernels(runs), rearrangement(runs), block_sizes(runs),
             figure_4(runs), figure_5(runs, "onexn"), figure_5(runs, "onnxruntime"))
    return [section for section in found if section is not None]


def methods(runs: Runs) -> Section | None:
    """Table 1: every method at every ratio, strongest pruning last."""
    rows = [cells for row in _rows() if (cells := _cells(runs, row)) is not None]
    rows.sort(key=lambda cells: number(cells["ratio"]) or 0.0)
    return _section("Methods", RUNS_COLUMNS, rows)


def against_filters(runs: Runs) -> Section | None:
    """The comparison that decides: blocks less single weights, and less filters that are cut to the same work."""
    rows = []
    for ratio in RATIOS:
        for method, arranged, rival in (
                ("block_l1", "none", "filters_magnitude"), ("block_l1", "swap", "filters_magnitude"),
                ("block_repair", "swap", "filters_magnitude"), ("block_channels", "swap", "filters_magnitude"),
                ("block_acdc", "swap", "filters_magnitude"), ("block_distil", "swap", "filters_distil")):
            ours = find(runs, Row(method=method, pruning_ratio=ratio, rearrange=arranged))
            weights, filters = (find(runs, Row(method=each, pruning_ratio=ratio)) for each in ("weights_level", rival))
            paired = sorted(set(ours) & set(filters))
            if paired:
                rows.append({
                    "name": title(method, 4), "ratio": ratio, "rearranged": arranged if arranged != "none" else None,
                    "seeds": len(paired), "weights": change(ours, weights), "rival": title(rival, 4),
                    "filters": change(ours, filters), "time": spread(
                        speedup / other for seed in paired if (speedup := _speedup(ours[seed])) is not None
                        and (other := _speedup(filters[seed])) is not None)})
    columns = (Column("name", "method"), Column("ratio", "pruned", "ratio"), Column("rearranged", "rearranged"),
               Column("seeds", "seeds", "count"), Column("weights", "against single weights", POINTS),
               Column("rival", "filters"), Column("filters", "against these", POINTS),
               Column("time", "on our backend as fast as these, times", "times"))
    return _section("Blocks against filters", columns, rows)


def _speedup(run: Mapping[str, Any]) -> float | None:
    """On our backend, over the dense network on onnxruntime; None where it was not timed."""
    return run["latency"]["onexn"]["speedup"] if "onexn" in run["latency"] else None


def kernels(runs: Runs) -> Section | None:
    """Table 2 of the paper: are blocks worse than single kernels, and is L1 better than chance?"""
    rows = [cells for ratio in (0.5, *HARD_RATIOS) for method in ("block_l1", "block_random", "kernels_l1",
                                                                  "kernels_random")
            if (cells := _cells(runs, Row(method=method, pruning_ratio=ratio))) is not None]
    theirs = _paper("tables")["kernels"]
    paper = {title(method, 4): theirs.get(method) for method in ("block_l1", "kernels_l1", "kernels_random")}
    shown = [cells | {"paper": (paper.get(str(cells["name"])) or 0) / 100 or None if cells["ratio"] == 0.5 else None}
             for cells in rows]
    columns = (*RUNS_COLUMNS, Column("paper", f"the paper's, {theirs['network']}, ImageNet", TOP1))
    return _section("Kernels against blocks", columns, shown) if len(rows) > 1 else None


def rearrangement(runs: Runs) -> Section | None:
    """None, the paper's sort, and the search by swapping, paired by seed."""
    rows: list[Mapping[str, Cell]] = []
    for ratio in (0.5, *HARD_RATIOS):
        for block_size in BLOCK_SIZES:
            cells = _arranged(runs, ratio, block_size)
            if cells is not None:
                rows.append(cells)
    columns = (Column("name", "N"), Column("ratio", "pruned", "ratio"), Column("seeds", "seeds", "count"),
               Column("none", "as it is", TOP1),
               Column("sort", "sort (paper)", TOP1), Column("swap", "swap", TOP1),
               Column("gain", "swap against as it is", POINTS), Column("over_sort", "swap against sort", POINTS),
               Column("paper", "the paper's sort against as it is (MobileNet-V2, ImageNet)", POINTS))
    return _section("Rearrangement", columns, rows)


def block_sizes(runs: Runs) -> Section | None:
    """Accuracy at 50 % over N."""
    rows = [cells | {"n": size} for size in BLOCK_SIZES for arranged in ("none", "swap") if (cells := _cells(
        runs, Row(method="block_l1", pruning_ratio=0.5, block_size=size, rearrange=arranged))) is not None]
    return _section("Block sizes at 50 %", RUNS_COLUMNS, rows) if len(rows) > 2 else None


def figure_4(runs: Runs) -> Section | None:
    """Accuracy over the ratio; the paper's network and data are others, so theirs is a drawing of its own."""
    paper = _paper("figure4")
    theirs, rows = paper["mobilenet_v2"]["top1"], []
    for method, name in IN_THE_PAPER.items():
        for ratio in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.75, 0.8, 0.9):
            arranged = "swap" if method == "block_l1" else "none"
            ours = find(runs, Row(method=method, pruning_ratio=ratio, rearrange=arranged))
            index = paper["rates"].index(ratio) if ratio in paper["rates"] else None
            if ours or index is not None:
                rows.append({
                    "name": title(method, 4), "ratio": ratio, "top1": spread(run["top1"] for run in ours.values()),
                    "change": change(ours, find(runs, Row())),
                    "paper": None if index is None else theirs[name][index] / 100,
                    "paper_change": None if index is None else theirs[name][index] - theirs["dense"]})
    if not any(row["top1"] is not None for row in rows):
        return None
    columns = (Column("name", "method"), Column("ratio", "pruned", "ratio"), Column("top1", "top-1, ours", TOP1),
               Column("change", "against dense, ours", POINTS),
               Column("paper", "top-1, the paper's (ImageNet)", TOP1),
               Column("paper_change", "against dense, the paper's", POINTS))
    plots = (Plot("points", "Ours: small MobileNetV2, CIFAR-10 (JPEG version)", ("top1",), "ratio", "name"),
             Plot("points", "The paper's own: MobileNet-V2, ImageNet, not run here", ("paper",), "ratio", "name"))
    return Section("Accuracy over the ratio", table=Table(columns, tuple(rows)), plots=plots)


def figure_5(runs: Runs, engine: str) -> Section | None:
    """Accuracy over measured latency, each network run by one engine."""
    by = {"onexn": "our backend", "onnxruntime": "onnxruntime"}[engine]
    rows: list[Mapping[str, Cell]] = []
    for method, arranged in (("dense", "none"), ("block_l1", "swap"), ("block_distil", "swap"),
                             ("block_channels", "swap"), ("weights_level", "none"), ("filters_magnitude", "none"),
                             ("filters_distil", "none"), ("filters_at_ratio", "none")):
        for ratio in (0.0,) if method == "dense" else RATIOS:
            found = find(runs, Row(method=method, pruning_ratio=ratio, rearrange=arranged))
            times = [1 / run["latency"][engine]["speedup"] for run in found.values() if engine in run["latency"]]
            if times:
                rows.append({"name": title(method, 4), "ratio": ratio, "time": spread(times),
                             "top1": spread(run["top1"] for run in found.values())})
    columns = (Column("name", "method"), Column("ratio", "pruned", "ratio"),
               Column("time", "time, of dense onnxruntime's", TOP1), Column("top1", "top-1", TOP1))
    drawn = Plot("points", f"Accuracy over measured latency, one thread, {by}", ("top1",), "time", "name", "ratio")
    return _section(f"Accuracy over latency, {by}", columns, rows, (drawn,))


def _rows() -> list[Row]:
    """The grid's rows, each once, whatever its seed."""
    unique = {key_of(row): row for row in grid() if row.method != "start" and (
        row.block_size == 4 or row.pruning_ratio != 0.5)}
    return list(unique.values())


def _cells(runs: Runs, row: Row) -> dict[str, Cell] | None:
    found = find(runs, row)
    if not found:
        return None
    first = next(iter(found.values()))
    speedups = {engine: [run["latency"][engine]["speedup"] for run in found.values() if engine in run["latency"]]
                for engine in ("onexn", "onnxruntime")}
    return {"name": title(row.method, row.block_size), "ratio": row.pruning_ratio or None,
            "rearranged": row.rearrange if row.rearrange != "none" else None, "seeds": len(found),
            "top1": spread(run["top1"] for run in found.values()),
            "change": None if row.method == "dense" else change(found, find(runs, Row(network=row.network))),
            "weights": first["parameters"] / first["dense"]["parameters"],
            "macs": first["macs"] / first["dense"]["macs"],
            "ours": spread(speedups["onexn"]), "onnxruntime": spread(speedups["onnxruntime"])}


def _arranged(runs: Runs, ratio: float, block_size: int) -> dict[str, Cell] | None:
    found = {arranged: find(runs, Row(method="block_l1", pruning_ratio=ratio, block_size=block_size,
                                      rearrange=arranged)) for arranged in ("none", "sort", "swap")}
    if not found["none"] or not found["swap"]:
        return None
    theirs, size = _paper("tables")["rearrangement"], str(block_size)
    cells: dict[str, Any] = {name: spread(run["top1"] for run in each.values()) for name, each in found.items()}
    return {"name": f"1×{block_size}", "ratio": ratio, "seeds": len(set(found["none"]) & set(found["swap"])), **cells,
            "gain": change(found["swap"], found["none"]),
            "over_sort": change(found["swap"], found["sort"]),
            "paper": theirs["sort"][size] - theirs["none"][size] if ratio == 0.5 else None}


def _paper(name: str) -> Any:
    """What its authors published."""
    return json.loads((PAPER / f"{name}.json").read_text(encoding="utf-8"))


def _section(heading: str, columns: tuple[Column, ...], rows: list[Any],
             plots: tuple[Plot, ...] = ()) -> Section | None:
    return Section(heading, table=Table(columns, tuple(rows)), plots=plots) if rows else None
