"""An experiment that has run, by its folder, its id or its JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nni.tools.nnictl.config_utils import Experiments

from onexn_plugins.errors import OneXNError
from onexn_plugins.nni.experiment.results import FORMAT, RESULT_FILE, ExperimentResult, Trial, read_trials


def load_experiment(which: str | os.PathLike[str]) -> ExperimentResult:
    """What `run_experiment` left behind; of an experiment that NNI alone has run, what its database holds.

    Args:
        which: an experiment's folder, its id in NNI's list of experiments, or the JSON in its folder.

    Raises:
        OneXNError: there is no such experiment, or its file is damaged.
    """
    path = Path(which).expanduser()
    if path.is_file():
        return _from_json(path)
    folder = path if path.is_dir() else _folder_of(str(which))
    if (folder / RESULT_FILE).is_file():
        return _from_json(folder / RESULT_FILE)
    if not (folder / "db" / "nni.sqlite").is_file():
        raise OneXNError(str(folder), "holds no NNI experiment",
                         f"Give the folder of one experiment, with its {RESULT_FILE} or NNI's db in it")
    return ExperimentResult(folder.name, folder.name, str(folder), "unknown", "", read_trials(folder))


def _folder_of(name: str) -> Path:
    known: dict[str, Any] = Experiments().get_all_experiments()
    if name not in known:
        raise OneXNError(name, "is no file, no folder and no id in NNI's list of experiments",
                         "Give the folder of the experiment, or its result.json")
    return Path(known[name]["logDir"]) / name


def _from_json(path: Path) -> ExperimentResult:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}")
        trials = tuple(Trial(**item | {"intermediate": tuple(item["intermediate"])}) for item in data.pop("trials"))
        return ExperimentResult(**data, trials=trials)
    except OSError as error:
        raise OneXNError(str(path), f"cannot be read: {error.strerror}", "Check the path") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise OneXNError(str(path), f"is not the result of an experiment: {error}",
                         f"Give the {RESULT_FILE} that onexn experiment wrote") from error
