"""integrations/nni as a real local experiment, at small size."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
INTEGRATION = ROOT / "integrations" / "nni"


@pytest.fixture
def environment(tmp_path):
    """NNI keeps its registry of experiments in the home directory."""
    return os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ONEXN_EPOCHS": "1"}


def run(environment, *arguments):
    return subprocess.run([sys.executable, str(INTEGRATION / "run.py"), *map(str, arguments)],
                          env=environment, capture_output=True, text=True, timeout=540, check=False)


def test_an_experiment_chooses_among_the_pruners_and_a_failed_trial_is_noticed(tmp_path, environment):
    config = yaml.safe_load((INTEGRATION / "experiment.yaml").read_text())
    pruners = config["searchSpace"]["pruner"]["_value"]
    assert [pruner["_name"] for pruner in pruners] == ["OneXNPruner", "L1NormPruner", "LevelPruner"]
    pruners[0]["block_size"]["_value"] = [4, 64]  # 64 is refused by the pruner: that trial dies early
    config["searchSpace"]["sparse_ratio"]["_value"] = [0.75]
    config["trialCodeDirectory"] = str(INTEGRATION)
    small = tmp_path / "experiment.yaml"
    small.write_text(yaml.safe_dump(config))
    results = tmp_path / "results.json"
    process = run(environment, "--config", small, "--directory", tmp_path / "experiments", "--json", results,
                  "--timeout", 480)
    assert process.returncode == 1, process.stdout + process.stderr

    trials = json.loads(results.read_text())
    assert sorted(trial["status"] for trial in trials) == ["FAILED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]
    failed = [trial for trial in trials if trial["status"] == "FAILED"]
    assert failed[0]["reported"] is None
    assert f"trial {failed[0]['id']}: FAILED" in process.stdout
    assert "got 64" in (Path(failed[0]["directory"]) / "trial.stderr").read_text()
    ran = {trial["reported"]["pruner"]: trial["reported"] for trial in trials if trial["reported"]}
    assert set(ran) == {"OneXNPruner", "L1NormPruner", "LevelPruner"}
    assert ran["OneXNPruner"]["block_size"] == 4
    for reported in ran.values():
        assert reported["sparse_ratio"] == 0.75
        assert reported["zero_weights"] == pytest.approx(0.75, abs=0.01)
        assert 0.0 < reported["default"] <= 1.0
        assert reported["dense_accuracy"] == ran["OneXNPruner"]["dense_accuracy"]  # trained equally
        assert f"{reported['default']:.3f}" in process.stdout

    registry = json.loads((tmp_path / "nni-experiments" / ".experiment").read_text())
    assert len(registry) >= 1
    for experiment in registry.values():
        assert not psutil.pid_exists(experiment["pid"]), "the experiment was not stopped"


@pytest.fixture(scope="module")
def runner():
    spec = importlib.util.spec_from_file_location("integration_run", INTEGRATION / "run.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_table_lists_failed_trials_apart(runner):
    reported = {"pruner": "LevelPruner", "block_size": None, "sparse_ratio": 0.5, "zero_weights": 0.5,
                "dense_accuracy": 0.98, "default": 0.97}
    text = runner.table([runner.Trial("a", "SUCCEEDED", "/a", reported), runner.Trial("b", "FAILED", "/b", None),
                         runner.Trial("c", "SUCCEEDED", "/c", None)])
    lines = text.splitlines()
    assert lines[0].split() == list(runner.COLUMNS)
    assert lines[1].split() == ["LevelPruner", "-", "0.500", "0.500", "0.980", "0.970"]
    assert lines[2:] == ["trial b: FAILED, see /b/trial.stderr", "trial c: SUCCEEDED, see /c/trial.stderr"]


def test_trials_run_on_this_python_from_the_integrations_directory(runner, tmp_path):
    config = runner.load_config(INTEGRATION / "experiment.yaml", tmp_path, 2)
    assert config.trial_command == f'"{sys.executable}" trial.py'
    assert config.max_trial_number == 2
    canonical = config.canonical_copy()
    assert Path(canonical.trial_code_directory) == INTEGRATION
    assert Path(canonical.experiment_working_directory) == tmp_path
