"""One real experiment that is cut short of its grid, with a trial that crashes and metrics of every kind."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onexn_plugins.cli import main
from onexn_plugins.nni.experiment import load_experiment, to_page
from onexn_plugins.report import write_html
from tests.nni.experiment import running

PRUNERS = ("Table", "Number", "Crash")


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """(folder, exit code, output, errors): the grid has six points, three of them run."""
    folder = tmp_path_factory.mktemp("experiment")
    return folder, *running.end(running.begin(
        folder, running.config(PRUNERS, (0.5, 0.75)), "--max-trials", "3", "--json", "--timeout", "350"))


def test_the_output_is_json_alone_and_the_file_says_the_same(ended):
    folder, code, out, err = ended
    assert code == 1, err  # one trial crashed
    assert json.loads(out) == running.result(folder)
    assert json.loads(out)["ended"] == "done"


def test_a_short_experiment_lets_every_pruner_meet_the_others(ended):
    trials = running.result(ended[0])["trials"]
    assert [trial["parameters"]["pruner"]["_name"] for trial in trials] == list(PRUNERS)
    assert {trial["parameters"]["sparse_ratio"] for trial in trials} == {0.5}


def test_metrics_of_every_kind_are_kept(ended):
    table, number, crashed = running.result(ended[0])["trials"]
    assert table["reported"]["latency_ms"] == 1.5
    assert number["reported"] == 0.5
    assert table["intermediate"] == number["intermediate"] == [0.25]
    assert crashed["status"] == "FAILED"
    assert crashed["said"] == "crashed on purpose"
    assert Path(crashed["stderr"]).is_file()


def test_trials_run_on_this_python_and_nni_listens_to_this_machine_alone(ended):
    reported = running.result(ended[0])["trials"][0]["reported"]
    assert reported["python"] == sys.executable
    assert reported["listening"]
    assert set(reported["listening"]) == {"127.0.0.1"}


def test_nothing_is_left_running(ended):
    assert running.left_running(ended[0]) == []


def test_the_table_shows_every_column_and_the_crash(ended):
    text = load_experiment(running.directory(ended[0])).table
    header, _, *rows = text.splitlines()
    for column in ("trial", "pruner", "sparse_ratio", "latency_ms", "default", "absent"):
        assert column in header.split()
    assert "1.50 ms" in rows[0]
    assert "Number" in rows[1]
    assert "FAILED: crashed on purpose" in rows[2]


@pytest.mark.parametrize("which", ["folder", "json", "database"])
def test_a_report_is_made_of_a_folder_a_file_or_nnis_own_database(ended, which, tmp_path, capsys):
    folder = running.directory(ended[0])
    if which == "database":
        shutil.copytree(folder, tmp_path, ignore=shutil.ignore_patterns("result.json"), dirs_exist_ok=True)
    what = {"folder": folder, "json": folder / "result.json", "database": tmp_path}[which]
    page = tmp_path / "page.html"
    assert main(["report", str(what), "--output", str(page)]) == 0
    html = page.read_text()
    assert "Accuracy against latency" in html
    assert "crashed on purpose" in html
    assert main(["report", str(what)]) == 0
    assert "1.50 ms" in capsys.readouterr().out


def test_an_experiment_without_a_success_still_makes_a_page(ended, tmp_path, capsys):
    whole = load_experiment(running.directory(ended[0]))
    failed = replace(whole, trials=whole.trials[2:], ended="timeout", reason="time was over")
    assert main(["report", str(failed.save(tmp_path / "result.json"))]) == 0
    assert "It ended early: time was over" in capsys.readouterr().out
    assert not failed.succeeded
    assert "no trial succeeded" in failed.table
    assert "time was over" in write_html(to_page(failed), tmp_path / "page.html").read_text()
