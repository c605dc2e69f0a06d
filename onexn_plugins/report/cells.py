"""How one value is written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Cell = str | int | float | bool | None | Mapping[str, float]

MISSING = "–"


def significant(value: float, digits: int = 3) -> str:
    """`value` with at least `digits` significant digits and no exponent: 0.142, 2.81, 31.1, 1284."""
    if value == 0:
        return "0"
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    if whole:
        return f"{value:.{max(0, digits - whole)}f}"
    leading = 0
    while abs(value) * 10 ** (leading + 1) < 1:
        leading += 1
    return f"{value:.{leading + digits}f}"


def scientific(value: float) -> str:
    """1.2e-15 as 1.2×10⁻¹⁵; zero stays 0."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    raised = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{mantissa}×10{raised}"


STYLES: dict[str, Callable[[Any], str]] = {
    "text": str,
    "count": lambda value: f"{value:,}",
    "number": lambda value: significant(value),
    "percent": lambda value: f"{100 * value:.1f} %",
    "ratio": lambda value: f"{100 * value:g} %",
    "milliseconds": lambda value: f"{significant(value)} ms",
    "microseconds": lambda value: f"{significant(value)} µs",
    "seconds": lambda value: f"{value:.1f} s",
    "times": lambda value: f"{value:.2f}×",
    "megabytes": lambda value: f"{significant(value / 1e6)} MB",
    "millions": lambda value: f"{significant(value / 1e6)} M",
    "scientific": scientific,
    "decimal": significant,
    "points": lambda value: f"{value:+.2f}",
    "yes_no": lambda value: "yes" if value else "no",
}


def number(cell: Cell) -> float | None:
    """The value to draw; None where there is none."""
    if isinstance(cell, Mapping):
        return float(cell["value"])
    return float(cell) if isinstance(cell, (int, float)) and not isinstance(cell, bool) else None


def bounds(cell: Cell) -> tuple[float, float] | None:
    """The interval around the value; None where it has none."""
    return (float(cell["low"]), float(cell["high"])) if isinstance(cell, Mapping) else None


def write(cell: Cell, style: str) -> tuple[str, str]:
    """(value, interval) as text; the interval is empty where there is none.

    Text stands as it is in a column of any style, so that a cell can say why it has no number.
    """
    if cell is None:
        return MISSING, ""
    if isinstance(cell, str):
        return cell, ""
    if not isinstance(cell, Mapping):
        return STYLES[style](cell), ""
    low, high = (STYLES[style](cell[end]) for end in ("low", "high"))
    unit = low.rpartition(" ")[2] if " " in low else low.lstrip("0123456789.,+-")
    return STYLES[style](cell["value"]), f"{low.removesuffix(unit).strip()}–{high}"
