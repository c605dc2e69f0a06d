"""An experiment's configuration, read and checked before anything starts."""

from __future__ import annotations

import os
import re
import shutil
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nni.experiment.config as nni_config
from nni.experiment import ExperimentConfig

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.nni.experiment.algorithms import check_algorithms, check_made
from onexn_plugins.nni.experiment.command import check_command, on_this_python
from onexn_plugins.nni.experiment.keys import check_keys
from onexn_plugins.nni.experiment.search_space import check_space
from onexn_plugins.nni.experiment.yaml_files import read_yaml

SPREAD_GRID = {"className": "spread_grid.SpreadGridSearch", "codeDirectory": str(Path(__file__).parent)}
SMALLEST_DISK = 64 * 2**20  # NNI's own logs and database of a short experiment take about 2 MB


@dataclass(frozen=True)
class Checked:
    """A configuration that can be started.

    Attributes:
        config: NNI's own, complete.
        directory: where NNI keeps its experiments; an absolute path.
        platform: where trials run, "local" or another machine's service.
        only_here: nothing outside this machine has to reach NNI's manager.
    """

    config: ExperimentConfig
    directory: Path
    platform: str
    only_here: bool


def read_config(source: Any, *, directory: str | os.PathLike[str] | None = None,
                max_trials: int | None = None) -> Checked:
    """Check everything that NNI would only stumble over after its start.

    Args:
        source: the path of a YAML (or JSON) file, the mapping such a file holds, or an nni ExperimentConfig.
        directory: where experiments are kept, in place of the file's experimentWorkingDirectory.
        max_trials: in place of the file's maxTrialNumber. Where a grid holds more points, its pruners take turns.

    Raises:
        OneXNError: the file cannot be read, or something in it cannot be run as written.
    """
    name, config = _load(source)
    if max_trials is not None:
        if isinstance(max_trials, bool) or not isinstance(max_trials, int) or max_trials < 1:
            raise OneXNError("max_trials", f"must be a positive integer, got {max_trials!r}", "Leave it out for all")
        config.max_trial_number = max_trials
    if directory is not None:
        if not isinstance(directory, (str, os.PathLike)) or "\0" in str(directory):
            raise OneXNError("directory", f"must be the path of a folder, got {directory!r}",
                             "Leave it out for NNI's own")
        config.experiment_working_directory = str(Path(directory).expanduser().resolve())
    check_algorithms(name, config)
    _check_parts(name, config)
    canonical = _canonical(name, config)
    check_space(canonical.search_space)
    check_made(canonical)
    services = canonical.training_service
    platform = "hybrid" if isinstance(services, list) else services.platform
    if platform == "local":
        check_command(name, canonical.trial_command, Path(canonical.trial_code_directory))
        _run_here(config, canonical)
    if _grid_is_cut(canonical):
        config.tuner = nni_config.CustomAlgorithmConfig(**SPREAD_GRID)
    folder = Path(canonical.experiment_working_directory)
    _check_directory(folder)
    return Checked(config, folder, platform, _only_here(platform, services))


def _load(source: Any) -> tuple[str, ExperimentConfig]:
    """(what to call it in messages, NNI's config)."""
    if isinstance(source, ExperimentConfig):
        return "config", source
    if isinstance(source, Mapping):
        return "config", _build("config", dict(source), Path.cwd())
    if not isinstance(source, (str, os.PathLike)):
        raise OneXNError("config", f"must be a file, a mapping or an ExperimentConfig, got {type(source).__name__}",
                         "Give the path of the experiment's YAML file, or the config of an nni Experiment")
    data = read_yaml(Path(source))
    if not isinstance(data, dict):
        raise OneXNError(str(source), "does not hold an experiment", "It must map keys such as searchSpace to values")
    return str(source), _build(str(source), data, Path(source).resolve().parent)


def _build(name: str, data: dict[str, Any], base: Path) -> ExperimentConfig:
    check_keys(name, data)
    nni_config.utils.set_base_path(base)  # relative paths are relative to the file
    try:
        return ExperimentConfig(**data)
    except Exception as error:
        raise OneXNError(name, first_line(error), "See NNI's page on the experiment's configuration") from error
    finally:
        nni_config.utils.unset_base_path()


def _check_parts(name: str, config: ExperimentConfig) -> None:
    """What NNI would take one of two of without a word, or stumble over."""
    if config.search_space is not None and config.search_space_file is not None:
        raise OneXNError(name, "has a searchSpace and a searchSpaceFile", "Keep one of them")
    if isinstance(config.search_space_file, (str, os.PathLike)):
        read_yaml(Path(config._base_path, Path(config.search_space_file).expanduser()))
    services = config.training_service
    for service in services if isinstance(services, list) and services else [services]:
        if not hasattr(service, "platform"):
            raise OneXNError(f"{name}: trainingService", "is missing" if nni_config.utils.is_missing(service) else
                             f"must be a config of NNI's, got {service!r}", 'For example ExperimentConfig("local")')
    if isinstance(services, list) and config.nni_manager_ip is None:
        raise OneXNError(name, "trains by several services, whose machines have to reach this one",
                         "Add nniManagerIp, an address of this machine")


def _canonical(name: str, config: ExperimentConfig) -> ExperimentConfig:
    """With defaults filled in and paths absolute."""
    try:
        return config.canonical_copy()
    except AssertionError as error:  # most of NNI's have no message, but their line says it
        line = (traceback.extract_tb(error.__traceback__)[-1].line or "").removeprefix("assert ")
        asked = re.sub(r"self\.(\w+)", lambda found: nni_config.utils.camel_case(found[1]), line)
        raise OneXNError(name, f"does not hold what NNI asks for: {asked or first_line(error)}",
                         "Mend that value") from error
    except Exception as error:
        raise OneXNError(name, first_line(error), "See NNI's page on the experiment's configuration") from error


def _run_here(config: ExperimentConfig, canonical: ExperimentConfig) -> None:
    """Trials of this machine run on this very Python, environment activated or not."""
    config.trial_command = on_this_python(canonical.trial_command)
    if not nni_config.utils.is_missing(config.training_service.trial_command):
        config.training_service.trial_command = config.trial_command


def _grid_is_cut(config: ExperimentConfig) -> bool:
    if config.max_trial_number is None or str(config.tuner.name).lower() != "gridsearch":
        return False
    return config.max_trial_number < _points(config.search_space)


def _points(space: Mapping[str, Any]) -> float:
    """How many points a grid holds; infinitely many where a parameter is no choice."""
    points = 1.0
    for name, spec in space.items():
        if name == "_name":
            continue
        if spec["_type"] != "choice":
            return float("inf")
        points *= sum(_points(value) if isinstance(value, Mapping) and "_name" in value else 1
                      for value in spec["_value"])
    return points


def _check_directory(folder: Path) -> None:
    """It exists, can be written and has room; NNI says neither."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise OneXNError(str(folder), f"cannot hold experiments: {error.strerror}",
                         "Choose another directory") from error
    if not os.access(folder, os.W_OK):
        raise OneXNError(str(folder), "cannot be written", "Choose another directory")
    if free < SMALLEST_DISK:
        raise OneXNError(str(folder), f"the disk is full: {free / 2**20:.0f} MB are free",
                         "Make room or choose another directory")


def _only_here(platform: str, services: Any) -> bool:
    """Trials of this machine, also over SSH to itself, reach the manager on the loopback address."""
    if platform == "local":
        return True
    machines = getattr(services, "machine_list", None) or []
    return platform == "remote" and bool(machines) and all(
        machine.host in ("localhost", "127.0.0.1", "::1") for machine in machines)
