"""The database and the logs of an experiment read without one running."""

from __future__ import annotations

import json
import sqlite3

import pytest

from onexn_plugins.cli import main
from onexn_plugins.errors import OneXNError
from onexn_plugins.nni.experiment import ExperimentResult, Trial, load_experiment, to_page
from onexn_plugins.nni.experiment.logs import disk_is_full, last_words
from onexn_plugins.nni.experiment.page import flat
from onexn_plugins.nni.experiment.results import read_trials
from onexn_plugins.nni.experiment.watching import _finished


@pytest.fixture
def folder(tmp_path):
    """As NNI lays an experiment out, with a database whose trials are added by hand."""
    (tmp_path / "db").mkdir()
    (tmp_path / "log").mkdir()
    database = sqlite3.connect(tmp_path / "db" / "nni.sqlite")
    database.execute("create table TrialJobEvent (timestamp integer, trialJobId text, event text, data text, logPath "
                     "text, sequenceId integer, message text, environmentId text)")
    database.execute("create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, "
                     "sequence integer, data text)")
    database.commit()
    yield tmp_path
    database.close()


def write(folder, events, metrics) -> None:
    with sqlite3.connect(folder / "db" / "nni.sqlite") as database:
        for time, (trial, event, parameter, value, sequence) in enumerate(events):
            data = None if parameter is None else json.dumps({"parameter_id": parameter, "parameters": {"x": value}})
            database.execute("insert into TrialJobEvent values (?,?,?,?,?,?,?,?)",
                             (time, trial, event, data, "", sequence, None, None))
        for time, (trial, parameter, kind, data) in enumerate(metrics):
            database.execute("insert into MetricData values (?,?,?,?,?,?)", (time, trial, parameter, kind, 0, data))


def test_parameters_are_those_that_made_the_metric(folder):
    """NNI hands parameters to whichever trial asks first: here a and b have changed places."""
    write(folder, [("a", "WAITING", 0, "zero", 0), ("b", "WAITING", 1, "one", 1), ("a", "SUCCEEDED", None, None, 0),
                   ("b", "SUCCEEDED", None, None, 1)],
          [("a", "1", "FINAL", '"0.5"'), ("b", "0", "FINAL", json.dumps(json.dumps({"default": 0.25})))])
    first, second = read_trials(folder)
    assert (first.id, first.parameters, first.reported) == ("a", {"x": "one"}, 0.5)
    assert (second.id, second.parameters, second.reported) == ("b", {"x": "zero"}, {"default": 0.25})


def test_what_did_not_finish_is_stopped_when_the_experiment_is_over(folder):
    write(folder, [("a", "WAITING", 0, 1, 0), ("a", "RUNNING", None, None, 0), ("b", "WAITING", 1, 2, 1)], [])
    assert [trial.status for trial in read_trials(folder)] == ["STOPPED", "STOPPED"]
    assert [trial.status for trial in read_trials(folder, over=False)] == ["RUNNING", "WAITING"]


def test_what_was_cancelled_before_the_end_was_killed(folder):
    write(folder, [(name, "WAITING", number, 1, number) for number, name in enumerate("ab")]
          + [(name, "USER_CANCELED", None, None, None) for name in "ab"], [])
    assert [trial.status for trial in read_trials(folder)] == ["STOPPED", "STOPPED"]
    killed, stopped = read_trials(folder, killed=["a"])
    assert (killed.status, stopped.status) == ("FAILED", "STOPPED")
    assert "it was killed" in killed.said


def test_metrics_of_any_shape_stand_in_a_table_of_single_lines(folder):
    reported = ["good", [0.1, 0.2], True, {}, [], {"default": "high"}, {"default": None}, {"trial": "mine"},
                {"a": {"b": {"c": 1}}}, {"text": "two\nlines"}, {"text": "x" * 5000}, 3, float("inf")]
    trials = tuple(Trial(f"t{index}", "SUCCEEDED", value) for index, value in enumerate(reported))
    result = ExperimentResult("i", "n", str(folder), "done", "", trials)
    header, _, *rows = result.table.splitlines()
    assert [row.split()[0] for row in rows] == [trial.id for trial in trials]
    assert {"default", "text", "c"} <= set(header.split())
    assert "two lines" in result.table
    assert "mine" in result.table
    assert max(map(len, rows)) < 250
    to_page(result)


