"""Plots as inline SVG whose colours are the page's CSS variables, so that they follow light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from onexn_plugins.errors import MissingDependencyError
from onexn_plugins.report.cells import STYLES, Cell, bounds, number, write
from onexn_plugins.report.document import Column, Plot, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Matplotlib knows no CSS variables: it draws in these colours, which `_themed` then gives their real names.
INK, FAINT = "#010101", "#020202"
SERIES = tuple(f"#0303{index:02d}" for index in range(1, 7))
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)"} | {
    color: f"var(--series-{index})" for index, color in enumerate(SERIES, start=1)
}
# Inches; a phone shows the figure at about this width, so that its letters stay readable.
WIDTH, POINTS_HEIGHT, BAR_HEIGHT = 4.6, 3.3, 0.19
LEGEND_COLUMN = 24  # letters
MARKERS = "osD^vP"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "text.parse_math": False, "font.size": 8.5, "text.color": INK, "axes.labelcolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": FAINT, "grid.color": FAINT,
    "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "axes.axisbelow": True,
}


def draw(plot: Plot, table: Table, name: str) -> str:
    """The plot as an <svg> element.

    Args:
        plot: what to draw of `table`.
        table: its section's table.
        name: unique on the page; the ids inside the SVG start with it.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise MissingDependencyError("matplotlib", "report") from error
    with matplotlib.rc_context(_STYLE | {"svg.hashsalt": name}):
        columns = {column.key: column for column in table.columns}
        figure = Figure(layout="constrained")
        (_bars if plot.kind == "bars" else _points)(figure, plot, table, columns)
        text = io.StringIO()
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return _themed(text.getvalue(), name, plot.title)


def _bars(figure: Figure, plot: Plot, table: Table, columns: Mapping[str, Column]) -> None:
    """Horizontal bars: row names stay readable however narrow the screen."""
    rows = [row for row in table.rows if any(number(row.get(key)) is not None for key in plot.y)]
    figure.set_size_inches(WIDTH, 0.85 + BAR_HEIGHT * len(rows) * (len(plot.y) + 0.7))
    axes = figure.add_subplot()
    height = 0.8 / len(plot.y)
    for index, key in enumerate(plot.y):
        drawn = [(place + (index - (len(plot.y) - 1) / 2) * height, row[key]) for place, row in enumerate(rows)
                 if number(row.get(key)) is not None]
        lengths = [number(cell) or 0.0 for _, cell in drawn]
        bars = axes.barh([place for place, _ in drawn], lengths, height * 0.88, color=SERIES[index],
                         label=columns[key].title, xerr=_errors([cell for _, cell in drawn]),
                         error_kw={"ecolor": INK, "elinewidth": 0.7})
        axes.bar_label(bars, [write(cell, columns[key].style)[0] for _, cell in drawn], padding=4, fontsize=7.5)
    named = [columns[key] for key in (table.columns[0].key, plot.mark) if key]
    axes.set_yticks(range(len(rows)), [", ".join(write(row[column.key], column.style)[0] for column in named
                                                 if row.get(column.key) is not None) for row in rows])
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.tick_params(length=0)
    axes.margins(x=0.18)
    axes.grid(axis="x", linewidth=0.6)
    axes.xaxis.set_major_formatter(_tick_writer(columns[plot.y[0]].style))
    if len(plot.y) > 1:
        _legend(figure, [columns[key].title for key in plot.y])


def _points(figure: Figure, plot: Plot, table: Table, columns: Mapping[str, Column]) -> None:
    figure.set_size_inches(WIDTH, POINTS_HEIGHT)
    axes = figure.add_subplot()
    key = plot.y[0]
    for index, (name, rows) in enumerate(_grouped(plot, table).items()):
        color = SERIES[index % len(SERIES)]
        x, y = ([number(row[column]) or 0.0 for row in rows] for column in (plot.x, key))
        axes.errorbar(x, y, xerr=_errors([row[plot.x] for row in rows]), yerr=_errors([row[key] for row in rows]),
                      fmt=MARKERS[index % len(MARKERS)], linestyle="-", linewidth=0.9, elinewidth=0.7, markersize=5.5,
                      color=color, label=name)
        _mark(axes, plot, x, y, rows, columns)
    axes.set_xlabel(columns[plot.x].title)
    axes.set_ylabel(columns[key].title)
    axes.xaxis.set_major_formatter(_tick_writer(columns[plot.x].style))
    axes.yaxis.set_major_formatter(_tick_writer(columns[key].style))
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlim(left=0)
    axes.margins(y=0.12)
    axes.tick_params(length=0)
    axes.grid(linewidth=0.6)
    if plot.series:
        _legend(figure, list(_grouped(plot, table)))


def _legend(figure: Figure, names: list[str]) -> None:
    """Above the axes, two names side by side where both are short."""
    columns = 2 if all(len(name) <= LEGEND_COLUMN for name in names) else 1
    figure.legend(loc="outside upper left", ncols=columns, handlelength=1.3)


def _mark(axes: Axes, plot: Plot, x: list[float], y: list[float], rows: list[Mapping[str, Cell]],
          columns: Mapping[str, Column]) -> None:
    """Write each point's `mark` beside it."""
    for across, up, row in zip(x, y, rows, strict=True):
        if plot.mark and row.get(plot.mark) is not None:
            axes.annotate(write(row[plot.mark], columns[plot.mark].style)[0], (across, up), (5, 4),
                          textcoords="offset points", fontsize=7)


def _grouped(plot: Plot, table: Table) -> dict[str, list[Mapping[str, Cell]]]:
    """Rows that have both numbers, by their series."""
    groups: dict[str, list[Mapping[str, Cell]]] = {}
    for row in table.rows:
        if number(row.get(plot.x)) is not None and number(row.get(plot.y[0])) is not None:
            groups.setdefault(str(row.get(plot.series, "")), []).append(row)
    return groups


def _errors(cells: list[Cell]) -> list[list[float]] | None:
    """Distances down and up to the ends of the intervals; None where no cell has one."""
    ends = [bounds(cell) or (number(cell), number(cell)) for cell in cells]
    if all(bounds(cell) is None for cell in cells):
        return None
    return [[abs((number(cell) or 0.0) - (end[side] or 0.0)) for cell, end in zip(cells, ends, strict=True)]
            for side in (0, 1)]


def _tick_writer(style: str) -> Callable[[float, float], str]:
    """Tick labels without needless digits: "2 ms", not "2.00 ms"."""
    unit = "".join(re.findall(r"[^\d.,]+$", STYLES[style](1.0)))
    scale = {"percent": 100, "ratio": 100, "megabytes": 1e-6, "millions": 1e-6}.get(style, 1)
    return lambda value, _: f"{value * scale:.6g}{unit}"


def _themed(svg: str, name: str, title: str) -> str:
    """Only the <svg> element, in the page's colours, with ids that are unique on the page."""
    svg = svg[svg.index("<svg"):]
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, variable)
    svg = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', rf'<svg viewBox="\1" role="img" aria-label="{_quoted(title)}">',
                 svg, count=1, flags=re.DOTALL)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL).strip()


def _quoted(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\\", "")
