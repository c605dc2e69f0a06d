"""The missing runs as the trials of one NNI experiment: NNI's services spread them over processes or machines.

Every machine has a checkout of this project with its environment, and the images. What a trial comes to goes back
through NNI as an intermediate metric, so that no folder has to be shared.
"""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.accuracy.attempt import Place, attempt
from benchmarks.accuracy.rows import Row, grid
from onexn_plugins.errors import OneXNError
from onexn_plugins.files import written_aside
from onexn_plugins.progress import Progress

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Service:
    """Where trials run.

    Attributes:
        settings: NNI's trainingService, {"platform": "local"} for processes of this machine.
        checkout, python: of this project and of its environment, on the machines that trials run on.
        concurrency: how many trials at a time.
    """

    settings: dict[str, Any]
    checkout: Path = ROOT
    python: str = sys.executable
    concurrency: int = 1


def read_service(path: Path | None) -> dict[str, Any]:
    """NNI's trainingService from a YAML file; processes of this machine without one."""
    if path is None:
        return {"platform": "local", "useActiveGpu": False}
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise OneXNError(str(path), f"cannot be read: {error}", "Give the YAML of NNI's trainingService") from error
    settings = read.get("trainingService", read) if isinstance(read, dict) else None
    if not isinstance(settings, dict):
        raise OneXNError(str(path), "holds no trainingService", "It maps keys such as platform to values")
    return settings


def run_grid(rows: Sequence[Row], place: Place, service: Service, threads: int, directory: Path | None,
             progress: Progress) -> int:
    """Run the rows that are missing; the same call goes on where it was stopped.

    Returns:
        0 where all are done, 1 where a trial failed or the experiment ended early.

    Raises:
        OneXNError: a start is missing, or the experiment cannot be run.
    """
    from onexn_plugins.nni import run_experiment

    missing = [row for row in rows if not place.is_done(row)]
    if not missing:
        progress.say("nothing is missing")
        return 0
    for row in missing:
        place.check_start(row)
    place.results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as code, progress.stage(f"{len(missing)} runs"):
        (Path(code) / "README").write_text("The trials' code is the checkout's.\n")
        result = run_experiment(
            config([row.name for row in missing], trial_command(place, service, threads), service, Path(code)),
            directory=directory, progress=lambda line: (progress.say if "http" in line else progress.step)(line))
    for trial in result.trials:
        for values in trial.intermediate:
            keep(values, place.results)
        if not trial.succeeded:
            progress.say(f"{trial.status}: {trial.said or trial.parameters.get('row')}")
    left = [row for row in missing if not place.is_done(row)]
    progress.say(f"{len(missing) - len(left)} of {len(missing)} runs are done; {result.directory}")
    return int(bool(left))


def config(names: Sequence[str], command: str, service: Service, code: Path) -> dict[str, Any]:
    """The experiment as NNI takes it: one parameter, tried once with each value."""
    return {"experimentName": "accuracy", "searchSpace": {"row": {"_type": "choice", "_value": list(names)}},
            "trialCommand": command, "trialCodeDirectory": str(code), "trialConcurrency": service.concurrency,
            "maxTrialNumber": len(names), "tuner": {"name": "GridSearch"}, "trainingService": service.settings}


def trial_command(place: Place, service: Service, threads: int) -> str:
    """What runs on a trial's machine. Neither the environment nor the folder travels with it."""
    words = [service.python, "-m", "benchmarks.accuracy", "trial", "--data", str(place.data), "--results",
             str(place.results), "--work", str(place.work), "--threads", str(threads)]
    return f"PYTHONPATH={shlex.quote(str(service.checkout))} OMP_NUM_THREADS={threads} {shlex.join(words)}"


def run_trial(place: Place, progress: Progress) -> int:
    """In a trial: the row that NNI asks for. What it came to is reported whole, its accuracy as the final metric."""
    import nni

    name = nni.get_next_parameter()["row"]
    row = next((row for row in grid() if row.name == name), None)
    if row is None:
        raise OneXNError(name, "is no run of this checkout's grid", "Use the same commit on all machines")
    values = attempt(row, place, progress)
    path = place.results / f"{name}.json"
    if values is None and not path.is_file():
        raise OneXNError(name, "another process is at it", "Start the experiment again when that is done")
    values = values or json.loads(path.read_text(encoding="utf-8"))
    nni.report_intermediate_result({"default": values["top1"], "run": values})
    nni.report_final_result({"default": values["top1"], "row": name, "seconds": values["seconds"]})
    return 0


def keep(reported: Any, results: Path) -> None:
    """A run that a trial reported, as a JSON beside the others, where it is not there already."""
    if not isinstance(reported, dict) or not isinstance(reported.get("run"), dict):
        return
    path = results / f"{Row(**reported['run']['row']).name}.json"
    if not path.is_file():
        with written_aside(path) as aside:
            aside.write_text(json.dumps(reported["run"], indent=1) + "\n", encoding="utf-8")
