"""Numbers out of a table's cells."""

from __future__ import annotations

from onexn_plugins.report.cells import Cell, number


def value(cell: Cell) -> float:
    """The number in a cell that was measured.

    Errors:
        ValueError: it holds none.
    """
    found = number(cell)
    if found is None:
        raise ValueError(f"{cell!r} is no number")
    return found
