"""An experiment as a table and as a page: every column that its trials reported, and accuracy against latency."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from onexn_plugins.nni.experiment.results import ExperimentResult, Trial, finite
from onexn_plugins.report import Column, Page, Plot, Section, Table, to_text
from onexn_plugins.report.cells import Cell

DEFAULT = "default"  # NNI's name of the number that its tuners maximise
# How a reported quantity is written: by the end of its name, most telling first.
STYLES = (("_ms", "milliseconds"), ("accuracy", "percent"), ("_zero", "percent"), ("zero_weights", "percent"),
          ("zero_blocks", "percent"), ("_bytes", "megabytes"), ("macs", "millions"), ("seconds", "seconds"))
GROUPS = ("pruner", "method", "score")
WIDEST = 60  # characters of a cell; result.json has the whole text
LATENCIES = ("latency_ms", "onnxruntime_ms")


def to_table(result: ExperimentResult) -> Table | None:
    """Succeeded trials, one row each; None where there is none."""
    rows = [_row(trial) for trial in result.trials if trial.succeeded]
    if not rows:
        return None
    keys = list(dict.fromkeys(key for row in rows for key in row))
    # First what was chosen, in words, then the numbers; each in the order the trials report them.
    words = [key for key in keys if all(not isinstance(row.get(key), (int, float)) for row in rows)]
    ordered = ["trial", *[key for key in words if key != "trial"], *[key for key in keys if key not in words]]
    return Table(tuple(Column(key, key, _style(key, rows)) for key in ordered), tuple(rows))


def to_table_text(result: ExperimentResult) -> str:
    """For a terminal: the table, and below it what did not succeed."""
    table = to_table(result)
    parts = [to_text(table)] if table else ["no trial succeeded"]
    notes = [*_failures(result.trials), *([f"the experiment ended early: {result.reason}"] if result.reason else [])]
    return "\n".join([*parts, *notes])


def to_page(result: ExperimentResult) -> Page:
    """The whole experiment, for `onexn_plugins.report.write_html`."""
    table = to_table(result)
    done = sum(trial.succeeded for trial in result.trials)
    summary = f"{done} of {len(result.trials)} trials of the NNI experiment {result.id} succeeded."
    if result.reason:
        summary += f" It ended early: {result.reason}."
    sections = [Section("Trials", table=table, plots=_plots(table) if table else (), notes=tuple(
        _failures(result.trials)))]
    return Page(result.name, summary, tuple(sections),
                record={"experiment": result.id, "ended": result.ended} | dict(finite(result.record)))


def _row(trial: Trial) -> dict[str, Cell]:
    """What it reported, and the parameters that made it where it does not say them itself."""
    reported = dict(trial.reported) if isinstance(trial.reported, Mapping) else {DEFAULT: trial.reported}
    if reported.keys() == {"value"}:
        reported = {DEFAULT: reported["value"]}
    row: dict[str, Cell] = {"trial": trial.id}
    for key, value in flat(trial.parameters).items():
        if key not in reported:
            row[key] = _cell(value)
    told = {"reported trial" if key == "trial" else str(key): _cell(value) for key, value in flat(reported).items()}
    return row | told


def flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings in one: {"pruner": {"_name": "A", "block_size": 4}} as pruner and block_size."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and "__nni_type__" in value:
            result[key] = str(value["__nni_type__"]).rpartition(".")[2]
        elif isinstance(value, Mapping):
            inner = dict(value)
            if "_name" in inner:
                result[f"{above}{key}"] = inner.pop("_name")
            for name, item in flat(inner).items():
                result[name if name not in values and name not in result else f"{key}.{name}"] = item
        else:
            result[f"{above}{key}"] = value
    return result


def _cell(value: Any) -> Cell:
    value = finite(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= WIDEST else f"{text[:WIDEST - 1]}…"


def _style(key: str, rows: Sequence[Mapping[str, Cell]]) -> str:
    values = [row[key] for row in rows if row.get(key) is not None]
    if any(isinstance(value, (str, bool)) for value in values):
        return "yes_no" if all(isinstance(value, bool) for value in values) else "text"
    style = next((style for ending, style in STYLES if key.endswith(ending)), None)
    fractions = all(0 <= float(value) <= 1 for value in values)  # type: ignore[arg-type]
    if style == "percent" and not fractions:
        style = None
    if style is None:
        return "count" if all(isinstance(value, int) for value in values) else "number"
    return style


def _plots(table: Table) -> tuple[Plot, ...]:
    """Accuracy against latency, where the trials report both; else nothing is there to draw."""
    keys = [column.key for column in table.columns]
    latency = next((key for key in LATENCIES if key in keys), None)
    accuracy = next((key for key in ("accuracy", DEFAULT) if key in keys), None)
    if latency is None or accuracy is None:
        return ()
    group = next((key for key in GROUPS if key in keys), "")
    mark = next((key for key in ("sparse_ratio", "ratio", "block_size") if key in keys), "")
    return (Plot("points", "Accuracy against latency", (accuracy,), latency, group, mark,
                 caption="Up and to the left is better."),)


def _failures(trials: Sequence[Trial]) -> list[str]:
    """One line per trial that did not succeed; only files that exist are named."""
    lines = []
    for trial in trials:
        if trial.succeeded:
            continue
        status = "SUCCEEDED, but reported nothing" if trial.status == "SUCCEEDED" else trial.status
        said = f": {trial.said}" if trial.said else ""
        lines.append(f"trial {trial.id}: {status}{said}" + (f" (see {trial.stderr})" if trial.stderr else ""))
    return lines
