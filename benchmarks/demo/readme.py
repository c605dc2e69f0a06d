"""python -m benchmarks.demo.readme: the tables of this folder's README, taken from the committed report of a demo."""

from __future__ import annotations

from pathlib import Path

from onexn_plugins.files import written_aside
from onexn_plugins.report import Page, load, to_markdown

HERE = Path(__file__).parent
README, NUMBERS = HERE / "README.md", HERE / "results" / "report.json"
START, END = "<!-- demo table -->\n", "<!-- end of demo table -->\n"


def tables(page: Page) -> str:
    """All tables of the report as Markdown, and where their numbers come from."""
    parts = [f"**{section.heading}**\n\n{to_markdown(section.table)}\n" for section in page.sections if section.table]
    machine, versions = page.record["machine"], page.record["versions"]
    parts.append(f"Medians with the 10th to 90th percentile (accuracy: worst to best seed); `{page.record['command']}` "
                 f"took {page.record['seconds']:.0f} s on {machine['cores']} cores of {machine['processor']}, commit "
                 f"{page.record['commit']}, torch {versions['torch']}, onnxruntime {versions['onnxruntime']}, TVM "
                 f"{versions['apache-tvm']}; one thread. [JSON](results/report.json)\n")
    return "\n".join(parts)


def filled(readme: str, page: Page) -> str:
    """The README with the report's tables between its two marks."""
    before, _, rest = readme.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{tables(page)}\n{END}{after}"


if __name__ == "__main__":
    text = filled(README.read_text(encoding="utf-8"), load(NUMBERS))
    with written_aside(README) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
