"""README.md's tables, made of the results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.experiment.candidate import PARTS
from benchmarks.experiment.search import best
from onexn_plugins.report import Column, Table, to_markdown
from onexn_plugins.report.cells import Cell

COLUMNS = (
    Column("contender", "Contender"), Column("seeds", "Seeds"), Column("accuracy", "Top-1"),
    Column("against", "Against dense, points"), Column("zeros", "Zeros", "percent"),
    Column("macs", "MACs left", "percent"), Column("bytes", "Compiled", "megabytes"),
    Column("ours", "Our backend, times dense", "times"), Column("onnxruntime", "onnxruntime, times dense", "times"),
    Column("beside", "Ours against onnxruntime", "times"))
SEARCH_COLUMNS = (
    Column("seed", "Seed"), Column("by", "Chosen by"), Column("trials", "Trials"),
    Column("enough", "Fast enough"), Column("judged", "Best, on what it was chosen by", "percent"),
    Column("held_out", "Best, on held-out images", "percent"), Column("chosen", "Its ratios and block sizes"))


def write_readme(readme: Path, comparison: Path, searches: Path) -> None:
    """The README with its tables made anew from the results that are there."""
    text = readme.read_text(encoding="utf-8")
    if comparison.is_file():
        text = _replaced(text, "comparison", comparison_markdown(json.loads(comparison.read_text(encoding="utf-8"))))
    if searches.is_file():
        text = _replaced(text, "searches", search_markdown(json.loads(searches.read_text(encoding="utf-8"))))
    readme.write_text(text, encoding="utf-8")


def comparison_markdown(experiment: Mapping[str, Any]) -> str:
    """One table for all ratios; rows with every seed that has run."""
    return to_markdown(Table(COLUMNS, tuple(comparison_rows(experiment["trials"]))))


def comparison_rows(trials: Iterable[Mapping[str, Any]]) -> list[dict[str, Cell]]:
    """A row per contender and ratio: means over seeds; differences from dense are taken seed by seed."""
    runs: dict[tuple[float, str], dict[int, Mapping[str, Any]]] = {}
    for trial in trials:
        if trial["status"] == "SUCCEEDED" and trial["reported"]:
            reported = trial["reported"]
            key = (reported["sparse_ratio"], contender(reported))
            runs.setdefault(key, {})[reported["seed"]] = reported
    dense = runs.get((0.0, "dense"), {})
    return [_row(name, ratio, seeds, dense) for (ratio, name), seeds in sorted(runs.items())]


def contender(reported: Mapping[str, Any]) -> str:
    """What a row is called."""
    if reported["pruner"] == "OneXNPruner":
        return f"1×{reported['block_size']}{', rearranged' if reported.get('rearrange') else ''}"
    return {"L1NormPruner": "filters cut, L1Norm", "FPGMPruner": "filters cut, FPGM",
            "LevelPruner": "single weights, Level"}.get(reported["pruner"], reported["pruner"])


def _row(name: str, ratio: float, seeds: Mapping[int, Mapping[str, Any]],
         dense: Mapping[int, Mapping[str, Any]]) -> dict[str, Cell]:
    def mean(key: str) -> float:
        return statistics.fmean(reported[key] for reported in seeds.values())

    differences = [100 * (reported["default"] - dense[seed]["default"])
                   for seed, reported in seeds.items() if seed in dense]
    any_seed = next(iter(seeds.values()))
    return {"contender": name if name == "dense" else f"{name}, {ratio:.0%}", "seeds": len(seeds),
            "accuracy": _spread([100 * reported["default"] for reported in seeds.values()], " %"),
            "against": _spread(differences, "", "+") if name != "dense" and differences else None,
            "zeros": None if name == "dense" or any_seed.get("cut_by") else mean("zero_weights"),
            "macs": mean("macs") / mean("dense_macs"), "bytes": mean("compiled_bytes"),
            "ours": mean("faster"), "onnxruntime": mean("onnxruntime_faster"), "beside": mean("speedup")}


def _spread(values: Sequence[float], unit: str, sign: str = "") -> str:
    """The mean, with the lowest and the highest where there are several."""
    mean = f"{statistics.fmean(values):{sign}.1f}{unit}"
    return mean if len(values) == 1 else f"{mean} ({min(values):{sign}.1f} to {max(values):{sign}.1f})"


def search_markdown(values: Mapping[str, Any]) -> str:
    """A row per search."""
    rows = []
    for search in sorted(values["searches"], key=lambda search: (search["seed"], search["by"])):
        found = best(search) or {}
        rows.append({"seed": search["seed"], "by": search["by"], "trials": len(search["trials"]),
                     "enough": sum(trial["faster"] >= values["target"] for trial in search["trials"]),
                     "judged": found.get("accuracy"), "held_out": found.get("held_out"),
                     "chosen": found and _chosen(found)})
    return to_markdown(Table(SEARCH_COLUMNS, tuple(rows)))


def _chosen(trial: Mapping[str, Any]) -> str:
    """Part by part, or once where all are alike."""
    parts = [f"{trial[f'{part}_ratio']:.0%} in 1×{trial[f'{part}_size']}" for part in PARTS]
    return parts[0] if len(set(parts)) == 1 else ", ".join(parts)


def _replaced(text: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, _, rest = text.partition(begin)
    return f"{before}{begin}{table}{end}{rest.partition(end)[2]}"
