"""The keys of an experiment's configuration: one that NNI does not have is named, with the one that was meant."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import nni.experiment.config as nni_config

from onexn_plugins.errors import OneXNError

ALGORITHMS = ("tuner", "assessor", "advisor")
PLATFORMS = ("local", "remote", "openpai", "aml", "dlc", "kubeflow", "frameworkcontroller")


def check_keys(name: str, data: Mapping[Any, Any]) -> None:
    """Raise OneXNError for a key that NNI does not have, in the experiment or in one of its parts.

    Args:
        name: of the configuration, for the message.
        data: what the file holds; NNI takes keys in any case, with underscores or not.
    """
    _check(name, data, nni_config.ExperimentConfig, "NNI's experiments have")
    for kind in ALGORITHMS:
        algorithm = _said(data, kind)
        if isinstance(algorithm, Mapping):
            _check(f"{name}: {kind}", algorithm, nni_config.CustomAlgorithmConfig, f"NNI's {kind}s have")
        elif algorithm is not None:
            raise OneXNError(f"{name}: {kind}", f"must be a mapping, got {algorithm!r}",
                             f"For example {kind}: {{name: {algorithm}}}" if isinstance(algorithm, str)
                             else "Write name and classArgs, or className and codeDirectory of your own")
    services = _said(data, "trainingService")
    for service in services if isinstance(services, list) and services else [services]:
        _check_service(f"{name}: trainingService", service)


def _check_service(where: str, service: Any) -> None:
    if not isinstance(service, Mapping):
        raise OneXNError(where, f"must be a mapping with a platform, got {service!r}", "For example {platform: local}")
    platform = _said(service, "platform")
    if platform not in PLATFORMS:
        raise OneXNError(where, f"unknown platform {platform!r}", f"Use one of {', '.join(PLATFORMS)}")
    _check(where, service, type(nni_config.utils.training_service_config_factory(platform)), f"{platform} has")
    machines = _said(service, "machineList")
    for machine in machines if isinstance(machines, list) else []:
        if isinstance(machine, Mapping):
            _check(f"{where}.machineList", machine, nni_config.RemoteMachineConfig, "a machine has")


def _check(where: str, data: Mapping[Any, Any], kind: Any, whose: str) -> None:
    """Every key of `data` is a field of NNI's config class `kind`."""
    known = {_plain(field.name): nni_config.utils.camel_case(field.name)
             for field in nni_config.utils.fields(kind.__new__(kind))}
    for key in data:
        if _plain(str(key)) not in known:
            close = difflib.get_close_matches(str(key), known.values(), n=1)
            raise OneXNError(where, f"{whose} no key {key!r}",
                             f"Did you mean {close[0]}" if close else f"Known are: {', '.join(known.values())}")


def _said(data: Mapping[Any, Any], key: str) -> Any:
    return next((value for said, value in data.items() if _plain(str(said)) == _plain(key)), None)


def _plain(key: str) -> str:
    return nni_config.utils.case_insensitive(key)
