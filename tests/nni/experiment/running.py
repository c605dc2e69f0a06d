"""Real experiments in a process of their own, as `onexn experiment` starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]


def config(pruners: Sequence[str], ratios: Sequence[float] = (0.5,), **changes: Any) -> dict[str, Any]:
    """An experiment over trial.py."""
    return {
        "experimentName": "small",
        "searchSpace": {"pruner": {"_type": "choice", "_value": [{"_name": name} for name in pruners]},
                        "sparse_ratio": {"_type": "choice", "_value": list(ratios)}},
        "trialCommand": "python trial.py", "trialCodeDirectory": str(HERE), "trialConcurrency": 1,
        "maxTrialNumber": 10, "tuner": {"name": "GridSearch"},
        "trainingService": {"platform": "local", "useActiveGpu": False}, **changes,
    }


def begin(folder: Path, settings: Mapping[str, Any], *arguments: str) -> subprocess.Popen[str]:
    """`onexn experiment` with these settings; NNI keeps its list of experiments in the home directory."""
    file = folder / "experiment.yaml"
    file.write_text(yaml.safe_dump(dict(settings)))
    environment = os.environ | {"HOME": str(folder), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", "import sys; from onexn_plugins.cli import main; sys.exit(main())", "experiment",
         str(file), "--directory", str(folder / "experiments"), *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(process: subprocess.Popen[str], seconds: float = 400) -> tuple[int, str, str]:
    """(exit code, output, errors)."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.terminate()  # after a timeout it still has an experiment to end
        process.wait(90)
    return process.returncode, out, err


def result(folder: Path) -> dict[str, Any]:
    """The JSON in the folder of the one experiment."""
    return json.loads((directory(folder) / "result.json").read_text())


def directory(folder: Path) -> Path:
    """Of the one experiment; NNI puts a link to it beside it."""
    [found] = [path for path in (folder / "experiments").iterdir() if not path.is_symlink()]
    return found


def left_running(folder: Path) -> list[str]:
    """What of the experiments under this home directory still runs."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME") == str(folder):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue
    return found
