"""An experiment's configuration, read and checked before anything starts."""

from __future__ import annotations

import difflib
import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nni.experiment.config as nni_config
import yaml
from nni.experiment import ExperimentConfig
from nni.tools.package_utils import config_manager

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.nni.experiment.search_space import check_space, check_tuner_takes

PLATFORMS = ("local", "remote", "openpai", "aml", "dlc", "kubeflow", "frameworkcontroller")
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
        config.experiment_working_directory = str(Path(directory).expanduser().resolve())
    _check_algorithms(name, config)
    canonical = _canonical(name, config)
    _check_search(canonical)
    services = canonical.training_service
    platform = "hybrid" if isinstance(services, list) else services.platform
    if platform == "local":
        _check_code_directory(name, canonical)
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
                         "Give the path of the experiment's YAML file")
    path = Path(source)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise OneXNError(str(path), f"cannot be read: {error.strerror}", "Check the path of the experiment") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or first_line(error)
        raise OneXNError(str(path), f"is not valid YAML{place}: {problem}", "Mend the file") from error
    if not isinstance(data, dict):
        raise OneXNError(str(path), "does not hold an experiment", "It must map keys such as searchSpace to values")
    return str(path), _build(str(path), data, path.resolve().parent)


def _build(name: str, data: dict[str, Any], base: Path) -> ExperimentConfig:
    _check_keys(name, data)
    nni_config.utils.set_base_path(base)  # relative paths are relative to the file
    try:
        return ExperimentConfig(**data)
    except Exception as error:
        raise OneXNError(name, first_line(error), "See NNI's page on the experiment's configuration") from error
    finally:
        nni_config.utils.unset_base_path()


def _check_keys(name: str, data: Mapping[str, Any]) -> None:
    known = {_plain(field.name): nni_config.utils.camel_case(field.name)
             for field in nni_config.utils.fields(ExperimentConfig.__new__(ExperimentConfig))}
    for key in data:
        if _plain(str(key)) not in known:
            close = difflib.get_close_matches(str(key), known.values(), n=1)
            raise OneXNError(name, f"NNI's experiments have no key {key!r}",
                             f"Did you mean {close[0]}" if close else f"Known are: {', '.join(known.values())}")
    services = data.get("trainingService", data.get("training_service"))
    for service in services if isinstance(services, list) else [services]:
        platform = service.get("platform") if isinstance(service, Mapping) else service
        if platform not in PLATFORMS:
            raise OneXNError(f"{name}: trainingService", f"unknown platform {platform!r}",
                             f"Use one of {', '.join(PLATFORMS)}")


def _check_algorithms(name: str, config: ExperimentConfig) -> None:
    for kind in ("tuner", "assessor", "advisor"):
        algorithm = getattr(config, kind)
        if algorithm is None or nni_config.utils.is_missing(algorithm):
            continue
        if isinstance(algorithm, dict):
            raise OneXNError(f"{name}: {kind}", f"cannot be understood: {algorithm!r}",
                             "Write name and classArgs, or className and codeDirectory of your own")
        if algorithm.class_name is None and algorithm.name != "_none_":
            kinds = ("assessor",) if kind == "assessor" else ("tuner", "advisor")
            names = [meta.name for meta in config_manager.get_all_algo_meta() if meta.algo_type in kinds]
            if str(algorithm.name).lower() not in [known.lower() for known in names]:
                close = difflib.get_close_matches(str(algorithm.name), names, n=1)
                raise OneXNError(f"{name}: {kind}", f"NNI has no {kind} {algorithm.name!r}",
                                 f"Did you mean {close[0]}" if close else f"Use one of {', '.join(names)}")


def _canonical(name: str, config: ExperimentConfig) -> ExperimentConfig:
    """With defaults filled in and paths absolute."""
    try:
        return config.canonical_copy()
    except AssertionError as error:
        raise OneXNError(name, f"a value is out of range ({first_line(error)})",
                         "trialConcurrency, maxTrialNumber and durations must be positive") from error
    except Exception as error:
        raise OneXNError(name, first_line(error), "See NNI's page on the experiment's configuration") from error


def _check_search(config: ExperimentConfig) -> None:
    check_space(config.search_space)
    if config.tuner.name is not None:
        check_tuner_takes(config.search_space, config.tuner.name, config.tuner.class_args)


def _check_code_directory(name: str, config: ExperimentConfig) -> None:
    folder = Path(config.trial_code_directory)
    if not folder.is_dir():
        raise OneXNError(f"{name}: trialCodeDirectory", f"there is no folder {folder}",
                         "It is relative to the file it stands in")
    words = _words(config.trial_command)
    if not words:
        raise OneXNError(f"{name}: trialCommand", "is empty", "For example python trial.py")
    if "=" not in words[0] and shutil.which(words[0], path=f"{os.environ.get('PATH', '')}:{folder}") is None:
        raise OneXNError(f"{name}: trialCommand", f"there is no program {words[0]!r}", "Check its name and PATH")
    scripts = [word for word in words[1:2] if word.endswith(".py")]
    if scripts and not (folder / scripts[0]).is_file():
        raise OneXNError(f"{name}: trialCommand", f"there is no file {folder / scripts[0]}", "Check trialCodeDirectory")


def _run_here(config: ExperimentConfig, canonical: ExperimentConfig) -> None:
    """Trials of this machine run on this very Python, environment activated or not."""
    words = _words(canonical.trial_command)
    if words[0] in ("python", "python3"):
        rest = canonical.trial_command.strip()[len(words[0]):]
        config.trial_command = shlex.quote(sys.executable) + rest
        if not nni_config.utils.is_missing(config.training_service.trial_command):
            config.training_service.trial_command = config.trial_command


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # a shell may read more than shlex does
        return command.split()


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


def _plain(key: str) -> str:
    return nni_config.utils.case_insensitive(key)