def test_a_damaged_database_is_refused_by_name(folder):
    (folder / "db" / "nni.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(OneXNError, match=r"nni\.sqlite"):
        read_trials(folder)


def test_numbers_that_json_does_not_have_are_written(folder, tmp_path):
    result = ExperimentResult("i", "n", str(folder), "done", "", (Trial("a", "SUCCEEDED", {"default": float("nan")}),))
    path = result.save(tmp_path / "result.json")
    assert load_experiment(path).trials[0].reported == {"default": "nan"}
    assert "nan" in result.table
    to_page(result)


@pytest.mark.parametrize("damage", [lambda text: text[:20], lambda text: "[]", lambda text: text.replace("/1", "/9"),
                                    lambda text: text.replace('"trials"', '"trails"')])
def test_a_damaged_result_is_refused_by_name(folder, damage, capsys):
    path = ExperimentResult("i", "n", str(folder), "done", "", ()).save(folder / "result.json")
    path.write_text(damage(path.read_text()))
    assert main(["report", str(folder)]) == 2
    assert "result.json" in capsys.readouterr().err


@pytest.mark.parametrize("which", ["no-such-id", "folder"])
def test_what_is_no_experiment_is_refused_by_name(tmp_path, which, capsys):
    what = str(tmp_path) if which == "folder" else which
    assert main(["report", what]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize(("file", "line"), [
    ("log/nnimanager.log", "Error: ENOSPC: no space left on device, write"),
    ("log/nnictl_stderr.log", "OSError: [Errno 28] No space left on device"),
    ("environments/local-env/trials/a/trial.stderr", "OSError: [Errno 28] No space left on device"),
    ("log/nnimanager.log", "SQLITE_FULL: database or disk is full")])
def test_a_full_disk_is_named_as_that(folder, file, line):
    assert not disk_is_full(folder)
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(f"before\n{line}\n")
    assert disk_is_full(folder)
    assert "disk is full" in last_words(folder)


def test_the_last_words_are_those_of_the_tuners_traceback(folder):
    (folder / "log" / "nnimanager.log").write_text("INFO all is well\n")
    (folder / "log" / "dispatcher.log").write_text(
        "INFO begins\nTraceback (most recent call last):\n  File x\nKeyError: ('pruner', 1)\n")
    assert last_words(folder).endswith("KeyError: ('pruner', 1)")
    assert last_words(folder).startswith("dispatcher.log")


def test_what_the_log_says_in_passing_is_no_last_word(folder):
    (folder / "log" / "dispatcher.log").write_text(
        "[2026-01-01 00:00:00] ERROR (nni.main/MainThread) it broke\nTraceback (most recent call last):\n"
        "RuntimeError: Incorrect final result\n[2026-01-01 00:00:01] INFO (nni.main/MainThread) Exiting...\n")
    assert last_words(folder).endswith("RuntimeError: Incorrect final result")


def test_an_experiment_is_not_over_before_the_last_trials_have_begun(folder):
    """NNI says that the tuner has no more at once where more trials may run than there are."""
    done, running = (Trial(status, status) for status in ("SUCCEEDED", "RUNNING"))
    no_more = "TUNER_NO_MORE_TRIAL"
    assert not _finished(no_more, (), folder)
    line = "[2026-01-01 00:00:00] INFO (NNIManager) NNIManager received command from dispatcher: TR, {}\n"
    (folder / "log" / "nnimanager.log").write_text(line * 2)
    assert not _finished(no_more, (done,), folder)
    assert not _finished(no_more, (done, running), folder)
    assert _finished(no_more, (done, done), folder)
    assert not _finished("RUNNING", (done, done), folder)
    assert _finished("DONE", (), folder)


def test_nested_parameters_become_columns():
    assert flat({"pruner": {"_name": "A", "block_size": 4}, "ratio": 0.5}) == {
        "pruner": "A", "block_size": 4, "ratio": 0.5}
    assert flat({"pruner": {"__nni_type__": "path:a.b.C"}, "x": {"y": {"z": 1}}}) == {"pruner": "C", "z": 1}
    assert flat({"a": {"n": 1}, "b": {"n": 2}}) == {"n": 1, "b.n": 2}
