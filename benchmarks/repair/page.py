"""The ladder as a table in README.md, from the JSON in results/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.repair.figures import paired
from onexn_plugins.report import Column, Table
from onexn_plugins.report.tables import to_markdown

FOLDER = Path(__file__).parent
MARKS = "<!-- ladder -->", "<!-- end -->"
COLUMNS = (Column("step", "Step"), Column("top1", "Top-1", "percent"), Column("top5", "Top-5", "percent"),
           Column("gain", "Top-1 over the step before, points"), Column("macs", "Multiply-adds", "millions"),
           Column("cpu_seconds", "CPU, from the dense network on", "seconds"))


def publish() -> None:
    """Write the tables of all results into README.md."""
    page = FOLDER / "README.md"
    before, _, rest = page.read_text(encoding="utf-8").partition(MARKS[0])
    after = rest.partition(MARKS[1])[2]
    page.write_text(f"{before}{MARKS[0]}\n\n{tables()}\n{MARKS[1]}{after}", encoding="utf-8")


def tables() -> str:
    """Every result as a heading and its ladder."""
    return "".join(_section(json.loads(path.read_text(encoding="utf-8")))
                   for path in sorted((FOLDER / "results").glob("*.json")))


def _section(content: Mapping[str, Any]) -> str:
    title = (f"{content['network']}, 1×{content['block_size']}, {100 * content['share']:.0f} % of the multiply-adds of "
             f"1×1 layers gone; {content['calibrated_on']} photos calibrate, {content['reported_on']} are reported")
    dense = {"step": "dense", "top1": content["dense"]["top1"], "top5": content["dense"]["top5"],
             "macs": content["dense_macs"]}
    rows, before = [dense], None
    for rung in content["rungs"]:
        places = _reported(rung["ranks"])
        rows.append({**rung, "gain": None if before is None else _points(paired(places, before))})
        before = places
    return f"### {title}\n\n{to_markdown(Table(COLUMNS, tuple(rows)))}\n\n"


def _reported(ranks: str) -> Tensor:
    """Places of the reported photos: of the odd classes, in order, every second."""
    return torch.tensor([10 if rank == "+" else int(rank) for rank in ranks[1::2]])


def _points(difference: Mapping[str, float]) -> str:
    return "{value:+.1f} ({low:+.1f} to {high:+.1f})".format(**{key: 100 * each for key, each in difference.items()})
