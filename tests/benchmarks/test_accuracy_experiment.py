"""The grid as a real NNI experiment on this machine: one run that is done, one that fails, and what is left to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy import experiment
from benchmarks.accuracy.attempt import Place
from benchmarks.accuracy.experiment import ROOT, Service, keep, read_service, run_grid, trial_command
from benchmarks.accuracy.networks import CLASSES, mobilenet_v2_small
from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.run import start_weights
from onexn_plugins.cli.common import save_weights
from onexn_plugins.errors import OneXNError
from onexn_plugins.nni.experiment import ExperimentResult, Trial
from onexn_plugins.progress import Progress

DONE, BROKEN = Row(method="block_l1", pruning_ratio=0.9), Row(method="block_l1", pruning_ratio=0.9, rearrange="swap")


@pytest.fixture
def place(tmp_path) -> Place:
    """Images enough for one step, a start, and a state of one run that cannot be read."""
    random = np.random.default_rng(0)
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for part, count in (("train", 13), ("test", 1)):
            for name in (f"{part}/{label}/{number}.png" for label in range(CLASSES) for number in range(count)):
                with archive.open(name, "w") as file:
                    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(file, "png")
    place = Place(tmp_path / "images.zip", tmp_path / "results", tmp_path / "work")
    place.results.mkdir()
    save_weights(mobilenet_v2_small(), start_weights(place.results, DONE))
    (place.work / BROKEN.name).mkdir(parents=True)
    (place.work / BROKEN.name / "last.ckpt").write_bytes(b"half a file")
    return place


def test_nnis_local_service_does_the_runs_that_are_missing(tmp_path, place):
    command = [sys.executable, "-m", "benchmarks.accuracy", "experiment", "--data", str(place.data), "--results",
               str(place.results), "--work", str(place.work), "--only", "block_l1-1x4", "--directory",
               str(tmp_path / "nni")]
    names = [row.name for row in experiment.grid() if "block_l1-1x4" in row.name]
    for name in set(names) - {DONE.name, BROKEN.name}:  # as if they were done
        (place.results / f"{name}.json").write_text("{}")
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 of 2 runs are done" in done.stdout
    assert "FAILED: benchmarks.accuracy: " in done.stdout
    assert "last.ckpt: cannot be read as the state of a run" in done.stdout
    values = json.loads((place.results / f"{DONE.name}.json").read_text())
    assert (values["row"], values["held_out_images"]) == (DONE.to_dict(), CLASSES)
    assert not list(place.results.glob("*.claim"))


def test_what_other_machines_report_is_kept_and_not_asked_for_again(monkeypatch, place):
    reported = {"default": 0.5, "run": {"row": DONE.to_dict(), "top1": 0.5}}
    asked = []

    def finished(settings, **options):
        asked.append(settings["searchSpace"]["row"]["_value"])
        return ExperimentResult("id", "accuracy", "folder", "done", "", (
            Trial("a", "SUCCEEDED", {"default": 0.5}, {"row": DONE.name}, (0.1, reported)),
            Trial("b", "FAILED", None, {"row": BROKEN.name}, said="no room")))

    monkeypatch.setattr("onexn_plugins.nni.run_experiment", finished)
    service = Service({"platform": "remote"}, Path("/home/trials/onexn"), "/opt/python", 4)
    for left in ([DONE.name, BROKEN.name], [BROKEN.name]):
        assert run_grid([DONE, BROKEN], place, service, 1, None, Progress()) == 1
        assert asked[-1] == left
    assert json.loads((place.results / f"{DONE.name}.json").read_text()) == reported["run"]
    keep({**reported, "run": {**reported["run"], "top1": 0.9}}, place.results)
    assert json.loads((place.results / f"{DONE.name}.json").read_text())["top1"] == 0.5, "what is there stays"
    command = trial_command(place, service, 2)
    assert command.startswith("PYTHONPATH=/home/trials/onexn OMP_NUM_THREADS=2 /opt/python -m benchmarks.accuracy ")


def test_a_trial_reports_the_whole_run(monkeypatch, place):
    values, said = {"row": DONE.to_dict(), "top1": 0.5, "seconds": 3.0}, []
    monkeypatch.setattr("nni.get_next_parameter", lambda: {"row": DONE.name})
    monkeypatch.setattr("nni.report_intermediate_result", said.append)
    monkeypatch.setattr("nni.report_final_result", said.append)
    monkeypatch.setattr(experiment, "attempt", lambda row, place, progress: values if row == DONE else None)
    assert experiment.run_trial(place, Progress()) == 0
    assert said == [{"default": 0.5, "run": values}, {"default": 0.5, "row": DONE.name, "seconds": 3.0}]
    monkeypatch.setattr(experiment, "attempt", lambda row, place, progress: None)
    with pytest.raises(OneXNError, match="another process is at it"):
        experiment.run_trial(place, Progress())
    (place.results / f"{DONE.name}.json").write_text(json.dumps(values))
    assert experiment.run_trial(place, Progress()) == 0, "what is done is reported, not repeated"
    monkeypatch.setattr("nni.get_next_parameter", lambda: {"row": "of another commit"})
    with pytest.raises(OneXNError, match="no run of this checkout's grid"):
        experiment.run_trial(place, Progress())


def test_bad_input_is_refused(tmp_path, place):
    start_weights(place.results, DONE).unlink()
    with pytest.raises(OneXNError, match="its start, mobilenet_v2_small-start-e5-s0, is not there yet"):
        run_grid([DONE], place, Service(read_service(None)), 1, None, Progress())
    with pytest.raises(OneXNError, match="cannot be read"):
        read_service(tmp_path / "nowhere.yaml")
    (tmp_path / "list.yaml").write_text("- platform")
    with pytest.raises(OneXNError, match="holds no trainingService"):
        read_service(tmp_path / "list.yaml")
    (tmp_path / "whole.yaml").write_text("trainingService: {platform: remote}")
    assert read_service(tmp_path / "whole.yaml") == {"platform": "remote"}
