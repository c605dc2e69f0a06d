"""The tuner and the assessor of an experiment, made and tried out before NNI makes its own.

NNI's tuner dies of bad arguments or of a search space that it cannot take, and NNI goes on saying RUNNING.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import nni
from nni.experiment.config import ExperimentConfig, utils
from nni.tools.package_utils import config_manager, tuner_factory
from schema import SchemaError, SchemaMissingKeyError

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.nni.experiment.keys import ALGORITHMS

# How many of the tuner's suggestions are tried out: enough for its random ones to reach every branch of a choice.
REHEARSED = 100
# The tuners of NNI 3.0 that suggest parameters without having seen a result.
REHEARSABLE = ("tpe", "random", "gridsearch", "anneal", "tpe_legacy")
NESTED_ONCE = ("tpe", "random", "gridsearch")
NEEDS_AN_EXPERIMENT = ("pbt",)  # its search space is where its checkpoints are


def check_algorithms(name: str, config: ExperimentConfig) -> None:
    """Raise OneXNError for a tuner, assessor or advisor that NNI does not have, or that is none of one's own."""
    given = {kind: getattr(config, kind) for kind in ALGORITHMS}
    given = {kind: algorithm for kind, algorithm in given.items()
             if not (algorithm is None or utils.is_missing(algorithm) or getattr(algorithm, "name", "") == "_none_")}
    if {"tuner", "advisor"} <= given.keys():
        raise OneXNError(f"{name}: advisor", "stands beside a tuner, and is one itself", "Write one of them, as tuner")
    for kind, algorithm in given.items():
        where = f"{name}: {kind}"
        if not hasattr(algorithm, "class_name"):  # NNI keeps what it cannot make its config of
            raise OneXNError(where, f"cannot be understood: {algorithm!r}",
                             "Write name and classArgs, or className and codeDirectory of your own")
        if algorithm.class_name is None:
            _check_name(where, kind, algorithm.name)
        _check_own(where, algorithm)


def _check_name(where: str, kind: str, name: Any) -> None:
    kinds = ("assessor",) if kind == "assessor" else ("tuner", "advisor")
    names = [meta.name for meta in config_manager.get_all_algo_meta() if meta.algo_type in kinds]
    if str(name).lower() not in [known.lower() for known in names]:
        close = difflib.get_close_matches(str(name), names, n=1)
        raise OneXNError(where, f"NNI has no {kind} {name!r}",
                         f"Did you mean {close[0]}" if close else f"Use one of {', '.join(names)}")


def _check_own(where: str, algorithm: Any) -> None:
    """A class of one's own has no name of NNI's, and the other way round."""
    if algorithm.class_name is None:
        if algorithm.code_directory is not None:
            raise OneXNError(where, f"{algorithm.name} is NNI's own and has no codeDirectory", "Leave it out")
        return
    if algorithm.name is not None:
        raise OneXNError(where, "has a name and a className", "Write name for one of NNI's, className for your own")
    if "." not in str(algorithm.class_name):
        raise OneXNError(where, f"className {algorithm.class_name!r} names no module", "Write MODULE.CLASS")
    if algorithm.code_directory is None:
        raise OneXNError(where, f"the class {algorithm.class_name} needs a codeDirectory",
                         "Give the folder in which its module is")


def check_made(config: ExperimentConfig) -> None:
    """Make NNI's own tuner and assessor in this process, and let the tuner suggest parameters.

    Args:
        config: canonical, with a search space that is sound by itself.

    Raises:
        OneXNError: one cannot be made with these arguments, or the tuner cannot take this search space.
    """
    if config.assessor is not None and config.assessor.name is not None:
        _make("assessor", config.assessor.name, config.assessor.class_args)
    if config.tuner.name is not None:
        check_tuner_takes(config.search_space, config.tuner.name, config.tuner.class_args)


def check_tuner_takes(space: Mapping[str, Any], tuner: str, arguments: Mapping[str, Any] | None) -> None:
    """Let a tuner of this process suggest parameters, as NNI's own will.

    Raises:
        OneXNError: it cannot be made with these arguments, or cannot take this search space.
    """
    deep = next(_nested_twice(space), None) if tuner.lower() in NESTED_ONCE else None
    if deep is not None:
        raise OneXNError(f"searchSpace.{deep}", f"stands in a choice in a choice, where {tuner} loses its way",
                         "List the combinations as one choice with a _name each")
    made = _make("tuner", tuner, arguments)
    if made is None or tuner.lower() in NEEDS_AN_EXPERIMENT:
        return
    try:
        made.update_search_space(nni.load(json.dumps(space)))
        for index in range(REHEARSED if tuner.lower() in REHEARSABLE else 0):
            nni.dump(made.generate_parameters(index))
    except nni.NoMoreTrialError:
        return
    except Exception as error:
        raise OneXNError("searchSpace", f"{tuner} cannot take it: {type(error).__name__} {first_line(error)}",
                         "Simplify the choice that the message names, or use another tuner") from error


def _make(kind: str, name: str, arguments: Mapping[str, Any] | None) -> Any:
    """The algorithm; None for an advisor, which nobody but NNI's dispatcher can make."""
    where, given = f"{kind} {name}", dict(arguments or {})
    try:
        validator = tuner_factory.create_validator_instance(f"{kind}s", name)
        if validator is not None:
            validator.validate_class_args(**given)
    except SchemaMissingKeyError:
        pass  # NNI's own classes have defaults for what its validators ask for
    except ModuleNotFoundError as error:
        raise OneXNError(where, f"needs {error.name}", f"Install it, or use another {kind}") from error
    except (SchemaError, TypeError, ValueError) as error:
        raise OneXNError(where, f"cannot be made: {first_line(error)}", "Check its classArgs") from error
    meta = config_manager.get_algo_meta(name)
    if meta is not None and meta.is_advisor:
        return None
    try:
        return tuner_factory.create_builtin_class_instance(name, given, f"{kind}s")
    except ModuleNotFoundError as error:
        raise OneXNError(where, f"needs {error.name}", f"Install it, or use another {kind}") from error
    except Exception as error:
        raise OneXNError(where, f"cannot be made: {first_line(error)}", "Check its classArgs") from error


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
