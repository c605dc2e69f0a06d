"""The ladder as a table in README.md, from the JSON in results/."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.repair.figures import paired
from benchmarks.repair.ladder import DISTILLED, FILTERS
from onexn_plugins.report import Column, Table
from onexn_plugins.report.tables import to_markdown

DENSE = "dense"
FOLDER = Path(__file__).parent
MARKS = "<!-- ladder -->", "<!-- end -->"
TIMED = (Column("step", "Network"), Column("top1", "Top-1", "percent"), Column("top5", "Top-5", "percent"),
         Column("ahead", "Top-1 over channels alone, points"), Column("ms", "Compiled"),
         Column("over_dense", "Faster than dense"), Column("over_channels", "Than channels alone"))
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
    """Every result as a heading and its ladder, with a second table where its networks were timed."""
    return "".join(_section(json.loads(path.read_text(encoding="utf-8"))) + _timed(path)
                   for path in sorted((FOLDER / "results").glob("*.json")))


def _section(content: Mapping[str, Any]) -> str:
    title = (f"{content['network']}, 1×{content['block_size']}, {100 * content['share']:.0f} % of the multiply-adds of "
             f"1×1 layers gone; {content['calibrated_on']} photos calibrate, {content['reported_on']} are reported")
    rows, before = [_dense(content)], None
    for rung in content["rungs"]:
        places = _reported(rung["ranks"])
        rows.append({**rung, "gain": None if before is None else _points(paired(places, before))})
        if rung["step"] not in DISTILLED:
            before = places
    return f"### {title}\n\n{to_markdown(Table(COLUMNS, tuple(rows)))}\n\n"


def _dense(content: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": DENSE, "top1": content["dense"]["top1"], "top5": content["dense"]["top5"],
            "macs": content["dense_macs"], "ranks": content["dense"]["ranks"]}


def _timed(path: Path) -> str:
    """Accuracy against latency, where results/latency has the ladder's networks."""
    timed = path.parent / "latency" / path.name
    if not timed.exists():
        return ""
    content, times = (json.loads(each.read_text(encoding="utf-8")) for each in (path, timed))
    rungs = {rung["step"]: rung for rung in [_dense(content), *content["rungs"]]}
    channels = _reported(rungs[FILTERS]["ranks"])
    rows = []
    for step, own in times["networks"].items():
        ahead = paired(_reported(rungs[step]["ranks"]), channels)
        rows.append({**rungs[step], "ahead": None if step == FILTERS else _points(ahead),
                     "ms": "{value:.3f} ms ({low:.3f}–{high:.3f})".format(**own["ms"]),
                     **{key: "{value:.2f}× ({low:.2f}–{high:.2f})".format(**own[key])
                        for key in ("over_dense", "over_channels")}})
    return f"Compiled for {times['machine']['processor']}, one thread, in turns, medians with the 10th and 90th " \
           f"percentile:\n\n{to_markdown(Table(TIMED, tuple(rows)))}\n\n"


def _reported(ranks: str) -> Tensor:
    """Places of the reported photos: of the odd classes, in order, every second."""
    return torch.tensor([10 if rank == "+" else int(rank) for rank in ranks[1::2]])


def _points(difference: Mapping[str, float]) -> str:
    return "{value:+.1f} ({low:+.1f} to {high:+.1f})".format(**{key: 100 * each for key, each in difference.items()})
