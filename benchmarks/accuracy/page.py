"""The README's tables, the figures and one HTML page, all drawn from the runs' JSONs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.accuracy.runs import Runs, read_runs
from benchmarks.accuracy.tables import sections
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.report import Page, to_markdown, write_html, write_svg

HERE = Path(__file__).parent
START, END = "<!-- tables -->\n", "<!-- end of tables -->\n"
THEIRS = ("What is marked as the paper's is from its authors' own data (github.com/lmbxmu/1xN: README, raw_data_fig4), "
          "on other networks and data; nothing of it was run here.")


def write(results: Path, home: Path = HERE) -> None:
    """Fill home/README.md, and write home/figures/*.svg and home/report.html.

    Raises:
        OneXNError: there are no runs.
    """
    runs = read_runs(results)
    if not runs:
        raise OneXNError(str(results), "holds no runs", "Run python -m benchmarks.accuracy run first")
    readme = home / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    text = f"{before}{START}\n{_markdown(runs, home)}\n{END}{rest.partition(END)[2]}"
    with written_aside(readme) as aside:
        aside.write_text(text, encoding="utf-8")
    write_html(Page("Accuracy after pruning", "CIFAR-10, JPEG version. " + THEIRS, tuple(sections(runs)),
                    record=_record(runs)), home / "report.html")


def _markdown(runs: Runs, home: Path) -> str:
    (home / "figures").mkdir(exist_ok=True)
    parts = []
    for section in sections(runs):
        assert section.table is not None
        parts.append(f"## {section.heading}\n\n{to_markdown(section.table)}\n")
        for index, plot in enumerate(section.plots):
            path = home / "figures" / f"{section.heading.lower().replace(',', '').replace(' ', '_')}_{index + 1}.svg"
            write_svg(plot, section.table, path)
            parts.append(f"![{plot.title}](figures/{path.name})\n")
        if "paper" in {column.key for column in section.table.columns}:
            parts.append(f"{THEIRS}\n")
    record = _record(runs)
    cores = f"{record['machine']['cores']} cores of {record['machine']['processor']}"
    parts.append(f"{record['runs']} runs on {cores}, torch {record['versions']['torch']}, one thread each, "
                 f"{record['cpu_seconds']:,.0f} CPU seconds in all; intervals are the lowest and highest seed. "
                 f"Command: `{record['command']}`.\n")
    return "\n".join(parts)


def _record(runs: Runs) -> dict[str, Any]:
    """Of the first run, with all runs' number, commits and time."""
    each = [run for seeds in runs.values() for run in seeds.values()]
    commits = sorted({str(run["record"]["commit"]) for run in each})
    return {**each[0]["record"], "commit": ", ".join(commits), "runs": len(each),
            "cpu_seconds": sum(run["cpu_seconds"] for run in each)}
