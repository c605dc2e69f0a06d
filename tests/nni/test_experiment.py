"""integrations/nni as a real local experiment, at small size."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import yaml

from tests.nni.experiment import running

INTEGRATION = running.ROOT / "integrations" / "nni"


def test_an_experiment_chooses_among_the_pruners_and_a_failed_trial_is_noticed(tmp_path, monkeypatch):
    config = yaml.safe_load((INTEGRATION / "experiment.yaml").read_text())
    pruners = config["searchSpace"]["pruner"]["_value"]
    assert [pruner["_name"] for pruner in pruners] == ["OneXNPruner", "L1NormPruner", "LevelPruner"]
    pruners[0]["block_size"]["_value"] = [4, 64]  # 64 is refused by the pruner: that trial dies early
    config["searchSpace"]["sparse_ratio"]["_value"] = [0.75]
    config["trialCodeDirectory"] = str(INTEGRATION)
    monkeypatch.setenv("ONEXN_EPOCHS", "1")
    code, out, err = running.end(running.begin(tmp_path, config, "--timeout", "480"), 500)
    assert code == 1, out + err

    trials = running.result(tmp_path)["trials"]
    assert sorted(trial["status"] for trial in trials) == ["FAILED", "SUCCEEDED", "SUCCEEDED", "SUCCEEDED"]
    [failed] = [trial for trial in trials if trial["status"] == "FAILED"]
    assert failed["reported"] is None
    assert failed["intermediate"] == [], "it trained before it looked at its parameters"
    assert "64" in failed["said"]
    assert f"trial {failed['id']}: FAILED" in out
    ran = {trial["reported"]["pruner"]: trial for trial in trials if trial["reported"]}
    assert set(ran) == {"OneXNPruner", "L1NormPruner", "LevelPruner"}
    assert ran["OneXNPruner"]["reported"]["block_size"] == 4
    for trial in ran.values():
        reported = trial["reported"]
        assert reported["sparse_ratio"] == 0.75
        assert reported["macs"] < 0.5 * reported["dense_macs"]
        assert reported["max_error"] < 1e-3
        assert reported["latency_ms"] > 0
        assert reported["onnxruntime_ms"] > 0
        assert trial["intermediate"][-1] == reported["default"]
        assert reported["dense_accuracy"] == ran["OneXNPruner"]["reported"]["dense_accuracy"]  # trained equally
    for name in ("OneXNPruner", "LevelPruner"):
        assert ran[name]["reported"]["zero_weights"] == pytest.approx(0.75, abs=0.01)
    cut = ran["L1NormPruner"]["reported"]
    assert cut["cut_by"] == "ModelSpeedup"
    assert cut["parameters"] < cut["dense_parameters"]
    assert running.left_running(tmp_path) == []


def test_the_trial_runs_by_itself(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(running.ROOT), "OMP_NUM_THREADS": "1", "ONEXN_EPOCHS": "1"}
    done = subprocess.run([sys.executable, str(INTEGRATION / "trial.py")], env=environment, cwd=tmp_path,
                          capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "'pruner': 'OneXNPruner'" in done.stdout
