"""What cannot run is refused before anything starts, and by name."""

from __future__ import annotations

import json
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
from onexn_plugins.nni.experiment.manager import check_listen
from onexn_plugins.nni.experiment.spread_grid import SpreadGridSearch
from tests.nni.experiment.running import config


def choice(*values):
    return {"_type": "choice", "_value": list(values)}


NESTED = {"pruner": choice({"_name": "OneXNPruner"}, {"_name": "AGP", "inner": choice(
    {"_name": "OneXNPruner", "block_size": choice(4, 8)}, {"_name": "L1NormPruner"})})}

BAD = {
    "unknown key": ({"trialConcurency": 2}, "Did you mean trialConcurrency"),
    "no tuner": ({"tuner": None}, "tuner must be set"),
    "unknown key of the service": (
        {"trainingService": {"platform": "local", "useActivGpu": False}}, "Did you mean useActiveGpu"),
    "unknown key of a machine": ({"trainingService": {"platform": "remote", "machineList": [
        {"host": "127.0.0.1", "user": "me", "pasword": "x"}]}}, "Did you mean password"),
    "unknown key of the tuner": ({"tuner": {"name": "TPE", "classArg": {}}}, "Did you mean classArgs"),
    "a tuner's name alone": ({"tuner": "TPE"}, "For example tuner: {name: TPE}"),
    "a list of tuners": ({"tuner": ["TPE"]}, "must be a mapping"),
    "an assessor's name alone": ({"assessor": "Medianstop"}, "For example assessor: {name: Medianstop}"),
    "unknown assessor": ({"assessor": {"name": "Medianstp"}}, "Did you mean Medianstop"),
    "assessor's arguments": ({"assessor": {"name": "Medianstop", "classArgs": {"optimise_mode": 1}}}, "optimise_mode"),
    "assessor's mode": ({"assessor": {"name": "Medianstop", "classArgs": {"optimize_mode": "up"}}}, "optimize_mode"),
    "tuner and advisor": ({"advisor": {"name": "Hyperband"}}, "Write one of them"),
    "own class without a folder": ({"tuner": {"className": "my.Tuner"}}, "needs a codeDirectory"),
    "own class without a module": ({"tuner": {"className": "Tuner", "codeDirectory": "."}}, "names no module"),
    "two classes": ({"tuner": {"name": "TPE", "className": "my.Tuner", "codeDirectory": "."}}, "a name and a class"),
    "NNI's class in a folder": ({"tuner": {"name": "TPE", "codeDirectory": "."}}, "has no codeDirectory"),
    "evolution's arguments": ({"tuner": {"name": "Evolution", "classArgs": {"population_size": "ten"}}}, "Evolution"),
    "a space that Batch cannot take": ({"tuner": {"name": "Batch"}}, "Batch cannot take it"),
    "a space that Metis cannot take": ({"tuner": {"name": "Metis"}}, "Metis cannot take it"),
    "a tuner that is not installed": ({"tuner": {"name": "SMAC"}}, "needs smac"),
    "no platform": ({"trainingService": {}}, "unknown platform None"),
    "a platform alone": ({"trainingService": "local"}, "For example {platform: local}"),
    "a list of platforms": ({"trainingService": ["local"]}, "For example {platform: local}"),
    "no services": ({"trainingService": []}, "must be a mapping"),
    "services without an address": ({"trainingService": [{"platform": "local"}]}, "Add nniManagerIp"),
    "unknown tuner": ({"tuner": {"name": "GridSerch"}}, "Did you mean GridSearch"),
    "tuner's arguments": ({"tuner": {"name": "TPE", "classArgs": {"optimise_mode": "maximize"}}}, "TPE"),
    "unknown platform": ({"trainingService": {"platform": "locale"}}, "unknown platform 'locale'"),
    "no training service": ({"trainingService": None}, "must be a mapping"),
    "missing folder": ({"trialCodeDirectory": "/no/such/folder"}, "/no/such/folder"),
    "missing script": ({"trialCommand": "python absent.py"}, "absent.py"),
    "missing program": ({"trialCommand": "no-such-program x"}, "no-such-program"),
    "missing file of this folder": ({"trialCommand": "./absent.sh"}, "absent.sh"),
    "a program of this folder": ({"trialCommand": "trial.py"}, "there is no program 'trial.py'"),
    "missing script behind a variable": ({"trialCommand": "A=1 B='x y' python absent.py"}, "absent.py"),
    "missing script behind an option": ({"trialCommand": "python -u absent.py"}, "absent.py"),
    "only a variable": ({"trialCommand": "A=1"}, "is empty"),
    "no command": ({"trialCommand": None}, "trial"),
    "no concurrency": ({"trialConcurrency": 0}, "trialConcurrency > 0"),
    "no trials": ({"maxTrialNumber": -1}, "maxTrialNumber > 0"),
    "log level": ({"logLevel": "loud"}, "logLevel in ['fatal'"),
    "duration": ({"maxExperimentDuration": "soon"}, "soon"),
    "empty space": ({"searchSpace": {}}, "is empty"),
    "two spaces": ({"searchSpaceFile": "space.json"}, "Keep one of them"),
    "no file of a space": ({"searchSpace": None, "searchSpaceFile": "absent.json"}, "absent.json: cannot be read"),
    "no space": ({"searchSpace": None}, "search"),
    "space is a list": ({"searchSpace": [1]}, "must be a mapping"),
    "empty choice": ({"searchSpace": {"pruner": choice()}}, "searchSpace.pruner"),
    "misspelt type": ({"searchSpace": {"ratio": {"_type": "choise", "_value": [1]}}}, "Did you mean choice"),
    "no type": ({"searchSpace": {"ratio": [0.5, 0.75]}}, "needs _type and _value"),
    "range": ({"searchSpace": {"ratio": {"_type": "uniform", "_value": [0.9, 0.5]}}}, "searchSpace.ratio"),
    "a range of text": ({"searchSpace": {"rate": {"_type": "loguniform", "_value": ["1e-4", 0.1]}}}, "write 1.0e-4"),
    "no number": ({"searchSpace": {"ratio": {"_type": "uniform", "_value": [0.0, float("inf")]}}}, "finite"),
    "no number to choose": ({"searchSpace": {"ratio": choice(0.5, float("nan"))}}, "finite"),
    "no step": ({"searchSpace": {"ratio": {"_type": "quniform", "_value": [0.5, 0.9]}}}, "3 values"),
    "a step backwards": ({"searchSpace": {"ratio": {"_type": "quniform", "_value": [0.5, 0.9, -0.1]}}}, "positive"),
    "misspelt name": ({"searchSpace": {"pruner": choice({"_nam": "a"}, {"_nam": "b"})}}, "knows _name"),
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
    ("maxTrialNumber: 1\nmaxTrialNumber: 2\n", "in line 2: 'maxTrialNumber' stands there twice"),
    ("a:\n\tb: 1\n", "is not valid YAML in line 2"), ("a: 1\n---\nb: 2\n", "is not valid YAML"),
    ("a: !!python/object/apply:os.getcwd []\n", "is not valid YAML"), ("{\"a\": 1", "is not valid YAML"),
    ("- 1\n", "does not hold an experiment"), ("", "does not hold an experiment"), ("a: \x00", "is not valid YAML")])
