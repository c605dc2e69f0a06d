"""The counts as a table, and this folder's README with it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from onexn_plugins.files import written_aside
from onexn_plugins.report import Column, Table, to_markdown

README, FOLDER = Path(__file__).with_name("README.md"), Path(__file__).with_name("results")
RESULTS, CORTEX_A7 = FOLDER / "instructions.json", FOLDER / "cortex_a7.json"
# Where in the README each is shown.
PARTS = {RESULTS: "results", CORTEX_A7: "cortex-a7"}
TITLES = {"onexn": "This package", "xnnpack": "XNNPACK (LiteRT)", "ncnn": "ncnn", "mnn": "MNN"}
COLUMNS = (
    Column("network", "Network"), Column("engine", "Engine"), Column("pruned", "Pruned"),
    Column("all", "All (millions)"), Column("to_ours", "Over ours"), Column("fma", "Multiply-adds"),
    Column("loads", "Loads"), Column("stores", "Stores"), Column("fma_share", "Multiply-adds among all", "percent"),
    Column("skips_zeros", "Skips zeros", "yes_no"),
)

Row = dict[str, Any]


def table(rows: Sequence[Row]) -> Table:
    """By network and ratio, ours first."""
    def place(row: Row) -> tuple[str, float, int]:
        return row["network"], row["pruning_ratio"], list(TITLES).index(row["engine"])

    return Table(COLUMNS, tuple(_cells(row, rows) for row in sorted(rows, key=place)))


def skips_zeros(row: Row, rows: Sequence[Row]) -> bool | None:
    """Whether an engine's multiply-adds for a pruned network are fewer than for the dense one by at least half of what
    was pruned; None for the dense network."""
    if not row["pruning_ratio"]:
        return None
    dense = _row(rows, row["network"], row["engine"], 0.0)
    return row["fma"] <= (1 - row["pruning_ratio"] / 2) * dense["fma"] if dense else None


def publish(parts: Mapping[str, str]) -> None:
    """Write the README anew with these texts between the marks of these names."""
    text = README.read_text(encoding="utf-8")
    for name, part in parts.items():
        text = filled(text, name, part)
    with written_aside(README) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def published(path: Path = RESULTS) -> dict[str, Any]:
    """The committed results."""
    return json.loads(path.read_text(encoding="utf-8"))


def filled(readme: str, name: str, part: str) -> str:
    """The README with a text between the two marks of that name."""
    start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    before, _, rest = readme.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{part}\n\n{end}{after}"


def counted(result: Mapping[str, Any], file: str) -> str:
    """The table of all counts and how they were made."""
    engines = "".join(f", {name} {version}" for name, version in result["peers"].items())
    made = (f"`{result['command']}`, {result['cpu']} under qemu, 1×{result['block_size']}, batch 1, float32, "
            f"{result['pixels']}×{result['pixels']}, one thread; commit {result['commit']}, TVM "
            f"{result['versions']['apache-tvm']}{engines}. [JSON](results/{file})")
    rows = to_markdown(table(result["million_instructions_per_inference"]))
    return f"{rows}\n\n{made}"


def _cells(row: Row, rows: Sequence[Row]) -> Row:
    ours = _row(rows, row["network"], "onexn", row["pruning_ratio"])
    return {**row, "engine": TITLES[row["engine"]], "pruned": _percent(row["pruning_ratio"]),
            "skips_zeros": skips_zeros(row, rows), "to_ours": f"{row['all'] / ours['all']:.2f}×" if ours else None,
            **{kind: f"{row[kind]:.1f}" for kind in ("all", "fma", "loads", "stores")}}


def _percent(ratio: float) -> str:
    return f"{ratio:.0%}".replace("%", " %") if ratio else "dense"


def _row(rows: Sequence[Row], network: str, engine: str, ratio: float) -> Row | None:
    wanted = (network, engine, ratio)
    return next((row for row in rows if (row["network"], row["engine"], row["pruning_ratio"]) == wanted), None)
