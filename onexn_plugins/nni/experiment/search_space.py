"""A search space checked before NNI sees it: NNI's tuner dies of a bad one, and NNI goes on saying RUNNING."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import nni
from nni.common.hpo_utils.validation import common_search_space_types, validate_search_space
from nni.tools.package_utils.tuner_factory import create_builtin_class_instance

from onexn_plugins.errors import OneXNError, first_line

# How many of the tuner's suggestions are tried out: enough for its random ones to reach every branch of a choice.
REHEARSED = 100
# The tuners of NNI 3.0 that suggest parameters without having seen a result.
REHEARSABLE = ("tpe", "random", "gridsearch", "anneal", "tpe_legacy")
NESTED_ONCE = ("tpe", "random", "gridsearch")


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
    if kind != "choice":
        try:
            validate_search_space({where: dict(spec)}, raise_exception=True)
        except (ValueError, TypeError) as error:
            raise OneXNError(where, first_line(error), "See NNI's page on search spaces") from error
        return
    nested = [value for value in values if isinstance(value, Mapping) and "_name" in value]
    if nested and len(nested) != len(values):
        raise OneXNError(where, "mixes choices with and without _name", "Give every one a _name")
    for value in values:
        if isinstance(value, Mapping) and "_name" in value:
            check_space(value, f"{where}.{value['_name']}")
        elif isinstance(value, Mapping) and "__nni_type__" in value:
            _check_type_path(value, where)


def _check_type_path(value: Mapping[str, Any], where: str) -> None:
    """NNI imports the class inside its tuner, which dies where that fails."""
    try:
        nni.load(json.dumps(dict(value)))
    except Exception as error:
        raise OneXNError(where, f"{value['__nni_type__']!r} cannot be imported: {first_line(error)}",
                         "Write path:PACKAGE.MODULE.CLASS of something that is installed") from error


def check_tuner_takes(space: Mapping[str, Any], tuner: str, arguments: Mapping[str, Any] | None) -> None:
    """Let a tuner of this process suggest parameters, as NNI's own will.

    Raises:
        OneXNError: it cannot be made with these arguments, or cannot take this search space.
    """
    if tuner.lower() not in REHEARSABLE:
        return
    deep = next(_nested_twice(space), None) if tuner.lower() in NESTED_ONCE else None
    if deep is not None:
        raise OneXNError(f"searchSpace.{deep}", f"stands in a choice in a choice, where {tuner} loses its way",
                         "List the combinations as one choice with a _name each")
    try:
        made = create_builtin_class_instance(tuner, dict(arguments or {}), "tuners")
    except ModuleNotFoundError as error:
        raise OneXNError(f"tuner {tuner}", f"needs {error.name}", "Install it, or use another tuner") from error
    except Exception as error:
        raise OneXNError(f"tuner {tuner}", f"cannot be made: {first_line(error)}", "Check its classArgs") from error
    try:
        made.update_search_space(nni.load(json.dumps(space)))
        for index in range(REHEARSED):
            nni.dump(made.generate_parameters(index))
    except nni.NoMoreTrialError:
        return
    except Exception as error:
        raise OneXNError("searchSpace", f"{tuner} cannot take it: {type(error).__name__} {first_line(error)}",
                         "Simplify the choice that the message names, or use another tuner") from error


def _nested_twice(space: Mapping[str, Any], path: str = "", depth: int = 0) -> Iterator[str]:
    """Parameters that hang on a choice which itself hangs on a choice."""
    for name, spec in space.items():
        if name == "_name":
            continue
        if depth >= 2:
            yield f"{path}{name}"
        for value in spec["_value"]:
            if spec["_type"] == "choice" and isinstance(value, Mapping) and "_name" in value:
                yield from _nested_twice(value, f"{path}{name}.{value['_name']}.", depth + 1)
