"""What cannot run is refused before anything starts, and by name."""

from __future__ import annotations

import shlex
import sys
from collections import namedtuple
from pathlib import Path

import nni
import pytest
import yaml
from nni.experiment import ExperimentConfig

from onexn_plugins.cli import main
from onexn_plugins.errors import OneXNError
from onexn_plugins.nni.experiment import config as config_module
from onexn_plugins.nni.experiment.config import read_config
from onexn_plugins.nni.experiment.spread_grid import SpreadGridSearch
from tests.nni.experiment.running import config


def choice(*values):
    return {"_type": "choice", "_value": list(values)}


NESTED = {"pruner": choice({"_name": "OneXNPruner"}, {"_name": "AGP", "inner": choice(
    {"_name": "OneXNPruner", "block_size": choice(4, 8)}, {"_name": "L1NormPruner"})})}

BAD = {
    "unknown key": ({"trialConcurency": 2}, "Did you mean trialConcurrency"),
    "no tuner": ({"tuner": None}, "tuner must be set"),
    "unknown tuner": ({"tuner": {"name": "GridSerch"}}, "Did you mean GridSearch"),
    "tuner's arguments": ({"tuner": {"name": "TPE", "classArgs": {"optimise_mode": "maximize"}}}, "TPE"),
    "unknown platform": ({"trainingService": {"platform": "locale"}}, "unknown platform 'locale'"),
    "no training service": ({"trainingService": None}, "unknown platform None"),
    "missing folder": ({"trialCodeDirectory": "/no/such/folder"}, "/no/such/folder"),
    "missing script": ({"trialCommand": "python absent.py"}, "absent.py"),
    "missing program": ({"trialCommand": "no-such-program x"}, "no-such-program"),
    "no command": ({"trialCommand": None}, "trial"),
    "no concurrency": ({"trialConcurrency": 0}, "must be positive"),
    "duration": ({"maxExperimentDuration": "soon"}, "soon"),
    "empty space": ({"searchSpace": {}}, "is empty"),
    "no space": ({"searchSpace": None}, "search"),
    "space is a list": ({"searchSpace": [1]}, "must be a mapping"),
    "empty choice": ({"searchSpace": {"pruner": choice()}}, "searchSpace.pruner"),
    "misspelt type": ({"searchSpace": {"ratio": {"_type": "choise", "_value": [1]}}}, "Did you mean choice"),
    "no type": ({"searchSpace": {"ratio": [0.5, 0.75]}}, "needs _type and _value"),
    "range": ({"searchSpace": {"ratio": {"_type": "uniform", "_value": [0.9, 0.5]}}}, "searchSpace.ratio"),
    "mixed names": ({"searchSpace": {"pruner": choice({"_name": "a"}, "b")}}, "mixes choices"),
    "bad inside a choice": ({"searchSpace": {"pruner": choice({"_name": "a", "n": choice()})}}, "pruner.a.n"),
    "nested for TPE": ({"searchSpace": NESTED, "tuner": {"name": "TPE"}}, "TPE loses its way"),
    "nested for a grid": ({"searchSpace": NESTED}, "GridSearch loses its way"),
    "a tuner that needs more": ({"tuner": {"name": "Anneal"}}, "needs hyperopt"),
    "type path": ({"searchSpace": {"pruner": choice({"__nni_type__": "path:onexn_plugins.nni.NoSuch"})}}, "NoSuch"),
}


@pytest.mark.parametrize("name", BAD)
def test_it_is_refused_with_exit_code_2_before_anything_starts(name, tmp_path, capsys):
    changes, message = BAD[name]
    file = tmp_path / "experiment.yaml"
    settings = {key: value for key, value in (config(("Table",)) | changes).items() if value is not None}
    file.write_text(yaml.safe_dump(settings))
    kept = tmp_path / "experiments"
    assert main(["experiment", str(file), "--directory", str(kept)]) == 2
    captured = capsys.readouterr()
    assert message in captured.err.splitlines()[-1]
    assert captured.out == ""
    assert not kept.exists() or not list(kept.iterdir())


@pytest.mark.parametrize(("text", "message"), [
    ("trialConcurrency: [1\nmaxTrialNumber: 2\n", "is not valid YAML in line 2"),
    ("- 1\n", "does not hold an experiment"), ("", "does not hold an experiment"), ("a: \x00", "is not valid YAML")])
def test_a_file_that_is_no_experiment_is_refused_by_name(tmp_path, text, message):
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    with pytest.raises(OneXNError, match=message) as caught:
        read_config(file)
    assert caught.value.layer == str(file)


