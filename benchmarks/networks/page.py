"""The results as JSON, a case on one line, and as a table in Markdown beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onexn_plugins.files import written_aside
from onexn_plugins.report import Column, Table
from onexn_plugins.report.tables import to_markdown

COLUMNS = (
    Column("network", "network"), Column("opset", "opset"), Column("tool", "written by"), Column("pixels", "pixels"),
    Column("pruning_ratio", "removed", "ratio"), Column("result", "result"),
    Column("difference_exact", "from torch in float64", "scientific"),
    Column("difference_torch", "from torch", "scientific"),
    Column("difference_onnxruntime", "from onnxruntime", "scientific"), Column("sparse", "sparse"),
    Column("dense", "dense"), Column("ordinary", "TVM's own"), Column("compile_seconds", "compiling", "seconds"),
)

Row = dict[str, Any]


def write(path: Path, result: dict[str, Any]) -> None:
    """Both files; `result` holds the cases as "networks"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for file, text in ((path, as_json(result)), (path.with_suffix(".md"), _markdown(result))):
        with written_aside(file) as unfinished:
            unfinished.write_text(text, encoding="utf-8")


def summary(rows: Sequence[Row]) -> str:
    """All cases in a sentence."""
    made = [row for row in rows if row["state"] != "no file"]
    right = [row for row in made if row["state"] == "right"]
    largest = max(map(_difference, right), default=0.0)
    refused = f"; {len(rows) - len(made)} files that their tool cannot write" if len(rows) > len(made) else ""
    return (f"{len({row['network'] for row in made})} networks, {len(made)} cases, {len(right)} of them right, largest "
            f"difference {largest:.1e}{refused}.")


def _difference(row: Row) -> float:
    """What it was judged by: from torch in float64, before that was measured from torch in float32 and onnxruntime."""
    exact: float | None = row.get("difference_exact")
    return max(row["difference_torch"], row["difference_onnxruntime"]) if exact is None else exact


def as_json(result: dict[str, Any]) -> str:
    """Indented, but a case on one line."""
    text = json.dumps({**result, "networks": []}, indent=1, ensure_ascii=False)
    rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in result["networks"])
    return text.replace('"networks": []', f'"networks": [\n{rows}\n ]') + "\n"


def _markdown(result: dict[str, Any]) -> str:
    rows = [{**row, "result": f"{row['state']}: {row['said']}" if "said" in row else row["state"]}
            for row in result["networks"]]
    columns = tuple(column for column in COLUMNS if any(column.key in row for row in rows))
    return ("# Networks compiled for the host, against torch and onnxruntime\n\n"
            f"{summary(rows)} Difference: the largest one over the output's largest value, {result['tolerance']:.0e} "
            f"allowed; layers by how they are computed. Written by `{result['command']}`.\n\n"
            f"{to_markdown(Table(columns, tuple(rows)))}\n")
