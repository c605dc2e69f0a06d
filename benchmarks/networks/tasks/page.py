"""The results as JSON, a network on one line, and as a table in Markdown beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.networks.page import Row, as_json
from onexn_plugins.files import written_aside
from onexn_plugins.report import Column, Table
from onexn_plugins.report.tables import to_markdown

COLUMNS = (
    Column("network", "network"), Column("task", "task"), Column("input", "input"), Column("result", "result"),
    Column("difference_exact", "from torch in float64", "scientific"), Column("adapters", "by NNI's adapter"),
    Column("macs", "multiply-adds left", "ratio"),
    Column("onnxruntime_dense", "onnxruntime, dense", "milliseconds"),
    Column("onnxruntime_pruned", "onnxruntime, pruned", "milliseconds"), Column("ours", "this package", "milliseconds"),
    Column("faster", "faster than dense", "times"), Column("left", "layers without our kernels"),
    Column("without_share", "TVM's own, of the time", "ratio"),
    Column("compile_processor_seconds", "compiling", "seconds"),
)


def write(path: Path, result: dict[str, Any]) -> None:
    """Both files; `result` holds the networks as "networks"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in ((path, as_json(result)), (path.with_suffix(".md"), markdown(result))):
        with written_aside(file) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def summary(rows: Sequence[Row]) -> str:
    """All networks in a sentence."""
    right = [row for row in rows if row["state"] == "right"]
    faster = [row for row in right if row["faster"]["value"] >= 2]
    return (f"{len(rows)} networks, {len(right)} of them right, {len(faster)} at least 2 times faster than onnxruntime "
            "runs them dense.")


def markdown(result: dict[str, Any]) -> str:
    """The page."""
    rows = [{**row, "result": f"{row['state']}: {row['said']}" if "said" in row else row["state"],
             "input": "×".join(map(str, row["shape"])), "left": ", ".join(row.get("without", ())) or "none"}
            for row in result["networks"]]
    machine = result["machine"]
    return (f"# Networks of many tasks, {result['ratio']:.0%} of the 1×{result['block_size']} blocks removed\n\n"
            f"{summary(rows)} Channels are moved first (`rearrange=True`); weights are random. One thread, batch 1, "
            f"medians (10th to 90th percentile) of the processor's time over {result['rounds']} rounds in which all "
            f"take turns; ratios are taken within rounds. Difference: the largest one over the output's largest value, "
            f"{result['tolerance']:.0e} allowed. By NNI's adapter: whether it makes the same weights of the same "
            f"layers. Compiling: seconds of the processor, nothing cached. Written by `{result['command']}` on "
            f"{machine['cores']} cores of {machine['processor']} "
            f"({', '.join(machine['vector_units'])}), which others used at the same time.\n\n"
            f"{to_markdown(Table(COLUMNS, tuple(rows)))}\n")
