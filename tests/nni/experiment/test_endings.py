"""However an experiment ends, its finished trials are kept and nothing of it is left running."""

from __future__ import annotations

import contextlib
import signal
import sqlite3
import sys
import time

import psutil
import pytest

from tests.nni.experiment import running

# The first trial succeeds, the second one sleeps until it is ended.
SETTINGS = running.config(("Table", "Slow"))


def wait_for_the_second_trial(folder, process) -> None:
    while process.poll() is None:
        for file in folder.glob("experiments/*/db/nni.sqlite"):
            with contextlib.suppress(sqlite3.Error), sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True) as database:
                if database.execute("select count(*) from TrialJobEvent where event = 'RUNNING'").fetchone() == (2,):
                    return
        time.sleep(0.5)


def assert_kept(folder, ended: str, others: tuple[str, ...] = ("STOPPED",)) -> dict:
    found = running.result(folder)
    assert found["ended"] == ended, found
    assert found["trials"][0]["status"] == "SUCCEEDED"
    assert found["trials"][0]["reported"]["default"] == 0.75
    assert all(trial["status"] in others for trial in found["trials"][1:])
    assert running.left_running(folder) == []
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(tmp_path, number):
    process = running.begin(tmp_path, SETTINGS)
    wait_for_the_second_trial(tmp_path, process)
    process.send_signal(number)
    code, out, err = running.end(process)
    assert code == 128 + number, err
    assert "0.750" in out
    assert_kept(tmp_path, signal.Signals(number).name)


@pytest.mark.parametrize(("part", "mark"), [("manager died of SIGKILL", "main.js"), ("tuner died", "--exp_params")])
def test_a_killed_part_is_noticed(tmp_path, part, mark):
    process = running.begin(tmp_path, SETTINGS)
    wait_for_the_second_trial(tmp_path, process)
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if mark in " ".join(child.cmdline()):
                child.kill()
    code, out, err = running.end(process)
    assert code == 2, err
    assert f"NNI's {part}" in out
    assert_kept(tmp_path, "failed")


def test_a_killed_owner_leaves_nothing_running_and_its_trials_are_kept(tmp_path):
    process = running.begin(tmp_path, SETTINGS)
    wait_for_the_second_trial(tmp_path, process)
    process.kill()  # no handler runs, no finally
    process.communicate()
    deadline = time.monotonic() + 150
    while running.left_running(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert "was killed" in assert_kept(tmp_path, "killed")["reason"]


def test_a_tuner_that_dies_is_noticed_with_the_reason_in_its_log(tmp_path):
    tuner = {"className": "dying_tuner.DyingTuner", "codeDirectory": str(running.HERE)}
    code, out, err = running.end(running.begin(tmp_path, running.config(("Table",), tuner=tuner)))
    assert code == 2, err
    assert "no third suggestion" in out
    assert "no third suggestion" in assert_kept(tmp_path, "failed", ("STOPPED", "SUCCEEDED"))["reason"]


def test_a_tuner_that_cannot_be_made_is_not_tried_again(tmp_path):
    tuner = {"className": "dying_tuner.DyingTuner", "codeDirectory": str(running.HERE), "classArgs": {"pace": 3}}
    code, out, err = running.end(running.begin(tmp_path, running.config(("Table",), tuner=tuner)))
    assert (code, out) == (2, "")
    assert "unexpected keyword argument 'pace'" in err.splitlines()[-1]
    assert "trying again" not in err
    assert running.left_running(tmp_path) == []


def test_a_killed_trial_is_told_from_a_stopped_one(tmp_path):
    """Beside it: more trials may run at once than there are, NNI is found on an address of one's own too, and `python`
    is this one anywhere in a command."""
    settings = running.config(("Table", "Killed"), trialCommand="cd . && python trial.py", trialConcurrency=4)
    code, out, err = running.end(running.begin(tmp_path, settings, "--listen", "127.0.0.2", "--timeout", "300"))
    assert code == 1, out + err
    trials = {trial["status"]: trial for trial in running.result(tmp_path)["trials"]}
    table, killed = trials["SUCCEEDED"], trials["FAILED"]
    assert set(table["reported"]["listening"]) == {"127.0.0.1", "127.0.0.2"}
    assert table["reported"]["python"] == sys.executable
    assert "it was killed" in killed["said"]
    assert f"trial {killed['id']}: FAILED: it was killed" in out
    assert running.left_running(tmp_path) == []


def test_a_tuner_that_is_slow_to_start_is_waited_for(tmp_path):
    tuner = {"className": "slow_tuner.SlowTuner", "codeDirectory": str(running.HERE)}
    settings = running.config(("Table",), tuner=tuner, maxTrialNumber=1)
    code, _, err = running.end(running.begin(tmp_path, settings))
    assert code == 0, err
    assert "trying again" not in err
    assert running.result(tmp_path)["trials"][0]["status"] == "SUCCEEDED"


def test_time_is_over(tmp_path):
    code, out, err = running.end(running.begin(tmp_path, running.config(("Slow",)), "--timeout", "15"))
    assert code == 2, err
    assert "no trial succeeded" in out
    assert running.result(tmp_path)["ended"] == "timeout"
    assert running.left_running(tmp_path) == []
