"""One self-contained HTML page: styles and plots inline, nothing fetched."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from onexn_plugins.errors import MissingDependencyError
from onexn_plugins.report.cells import write
from onexn_plugins.report.document import Page, Plot, Section, Table, check, write_text
from onexn_plugins.report.plots import draw
from onexn_plugins.report.tables import text_rows

_HERE = Path(__file__).parent


def write_html(page: Page, path: str | Path) -> Path:
    """Write the page to `path`: whole or not at all.

    Raises:
        OneXNError: the page is inconsistent or the file cannot be written.
        MissingDependencyError: jinja2 or matplotlib is not installed.
    """
    return write_text(path, to_html(page))


def write_svg(plot: Plot, table: Table, path: str | Path) -> Path:
    """Write one plot to `path` as a picture that stands alone, in the page's colours, light and dark.

    Raises:
        OneXNError: the file cannot be written.
        MissingDependencyError: matplotlib is not installed.
    """
    colors, _, _ = (_HERE / "page.css").read_text(encoding="utf-8").partition("* {")  # its :root rules come first
    opening, body = draw(plot, table, Path(path).stem).split(">", 1)
    style = f"<style>{colors}svg {{ background: var(--card); font-family: sans-serif }}</style>"
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return write_text(path, f"{opening.replace('<svg', f'<svg {names}', 1)}>{style}{body}\n")


def to_html(page: Page) -> str:
    """The page as one HTML document."""
    try:
        import jinja2
        from markupsafe import Markup
    except ModuleNotFoundError as error:
        raise MissingDependencyError("jinja2", "report") from error
    check(page)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(_HERE), autoescape=True, trim_blocks=True,
                                     lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    sections = [_view(section, index, Markup) for index, section in enumerate(page.sections)]
    return environment.get_template("page.html.jinja").render(
        page=page, sections=sections, css=Markup((_HERE / "page.css").read_text(encoding="utf-8")),
        highlights=[(*write(highlight.value, highlight.style), highlight.label) for highlight in page.highlights],
        record=list(_flat(page.record)),
    ) + "\n"


def _view(section: Section, index: int, markup: type[str]) -> dict[str, Any]:
    """What the template needs of one section: cells as text, plots as SVG."""
    view: dict[str, Any] = {"section": section, "header": [], "body": [], "plots": []}
    if section.table:
        view["header"], view["body"] = text_rows(section.table)
        view["plots"] = [(plot, markup(draw(plot, section.table, f"s{index}p{order}")))
                         for order, plot in enumerate(section.plots)]
    return view


def _flat(record: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The record as (name, text) pairs; nested names are joined."""
    for key, value in record.items():
        name = f"{above}{key.replace('_', ' ')}"
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, (list, tuple)):
            yield name, ", ".join(str(item) for item in value) or "none"
        else:
            yield name, "unknown" if value is None else value if isinstance(value, str) else json.dumps(value)
