"""Takes measured parts into results/ and fills this folder's README with their tables.

Other kinds of processors than the first have a folder of their own there and, in the README, the tables that compare
engines.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.latency.engines import TITLES, engine
from benchmarks.latency.parts import PARTS
from onexn_plugins.files import written_aside
from onexn_plugins.report import Page, load, to_markdown, write_svg

HERE = Path(__file__).parent
README, RESULTS = HERE / "README.md", HERE / "results"
# Where other kinds of processors have their results, and what the README says of them.
OTHERS = {
    "intel": ("On an Intel processor with AVX-512",
              "Two multiply-adds of 16 lanes a cycle; what the second-level cache does not hold comes at about 20 "
              "GB/s, which bounds layers that keep few weights. Neighbours were busy: intervals are wide. Goals are "
              "those for the other machine."),
    "avx2": ("On a processor without AVX-512",
             "Goals are those for the other machine. This one had busy neighbours: intervals are wide."),
}
START, END = "<!-- results -->\n", "<!-- end of results -->\n"


def publish(measured: Path) -> int:
    """Copy the parts found in `measured` to results/, draw their plots, fill the README."""
    for name in PARTS:
        path = measured / f"{name}.json"
        if path.exists():
            folder = _folder(load(path).record["machine"])
            folder.mkdir(exist_ok=True)
            shutil.copy(path, folder)
    for folder in (RESULTS, *(RESULTS / name for name in OTHERS)):
        for name, page in published(folder).items():
            section = page.sections[0]
            if section.table and section.plots:
                write_svg(section.plots[0], section.table, folder / f"{name}.svg")
    text = filled(README.read_text(encoding="utf-8"), published(), others_published())
    with written_aside(README) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
    return 0


def published(folder: Path = RESULTS) -> dict[str, Page]:
    """The pages in a folder of results, in the order of the parts."""
    return {name: load(folder / f"{name}.json") for name in PARTS if (folder / f"{name}.json").exists()}


def _folder(machine: Mapping[str, Any]) -> Path:
    """Where results of a machine belong."""
    if "avx512f" not in machine["vector_units"]:
        return RESULTS / "avx2"
    return RESULTS / "intel" if "Intel" in machine["processor"] else RESULTS


def others_published() -> dict[str, dict[str, Page]]:
    """The pages of each other kind of processor."""
    return {name: published(RESULTS / name) for name in OTHERS}


def filled(readme: str, pages: Mapping[str, Page], others: Mapping[str, Mapping[str, Page]]) -> str:
    """The README with settings and tables between its two marks."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    parts = "\n".join([*(_part(name, page) for name, page in pages.items()),
                       *(_other(name, found) for name, found in others.items() if found)])
    return f"{before}{START}\n{_settings()}\n{parts}\n{END}{after}"


def _settings() -> str:
    lines = [f"| {title} | {engine(name).SETTINGS} |" for name, title in TITLES.items()]
    return "\n".join(["## How each engine runs", "", "| Engine | Settings |", "| --- | --- |", *lines, ""])


def _part(name: str, page: Page) -> str:
    lines = [f"## {page.title}", "", page.summary, ""]
    for section in page.sections:
        if section.table:
            lines += [to_markdown(section.table), ""]
        lines += [*(f"- {note}" for note in section.notes), ""] if section.notes else []
    return "\n".join([*lines, f"![{page.title}](results/{name}.svg)", "", _made(page, f"results/{name}.json"), ""])


def _other(kind: str, pages: Mapping[str, Page]) -> str:
    title, remarks = OTHERS[kind]
    lines = [f"## {title}", "", f"{remarks} All engines' times stand in the JSON.", ""]
    for name, page in pages.items():
        table = page.sections[0].table
        assert table is not None
        made = _made(page, f"results/{kind}/{name}.json")
        lines += [f"### {page.title}", "", to_markdown(table), "", made, ""]
    return "\n".join(lines)


def _made(page: Page, path: str) -> str:
    """How, where and of what the numbers were made."""
    record, machine = page.record, page.record["machine"]
    return (f"`{record['command']}`, {record['seconds']:.0f} s on {machine['cores']} cores of {machine['processor']} "
            f"({', '.join(machine['vector_units'])}), commit {record['commit']}, TVM "
            f"{record['versions']['apache-tvm']}, torch {record['versions']['torch']}. "
            f"[JSON]({path})")
