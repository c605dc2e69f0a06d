"""python -m benchmarks.rearrangement.readme: the tables of this folder's README, taken from the committed results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.rearrangement.kept_l1 import kept_columns, mean_sections, measured
from benchmarks.rearrangement.networks import COLUMNS
from onexn_plugins.files import written_aside
from onexn_plugins.report import Column, Table, load, to_markdown

HERE = Path(__file__).parent
README = HERE / "README.md"
KEPT, BOUND, NETWORKS = (HERE / "results" / f"{name}.json" for name in ("kept_l1", "bound", "networks"))
# What the README shows of every network; the JSON holds the rest.
SHOWN = ("name", "layers", "spaces", "moved", "refused", "proof_error", "seconds", "peak_bytes")
PATTERNS = ("1×4, 50% pruned", "1×16, 50% pruned")


def kept_tables() -> str:
    """Means over the networks at every ratio, then each network at two patterns."""
    rows, facts = measured(KEPT), load(KEPT).record
    parts = [f"**{section.heading}**\n\n{to_markdown(section.table)}\n"
             for section in mean_sections(list(rows.values())) if section.table]
    columns = (Column("name", "Network"), *kept_columns(timed=True)[1:])
    for pattern in PATTERNS:
        found = tuple(row | {"name": title} for title, each in rows.items() for row in each if row["name"] == pattern)
        if found:
            parts.append(f"**Each network, {pattern}**\n\n{to_markdown(Table(columns, found))}\n")
    return "\n".join([*parts, _origin(facts)])


def bound_table() -> str:
    """What no arrangement in blocks of two exceeds."""
    return "\n".join(f"**{section.heading}**\n\n{to_markdown(section.table)}\n"
                     for section in load(BOUND).sections if section.table)


def network_tables() -> str:
    """Every network, and below the reasons of refused layers."""
    page = load(NETWORKS)
    columns = tuple(column for column in COLUMNS if column.key in SHOWN)
    parts = [f"**{section.heading}**\n\n{to_markdown(Table(columns, section.table.rows))}\n"
             for section in page.sections if section.table]
    why = {row["name"]: row["why"] for section in page.sections if section.table for row in section.table.rows
           if row.get("why")}
    refused = "\n".join(f"- {name}: {reason}" for name, reason in why.items())
    return "\n".join([*parts, f"Refused layers:\n\n{refused}\n", _origin(page.record)])


def filled(readme: str) -> str:
    """The README with all tables between their marks."""
    for mark, text in (("kept", kept_tables()), ("bound", bound_table()), ("networks", network_tables())):
        start, end = f"<!-- {mark} -->\n", f"<!-- end of {mark} -->\n"
        before, _, rest = readme.partition(start)
        readme = f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}"
    return readme


def _origin(record: Mapping[str, Any]) -> str:
    machine, versions = record["machine"], record["versions"]
    cores = f"{machine['cores']} core{'s' if machine['cores'] > 1 else ''} of {machine['processor']}"
    return (f"CPU seconds of one thread; {cores}, torch {versions['torch']}; commits stand in the JSON.\n")


if __name__ == "__main__":
    text = filled(README.read_text(encoding="utf-8"))
    with written_aside(README) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
