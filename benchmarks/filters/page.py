"""The results as README.md's table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onexn_plugins.report import Column, Table, to_markdown

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- table -->\n", "\n<!-- end -->"
COLUMNS = (Column("network", "Network"), Column("cut_by", "Cut by"), Column("parameters_before", "Before", "millions"),
           Column("parameters_after", "After", "millions"), Column("reason", "Why not by NNI"))


def table(data: dict[str, Any]) -> str:
    """The results as Markdown."""
    return to_markdown(Table(COLUMNS, tuple(row | {"reason": _short(row["reason"])} for row in data["networks"])))


def _short(reason: str) -> str | None:
    return (reason if len(reason) <= 110 else f"{reason[:109]}…").replace("`", "") or None


def write_readme(data: dict[str, Any]) -> None:
    """README.md with its table made anew from the results."""
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(f"{before}{BEGIN}{table(data)}{END}{after}", encoding="utf-8")