def test_a_file_that_is_no_experiment_is_refused_by_name(tmp_path, text, message):
    file = tmp_path / "experiment.yaml"
    file.write_text(text)
    with pytest.raises(OneXNError, match=message) as caught:
        read_config(file)
    assert caught.value.layer == str(file)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    file = tmp_path / "experiment.yaml"
    file.write_bytes("experimentName: a".encode("utf-16"))
    with pytest.raises(OneXNError, match="cannot be read"):
        read_config(file)


@pytest.mark.parametrize(("text", "message"), [
    ("{", "is not valid YAML"), ('{"a": 1, "a": 2}', "'a' stands there twice"),
    ("[1]", "must be a mapping"), ('{"a": {"_type": "choise", "_value": [1]}}', "choice"),
    ('{"a": {"_type": "choice", "_value": [1]}}', None), ("a: {_type: choice, _value: [1]}", None)])
def test_a_search_space_in_a_file_of_its_own(tmp_path, text, message):
    (tmp_path / "space.json").write_text(text)
    file = tmp_path / "experiment.json"
    settings = config(()) | {"searchSpaceFile": "space.json"}
    file.write_text(json.dumps({key: value for key, value in settings.items() if key != "searchSpace"}))
    if message is None:
        assert read_config(file, directory=tmp_path).config.search_space_file == "space.json"
    else:
        with pytest.raises(OneXNError, match=message):
            read_config(file, directory=tmp_path)


