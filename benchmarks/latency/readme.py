"""Takes measured parts into results/ and fills this folder's README with their tables."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from benchmarks.latency.engines import TITLES, engine
from benchmarks.latency.parts import PARTS
from onexn_plugins.files import written_aside
from onexn_plugins.report import Page, load, to_markdown, write_svg

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
START, END = "<!-- results -->\n", "<!-- end of results -->\n"


def publish(measured: Path) -> int:
    """Copy the parts found in `measured` to results/, draw their plots, fill the README."""
    RESULTS.mkdir(exist_ok=True)
    for name in PARTS:
        if (measured / f"{name}.json").exists():
            shutil.copy(measured / f"{name}.json", RESULTS)
    pages = published()
    for name, page in pages.items():
        section = page.sections[0]
        if section.table and section.plots:
            write_svg(section.plots[0], section.table, RESULTS / f"{name}.svg")
    text = filled(README.read_text(encoding="utf-8"), pages)
    with written_aside(README) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return 0


def published() -> dict[str, Page]:
    """The pages in results/, in the order of the parts."""
    return {name: load(RESULTS / f"{name}.json") for name in PARTS if (RESULTS / f"{name}.json").exists()}


def filled(readme: str, pages: Mapping[str, Page]) -> str:
    """The README with settings and tables between its two marks."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    parts = "\n".join(_part(name, page) for name, page in pages.items())
    return f"{before}{START}\n{_settings()}\n{parts}\n{END}{after}"


def _settings() -> str:
    lines = [f"| {title} | {engine(name).SETTINGS} |" for name, title in TITLES.items()]
    return "\n".join(["## How each engine runs", "", "| Engine | Settings |", "| --- | --- |", *lines, ""])


def _part(name: str, page: Page) -> str:
    record, machine = page.record, page.record["machine"]
    lines = [f"## {page.title}", "", page.summary, ""]
    for section in page.sections:
        if section.table:
            lines += [to_markdown(section.table), ""]
        lines += [*(f"- {note}" for note in section.notes), ""] if section.notes else []
    lines += [f"![{page.title}](results/{name}.svg)", "",
              f"`{record['command']}`, {record['seconds']:.0f} s on {machine['cores']} cores of {machine['processor']} "
              f"({', '.join(machine['vector_units'])}), commit {record['commit']}, TVM "
              f"{record['versions']['apache-tvm']}, torch {record['versions']['torch']}. "
              f"[JSON](results/{name}.json)", ""]
    return "\n".join(lines)