@pytest.mark.parametrize("source", [Path("absent.yaml"), Path("/"), 7, None])
def test_what_is_no_file_is_refused(source):
    with pytest.raises(OneXNError):
        read_config(source)


@pytest.mark.parametrize("arguments", [["--max-trials", "0"], ["--timeout", "-1"], ["--port", "80"]])
def test_bad_options_are_refused(tmp_path, arguments, capsys):
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(config(("Table",))))
    assert main(["experiment", str(file), "--directory", str(tmp_path / "kept"), *arguments]) == 2
    assert arguments[0].strip("-").replace("-", "_") in capsys.readouterr().err


def test_what_nni_takes_is_taken(tmp_path):
    spaces = [
        {"ratio": {"_type": "uniform", "_value": [0.1, 0.9]}, "n": {"_type": "randint", "_value": [1, 5]}},
        {"pruner": choice({"_name": "a", "n": choice(4, 8)}, {"_name": "b"}), "x": choice(True, "text", 1.5)},
        {"pruner": choice({"__nni_type__": "path:onexn_plugins.nni.OneXNPruner"})},
    ]
    for space in spaces:
        for tuner in ("TPE", "GridSearch", "Random", "gridsearch"):
            read_config(config((), searchSpace=space, tuner={"name": tuner}), directory=tmp_path)
    read_config(config((), searchSpace=NESTED, tuner={"name": "Evolution", "classArgs": {"population_size": 8}}),
                directory=tmp_path)
    made = ExperimentConfig(**config(("Table",)))
    assert read_config(made, directory=tmp_path).config is made


@pytest.mark.parametrize("word", ["python", "python3"])
def test_a_python_of_this_machine_is_this_python(tmp_path, word):
    checked = read_config(config(("Table",), trialCommand=f"{word} trial.py --a 'b c' | cat"), directory=tmp_path)
    assert checked.config.trial_command == f"{shlex.quote(sys.executable)} trial.py --a 'b c' | cat"
    assert checked.only_here


@pytest.mark.parametrize(("host", "only_here"), [("127.0.0.1", True), ("192.0.2.7", False)])
def test_a_command_of_another_machine_is_never_changed(tmp_path, host, only_here):
    machine = {"host": host, "user": "someone", "password": "-"}
    checked = read_config(config(("Table",), trialCommand="python trial.py", trainingService={
        "platform": "remote", "machineList": [machine]}), directory=tmp_path)
    assert checked.config.trial_command == "python trial.py"
    assert checked.platform == "remote"
    assert checked.only_here is only_here


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(config_module.shutil, "disk_usage", lambda folder: usage(10, 10, 0))
    with pytest.raises(OneXNError, match="the disk is full"):
        read_config(config(("Table",)), directory=tmp_path)


def points(tuner, count: int):
    found = []
    for index in range(count):
        try:
            found.append(tuner.generate_parameters(index))
        except nni.NoMoreTrialError:
            break
    return found


def test_the_spread_grid_holds_the_same_points_and_pruners_meet_at_equal_settings():
    space = {"pruner": choice({"_name": "A", "n": choice(4, 8)}, {"_name": "B"}, {"_name": "C"}),
             "ratio": choice(0.5, 0.75)}
    spread, plain = SpreadGridSearch(), SpreadGridSearch.__base__()
    for tuner in (spread, plain):
        tuner.update_search_space(space)
    ours, theirs = points(spread, 99), points(plain, 99)
    assert sorted(map(str, ours)) == sorted(map(str, theirs))
    assert [point["pruner"]["_name"] for point in ours[:6]] == list("ABCABC")
    assert [point["ratio"] for point in ours[:6]] == [0.5] * 3 + [0.75] * 3


def test_the_spread_grid_divides_ranges_as_nnis_does():
    space = {"ratio": {"_type": "uniform", "_value": [0.0, 1.0]}, "pruner": choice("A", "B")}
    spread, plain = SpreadGridSearch(), SpreadGridSearch.__base__()
    for tuner in (spread, plain):
        tuner.update_search_space(space)
    assert sorted(map(str, points(spread, 14))) == sorted(map(str, points(plain, 14)))


def test_a_grid_is_spread_only_where_it_is_cut(tmp_path):
    assert read_config(config(("A", "B")), directory=tmp_path).config.tuner.name == "GridSearch"
    cut = read_config(config(("A", "B")), directory=tmp_path, max_trials=1).config
    assert cut.tuner.class_name == "spread_grid.SpreadGridSearch"
    assert (Path(cut.tuner.code_directory) / "spread_grid.py").is_file()