@pytest.mark.parametrize("source", [Path("absent.yaml"), Path("/"), 7, None, b"x", [1], "a: 1\n", "a\0b", "x" * 5000])
def test_what_is_no_file_is_refused(source):
    with pytest.raises(OneXNError):
        read_config(source)


@pytest.mark.parametrize("arguments", [
    ["--max-trials", "0"], ["--timeout", "-1"], ["--timeout", "nan"], ["--port", "80"], ["--listen", "192.0.2.77"],
    ["--listen", "999.1.1.1"]])
def test_bad_options_are_refused(tmp_path, arguments, capsys):
    file = tmp_path / "experiment.yaml"
    file.write_text(yaml.safe_dump(config(("Table",))))
    assert main(["experiment", str(file), "--directory", str(tmp_path / "kept"), *arguments]) == 2
    assert arguments[0].strip("-").replace("-", "_") in capsys.readouterr().err


@pytest.mark.parametrize(("change", "message"), [
    ({"tuner": "TPE"}, "cannot be understood"), ({"tuner": {"name": "TPE"}}, "cannot be understood"),
    ({"tuner": None}, "tuner must be set"), ({"training_service": None}, "must be a config of NNI's"),
    ({"training_service": "local"}, "must be a config of NNI's"), ({"search_space": None}, "search_space"),
    ({"search_space": "space.json"}, "must be a mapping"), ({"trial_command": None}, "trial_command"),
    ({"trial_concurrency": "2"}, "trial_concurrency"), ({"max_experiment_duration": "1 hour"}, "Bad unit")])
def test_a_config_made_in_python_is_checked_alike(tmp_path, change, message):
    made = ExperimentConfig(**config(("Table",)))
    for name, value in change.items():
        setattr(made, name, value)
    with pytest.raises(OneXNError, match=message):
        read_config(made, directory=tmp_path)
    with pytest.raises(OneXNError, match="trainingService: is missing"):
        read_config(ExperimentConfig(), directory=tmp_path)


@pytest.mark.parametrize("directory", [5, "a\0b"])
def test_a_directory_that_is_none_is_refused(directory):
    with pytest.raises(OneXNError, match="must be the path of a folder"):
        read_config(config(("Table",)), directory=directory)


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
@pytest.mark.parametrize("before", ["", "OMP_NUM_THREADS=1 ", "A='x y' B=\"python z\" C= "])
def test_a_python_of_this_machine_is_this_python(tmp_path, word, before):
    command = f"{before}{word} trial.py --a 'b c' | cat"
    checked = read_config(config(("Table",), trialCommand=command), directory=tmp_path)
    assert checked.config.trial_command == f"{before}{shlex.quote(sys.executable)} trial.py --a 'b c' | cat"
    assert checked.only_here


@pytest.mark.parametrize("command", ["cd . && python trial.py", "nice python trial.py", "(python trial.py)",
                                     "export A=1; python trial.py", "./python.sh trial.py"])
def test_other_commands_of_a_shell_are_left_as_they_are(tmp_path, command):
    for name in ("python.sh", "trial.py"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    settings = config(("Table",), trialCommand=command, trialCodeDirectory=str(tmp_path))
    assert read_config(settings, directory=tmp_path).config.trial_command == command


@pytest.mark.parametrize(("address", "number"), [("127.0.0.1", "127.0.0.1"), ("0.0.0.0", "0.0.0.0")])
def test_an_address_to_listen_on_is_one_of_this_machine(address, number):
    assert check_listen(address) == number


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
