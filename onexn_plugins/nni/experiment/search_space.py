"""A search space checked before NNI sees it: NNI's tuner dies of a bad one, and NNI goes on saying RUNNING."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from typing import Any

import nni
from nni.common.hpo_utils.validation import common_search_space_types, validate_search_space

from onexn_plugins.errors import OneXNError, first_line


def check_space(space: Any, where: str = "searchSpace") -> None:
    """Raise OneXNError for a parameter that no tuner of NNI can take: nothing to choose from, an unknown _type."""
    if not isinstance(space, Mapping):
        raise OneXNError(where, f"must be a mapping of parameters, got {type(space).__name__}",
                         "For example sparse_ratio: {_type: choice, _value: [0.5, 0.75]}")
    if not any(key != "_name" for key in space) and where == "searchSpace":
        raise OneXNError(where, "is empty, so there is nothing to try", "Name at least one parameter with its _values")
    for name, spec in space.items():
        if name != "_name":
            _check_parameter(spec, f"{where}.{name}")


def _check_parameter(spec: Any, where: str) -> None:
    if not isinstance(spec, Mapping) or "_type" not in spec or "_value" not in spec:
        raise OneXNError(where, f"needs _type and _value, got {spec!r}",
                         "For example {_type: choice, _value: [4, 16]}; a fixed value is a choice of one")
    kind, values = spec["_type"], spec["_value"]
    if kind not in common_search_space_types:
        close = difflib.get_close_matches(str(kind), common_search_space_types, n=1)
        raise OneXNError(where, f"unknown _type {kind!r}",
                         f"Did you mean {close[0]}" if close else f"Use {', '.join(common_search_space_types)}")
    if not isinstance(values, list) or not values:
        raise OneXNError(where, f"_value must be a list with something in it, got {values!r}",
                         "List what to choose from")
    if any(isinstance(value, float) and not math.isfinite(value) for value in values):
        raise OneXNError(where, f"_value has a number that is none: {values!r}", "Use finite numbers")
    if kind != "choice":
        _check_range(kind, values, where)
        return
    nested = [value for value in values if isinstance(value, Mapping) and "_name" in value]
    if nested and len(nested) != len(values):
        raise OneXNError(where, "mixes choices with and without _name", "Give every one a _name")
    for value in values:
        misspelt = [key for key in value if str(key).startswith("_") and key not in ("_name", "__nni_type__")] if (
            isinstance(value, Mapping)) else []
        if misspelt:
            raise OneXNError(where, f"a choice has the key {misspelt[0]!r}", "NNI knows _name and __nni_type__ there")
        if isinstance(value, Mapping) and "_name" in value:
            check_space(value, f"{where}.{value['_name']}")
        elif isinstance(value, Mapping) and "__nni_type__" in value:
            _check_type_path(value, where)


def _check_range(kind: str, values: list[Any], where: str) -> None:
    """A distribution's limits or moments, and its step."""
    text = next((value for value in values if isinstance(value, str)), None)
    if text is not None:
        raise OneXNError(where, f"_value has text where {kind} needs numbers: {text!r}",
                         "Leave out quotes, and write 1.0e-4 for 1e-4, which YAML takes for text")
    try:
        validate_search_space({where: {"_type": kind, "_value": values}}, raise_exception=True)
    except (ValueError, TypeError) as error:
        raise OneXNError(where, first_line(error), "See NNI's page on search spaces") from error
    if kind.startswith("q") and not values[2] > 0:
        raise OneXNError(where, f"its step q must be positive, got {values[2]!r}", "Use for example 0.1")


def _check_type_path(value: Mapping[str, Any], where: str) -> None:
    """NNI imports the class inside its tuner, which dies where that fails."""
    try:
        nni.load(json.dumps(dict(value)))
    except Exception as error:
        raise OneXNError(where, f"{value['__nni_type__']!r} cannot be imported: {first_line(error)}",
                         "Write path:PACKAGE.MODULE.CLASS of something that is installed") from error
