"""A table as text cells, for the terminal and as Markdown."""

from __future__ import annotations

from onexn_plugins.report.cells import write
from onexn_plugins.report.document import Table

# A row of (value, interval) pairs.
TextRow = list[tuple[str, str]]


def text_rows(table: Table) -> tuple[list[str], list[TextRow]]:
    """(header, body), already transposed where the table asks for it; the first cell of a row names it."""
    rows = [[write(row.get(column.key), column.style) for column in table.columns] for row in table.rows]
    header = [column.title for column in table.columns]
    if not table.transposed:
        return header, rows
    names, quantities = [row[0][0] for row in rows], range(1, len(header))
    body = [[(header[index], ""), *(row[index] for row in rows)] for index in quantities]
    return [header[0], *names], body


def to_text(table: Table) -> str:
    """Aligned columns for a terminal, intervals left out."""
    header, body = text_rows(table)
    lines = [header, *([value for value, _ in row] for row in body)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(header))]
    written = ["  ".join(cell.ljust(width) if index == 0 else cell.rjust(width)
                         for index, (cell, width) in enumerate(zip(line, widths, strict=True))) for line in lines]
    return "\n".join([written[0], "  ".join("─" * width for width in widths), *written[1:]])


def to_markdown(table: Table) -> str:
    """A GitHub table, numbers to the right, intervals in brackets."""
    header, body = text_rows(table)
    cells = [[f"{value} ({interval})" if interval else value for value, interval in row] for row in body]
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |"
                     for line in [header, rule, *cells])
