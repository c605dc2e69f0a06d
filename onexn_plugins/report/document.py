"""What a report says, as plain data. Whatever shows it takes every number from here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.report.cells import STYLES, Cell

FORMAT = "onexn-report/1"
PLOTS = ("bars", "points")


@dataclass(frozen=True)
class Column:
    """One quantity.

    Attributes:
        key: its name in the rows.
        title: what the reader sees.
        style: how values are written, one of `cells.STYLES`.
    """

    key: str
    title: str
    style: str = "text"


@dataclass(frozen=True)
class Table:
    """Rows of raw values.

    Attributes:
        columns: in the order shown; the first names the row.
        rows: by column key: text, number, bool, None (not measured) or {"value", "low", "high"}.
        transposed: show one line per quantity, which suits few rows of many quantities.
    """

    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    transposed: bool = False


@dataclass(frozen=True)
class Plot:
    """A drawing of its section's table.

    Attributes:
        kind: "bars" (one group per row, one bar per key in `y`) or "points" (`x` against the one key in `y`,
            rows of equal `series` joined).
        title, caption: what is asked, and how to read the answer.
        y: column keys drawn.
        x: column key of the horizontal axis of "points"; the row's name for "bars".
        series: column key by which "points" are coloured.
        mark: column key written beside each of the "points", and behind the names of the "bars".
    """

    kind: str
    title: str
    y: tuple[str, ...]
    x: str = ""
    series: str = ""
    mark: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Section:
    """A heading with text, at most one table, drawings of it, and notes under it."""

    heading: str
    text: tuple[str, ...] = ()
    table: Table | None = None
    plots: tuple[Plot, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Highlight:
    """One number that stands at the top, with what it means."""

    value: Cell
    style: str
    label: str


@dataclass(frozen=True)
class Page:
    """A whole report.

    Attributes:
        title, summary: the question and, in a sentence or two, what was done.
        sections: in reading order.
        highlights: few numbers, shown large.
        record: command, machine, versions and commit behind the numbers, as nested plain values.
    """

    title: str
    summary: str
    sections: tuple[Section, ...]
    highlights: tuple[Highlight, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)


def save(page: Page, path: str | Path) -> Path:
    """Write the page as JSON; OneXNError where the page is inconsistent or the file cannot be written."""
    check(page)
    text = json.dumps({"format": FORMAT} | asdict(page), indent=1, ensure_ascii=False, allow_nan=False)
    return write_text(path, text + "\n")


def load(path: str | Path) -> Page:
    """Read what `save` wrote.

    Raises:
        OneXNError: there is no such file, or it is not a whole report of this format.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        page = _page(data)
    except OSError as error:
        raise OneXNError(str(path), f"cannot be read: {error.strerror}", "Check the path of the report") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OneXNError(str(path), f"is not a whole report: {error}",
                         "Give the JSON that a benchmark or the demo wrote") from error
    check(page)
    return page


def check(page: Page) -> None:
    """Raise OneXNError where a table or plot speaks of a column that is not there, or of an unknown style."""
    for section in page.sections:
        columns = section.table.columns if section.table else ()
        keys = {column.key for column in columns}
        if section.table and not (columns and section.table.rows):
            raise OneXNError(section.heading, "its table is empty", "Leave the table out or give it rows")
        unknown = [column.style for column in columns if column.style not in STYLES]
        if unknown:
            raise OneXNError(section.heading, f"unknown style {unknown[0]!r}", f"Use one of {', '.join(STYLES)}")
        for plot in section.plots:
            if plot.kind not in PLOTS:
                raise OneXNError(plot.title, f"unknown kind of plot {plot.kind!r}", f"Use one of {', '.join(PLOTS)}")
            missing = {*plot.y, plot.x, plot.series, plot.mark} - {""} - keys
            if missing:
                raise OneXNError(plot.title, f"its section's table has no column {sorted(missing)[0]!r}",
                                 f"Use one of {', '.join(sorted(keys))}")


def write_text(path: str | Path, text: str) -> Path:
    """Write text to `path`: whole or not at all. Raises OneXNError where that cannot be."""
    path = check_writable(path)
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")
    return path


def _page(data: dict[str, Any]) -> Page:
    return Page(data["title"], data["summary"], tuple(_section(item) for item in data["sections"]),
                tuple(Highlight(**item) for item in data["highlights"]), data["record"])


def _section(data: dict[str, Any]) -> Section:
    table = data["table"]
    return Section(
        data["heading"], tuple(data["text"]),
        table and Table(tuple(Column(**item) for item in table["columns"]), tuple(table["rows"]), table["transposed"]),
        tuple(Plot(**item | {"y": tuple(item["y"])}) for item in data["plots"]), tuple(data["notes"]),
    )
