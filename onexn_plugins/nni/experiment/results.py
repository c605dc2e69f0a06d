"""What the trials of an experiment reported, read from NNI's own database: it outlives a manager that was killed.

NNI may show one trial's parameters beside another trial's result. A final metric names the parameters that made it,
and so parameters are joined by that.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from onexn_plugins.errors import OneXNError
from onexn_plugins.files import check_writable, written_aside
from onexn_plugins.nni.experiment.logs import tail

FORMAT = "onexn-experiment/1"
RESULT_FILE = "result.json"
UNFINISHED = ("WAITING", "RUNNING", "UNKNOWN")
CANCELLED = ("USER_CANCELED", "SYS_CANCELED")
NOT_DONE = "STOPPED"  # what a trial is that had not finished when its experiment ended
KILLED = ("it was killed: by a signal, as the kernel does where memory runs out, after maxTrialDuration, "
          "or on NNI's page")


@dataclass(frozen=True)
class Trial:
    """One trial.

    Attributes:
        id, status: NNI's; SUCCEEDED, FAILED, ..., or STOPPED where its experiment ended first.
        reported: its final metric, whatever it is: a number, a dict, ...; None if it reported nothing.
        parameters: those that the final metric belongs to; where there is none, those NNI lists for the trial.
        intermediate: its intermediate metrics, in order.
        stderr: the file with what it wrote there; None where there is none on this machine.
        said: the last line of that file, for a trial that failed.
    """

    id: str
    status: str
    reported: Any = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    intermediate: tuple[Any, ...] = ()
    stderr: str | None = None
    said: str | None = None

    @property
    def succeeded(self) -> bool:
        return self.status == "SUCCEEDED" and self.reported is not None


@dataclass(frozen=True)
class ExperimentResult:
    """An experiment that is over.

    Attributes:
        id, name: NNI's id, and the name in its configuration.
        directory: where its logs, trials and this result are.
        ended: "done", "timeout", "failed", the signal that ended it, "SIGINT" for one, or "killed", where the process
            that ran it left without a word.
        reason: what went wrong; empty if "done".
        trials: in the order they were started.
        record: when and how long it ran, versions, what was tried.
    """

    id: str
    name: str
    directory: str
    ended: str
    reason: str
    trials: tuple[Trial, ...]
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def succeeded(self) -> bool:
        """It came to its end, and so did each of its trials."""
        return self.ended == "done" and bool(self.trials) and all(trial.succeeded for trial in self.trials)

    @property
    def table(self) -> str:
        """Succeeded trials in columns, the others by id below."""
        from onexn_plugins.nni.experiment.page import to_table_text

        return to_table_text(self)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"format": FORMAT} | finite(asdict(self))

    def save(self, path: str | Path) -> Path:
        """Write JSON: whole or not at all. Raises OneXNError where that cannot be."""
        path = check_writable(path)
        with written_aside(path) as aside:
            aside.write_text(json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return path


def write_down(told: str) -> Path:
    """The result of an experiment whose owner was killed, from all of `ExperimentResult` but the trials, as JSON."""
    known = json.loads(told)
    return ExperimentResult(**known, trials=read_trials(Path(known["directory"]))).save(
        Path(known["directory"]) / RESULT_FILE)


def read_trials(directory: Path, *, over: bool = True, killed: Collection[str] = ()) -> tuple[Trial, ...]:
    """The trials of the experiment in this directory; none before its first.

    Args:
        directory: of one experiment, as NNI made it.
        over: nothing runs any more, so that what has not finished never will.
        killed: trials that NNI called cancelled before anybody ended the experiment, which means a signal.

    Raises:
        OneXNError: NNI's database is there but cannot be read.
    """
    file = directory / "db" / "nni.sqlite"
    if not file.is_file():
        return ()
    try:
        connection = sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True, timeout=10)
        try:
            events = connection.execute("select trialJobId, event, data, sequenceId from TrialJobEvent "
                                        "order by timestamp, rowid").fetchall()
            metrics = connection.execute("select trialJobId, parameterId, type, data from MetricData "
                                         "order by timestamp, rowid").fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        if "no such table" in str(error):  # NNI has only just made the file
            return ()
        raise OneXNError(str(file), f"cannot be read: {error}", "Is it the database of an NNI experiment") from error
    return _joined(events, metrics, directory, over, killed)


def _joined(events: list[Any], metrics: list[Any], directory: Path, over: bool,
            killed: Collection[str]) -> tuple[Trial, ...]:
    status: dict[str, str] = {}
    order: dict[str, int] = {}
    listed: dict[str, dict[str, Any]] = {}
    by_parameter_id: dict[str, dict[str, Any]] = {}
    for trial, event, data, sequence in events:
        if event not in ("ADD_HYPERPARAMETER", "IMPORT_DATA"):
            status[trial] = event
        if sequence is not None:
            order.setdefault(trial, sequence)
        parameters = _json(data)
        if isinstance(parameters, dict) and "parameters" in parameters:
            listed.setdefault(trial, parameters["parameters"] or {})
            by_parameter_id[str(parameters.get("parameter_id"))] = parameters["parameters"] or {}
    final = {trial: (_value(data), str(parameter)) for trial, parameter, kind, data in metrics if kind == "FINAL"}
    steps: dict[str, list[Any]] = {}
    for trial, _, kind, data in metrics:
        if kind == "PERIODICAL":
            steps.setdefault(trial, []).append(_value(data))
    trials = []
    for trial in sorted(status, key=lambda trial: order.get(trial, len(order))):
        reported, parameter = final.get(trial, (None, ""))
        state = status[trial]
        if trial in killed:
            state = "FAILED"
        elif over and state in (*UNFINISHED, *CANCELLED):
            state = NOT_DONE
        found = _trial(trial, state, reported, by_parameter_id.get(parameter, listed.get(trial, {})),
                       tuple(steps.get(trial, ())), directory)
        trials.append(replace(found, said=KILLED) if trial in killed else found)
    return tuple(trials)


def _trial(name: str, status: str, reported: Any, parameters: dict[str, Any], intermediate: tuple[Any, ...],
           directory: Path) -> Trial:
    stderr = next(iter(sorted(directory.glob(f"**/{name}/*stderr"))), None)
    said = None
    if stderr is not None and status == "FAILED":
        said = next((line.strip() for line in reversed(tail(stderr)) if line.strip()), None)
    return Trial(name, status, reported, parameters, intermediate, None if stderr is None else str(stderr), said)


def _value(data: str) -> Any:
    """A metric; NNI keeps JSON, often inside a JSON string."""
    value = _json(data)
    return _json(value) if isinstance(value, str) else value


def _json(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text


def finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
