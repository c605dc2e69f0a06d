"""python -m benchmarks.filters.readme: write README.md's table anew from results/filters.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from onexn_plugins.report import Column, Table, to_markdown

HERE = Path(__file__).parent
BEGIN, END = "<!-- table -->\n", "\n<!-- end -->"
COLUMNS = (Column("network", "Network"), Column("cut_by", "Cut by"), Column("parameters_before", "Before", "millions"),
           Column("parameters_after", "After", "millions"), Column("reason", "Why not by NNI"))


def table(data: dict[str, Any]) -> str:
    """The results as Markdown."""
    return to_markdown(Table(COLUMNS, tuple(row | {"reason": _short(row["reason"])} for row in data["networks"])))


def _short(reason: str) -> str | None:
    return (reason if len(reason) <= 110 else f"{reason[:109]}…").replace("`", "") or None


def main() -> int:
    text = (HERE / "README.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    data = json.loads((HERE / "results" / "filters.json").read_text(encoding="utf-8"))
    (HERE / "README.md").write_text(f"{before}{BEGIN}{table(data)}{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
