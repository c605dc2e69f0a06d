"""`pruner_from_config`: any NNI pruner or ours from plain data, as an experiment's parameters hold it."""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import nni.compression.pruning
from nni.compression.base.compressor import Pruner
from torch import nn

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.layers import CONVOLUTIONS
from onexn_plugins.nni.pruner import OneXNPruner

SELECTING = ("op_types", "op_names", "op_names_re", "exclude_op_types", "exclude_op_names", "exclude_op_names_re")
WORDS = ("pruner", "sparse_ratio", "config_list", "layers", *SELECTING)
# Pruners whose masks are whole filters, so that `cut` makes the network smaller.
FILTER_PRUNERS = ("L1NormPruner", "L2NormPruner", "FPGMPruner", "SlimPruner", "TaylorPruner")
_CLOSE = 0.75  # how alike a name must be to be taken for a misspelt one


def pruner_from_config(model: nn.Module, parameters: Mapping[str, Any], **defaults: Any) -> Any:
    """The pruner that an experiment's parameters ask for, made for this model; it has pruned nothing yet.

        pruner = pruner_from_config(model, nni.get_next_parameter(), op_types=["Conv2d"], example_inputs=images)
        model, _ = pruner.compress()

    Args:
        model: the network to prune.
        parameters: plain data:
            pruner: a name (`L1NormPruner`), a type path (`path:package.module.Class`), a class, or a dict of one of
                these as `_name` and its keyword arguments. A scheduler's dict (`AGPPruner`, `LinearPruner`) holds the
                scheduled one as `pruner`. `cut: true` for a filter pruner lets `compress` return the smaller network.
            sparse_ratio, and which layers: `layers` (names), or NNI's op_types, op_names, ..., exclude_op_names_re;
                Conv2d where nothing is said, for OneXNPruner all convolutions that it prunes. Or else config_list,
                whose entries may leave sparse_ratio to the other.
            options of the pruner may stand beside `pruner` too, block_size for one: those it does not take are
                another pruner's, and left out. Whatever else there is, a learning rate say, is the trial's own.
        defaults: the same, used where parameters does not say it: evaluator, example_inputs, layers, ...

    Returns:
        NNI's pruner, ours, or a FilterPruner; `onexn_plugins.nni.finish` takes it.

    Raises:
        OneXNError: an unknown pruner or option (the known ones are listed), or no ratio; before any pruning.
    """
    if not isinstance(parameters, Mapping):
        raise OneXNError("parameters", f"must be a dict, got {type(parameters).__name__}",
                         "Pass nni.get_next_parameter(), which is None outside an experiment")
    known = {**defaults, **parameters}
    _check_spelling(known)
    spec = known.get("pruner", "OneXNPruner")
    config_list = _config_list(known)
    beside = {key: value for key, value in known.items() if key not in WORDS}
    pruner = _make(model, spec, config_list, beside)
    pruner.onexn_chosen = _plain(known, spec)  # what `finish` reports
    return pruner


def known_pruners() -> dict[str, Callable[..., Any]]:
    """NNI's pruners and ours by name."""
    found: dict[str, Callable[..., Any]] = {
        name: value for name, value in vars(nni.compression.pruning).items()
        if inspect.isclass(value) and issubclass(value, Pruner)}
    return {**found, "OneXNPruner": OneXNPruner}


def _make(model: nn.Module, spec: Any, config_list: list[dict[str, Any]], beside: dict[str, Any]) -> Any:
    options = dict(spec) if isinstance(spec, Mapping) else {}
    if isinstance(spec, Mapping) and not {"_name", "__nni_type__"} & spec.keys():
        raise OneXNError(f"pruner {options!r}", "names no pruner", 'Add "_name": "OneXNPruner", for one')
    chosen = options.pop("_name", options.pop("__nni_type__", None)) if isinstance(spec, Mapping) else spec
    pruner_class = _class(chosen)
    name = pruner_class.__name__
    taken = _options_of(pruner_class)
    cut, inner = options.pop("cut", False), options.pop("pruner", None)
    if not isinstance(cut, bool):
        raise OneXNError(name, f"cut must be true or false, got {cut!r}", "Leave it out to mask alone")
    _check_options(name, options, taken)
    options = {key: value for key, value in beside.items() if key in taken and value is not None} | options
    if "pruner" in taken:
        if inner is None:
            raise OneXNError(name, "schedules another pruner, and none is named", 'Add "pruner": {"_name": ...} to it')
        if cut:
            raise OneXNError(name, "cannot cut filters while it schedules", "Leave cut out")
        return _called(name, pruner_class, _make(model, inner, config_list, beside), **options)
    if inner is not None:
        raise OneXNError(name, "schedules no other pruner", "Leave its pruner out, or name AGPPruner or LinearPruner")
    if not cut:
        return _called(name, pruner_class, model, config_list, **options)
    if name not in FILTER_PRUNERS:
        raise OneXNError(name, "its masks are no whole filters, so none can be cut",
                         f"Leave cut out, or use one of {', '.join(FILTER_PRUNERS)}")
    from onexn_plugins.nni.filters import FilterPruner

    if "example_inputs" not in beside:
        raise OneXNError("example_inputs", "are needed to cut filters", "Pass example_inputs=images")
    return FilterPruner(model, config_list, pruner_class=pruner_class, example_inputs=beside["example_inputs"],
                        **options)


def _called(name: str, pruner_class: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """NNI refuses bad arguments with errors of its own, among them bare assertions."""
    try:
        return pruner_class(*arguments, **options)
    except OneXNError:
        raise
    except TypeError as error:
        raise OneXNError(name, first_line(error), f"It takes {', '.join(_options_of(pruner_class))}") from error
    except Exception as error:
        raise OneXNError(name, f"cannot be made: {type(error).__name__} {first_line(error)}",
                         "Check its config_list and options") from error


def _class(chosen: Any) -> Callable[..., Any]:
    if inspect.isclass(chosen):
        return chosen
    known = known_pruners()
    if isinstance(chosen, str) and chosen in known:
        return known[chosen]
    if isinstance(chosen, str) and "." in chosen:
        module, _, attribute = chosen.removeprefix("path:").rpartition(".")
        try:
            found = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise OneXNError(f"pruner {chosen!r}", f"cannot be imported: {first_line(error)}",
                             "Write path:PACKAGE.MODULE.CLASS of something that is installed") from error
        if inspect.isclass(found):
            return found
    by_letters = {name.lower(): name for name in known}
    close = difflib.get_close_matches(str(chosen).lower(), by_letters, n=1)
    raise OneXNError(f"pruner {chosen!r}", "is unknown",
                     (f"Did you mean {by_letters[close[0]]}? " if close else "")
                     + f"Known are {', '.join(sorted(known))}")


def _options_of(pruner_class: Callable[..., Any]) -> tuple[str, ...]:
    """The keyword arguments of a pruner; "pruner" stands among a scheduler's."""
    names = list(inspect.signature(pruner_class).parameters)
    return tuple(name for name in names if name not in ("self", "model", "config_list", "existed_wrappers", "args",
                                                        "kwargs"))


def _check_options(name: str, options: Mapping[str, Any], taken: tuple[str, ...]) -> None:
    for key in options:
        if key not in taken:
            close = difflib.get_close_matches(str(key), taken, n=1)
            known = ", ".join((*taken, "cut") if name in FILTER_PRUNERS else taken)
            raise OneXNError(name, f"has no option {key!r}",
                             (f"Did you mean {close[0]}? " if close else "") + f"It takes {known}")


def _check_spelling(known: Mapping[str, Any]) -> None:
    """A key that is nobody's may be the trial's own; one that is nearly ours is a mistake."""
    ours = {*WORDS, "cut", *(option for pruner in known_pruners().values() for option in _options_of(pruner))}
    for key in known:
        close = difflib.get_close_matches(str(key), ours, n=1, cutoff=_CLOSE)
        if key not in ours and close:
            raise OneXNError("parameters", f"nothing is called {key!r}", f"Did you mean {close[0]}")


def _config_list(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    given, ratio = known.get("config_list"), known.get("sparse_ratio")
    if ratio is not None and not (isinstance(ratio, Real) and not isinstance(ratio, bool) and 0 <= float(ratio) <= 1):
        raise OneXNError("sparse_ratio", f"must be between 0 and 1, got {ratio!r}", "Use for example 0.5")
    layers = known.get("layers")
    if given is not None and (isinstance(given, (str, Mapping)) or not isinstance(given, Iterable)):
        raise OneXNError("config_list", f"must be a list of dicts, got {given!r}",
                         'Use for example [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]')
    if layers is not None and (isinstance(layers, str) or not isinstance(layers, Iterable)):
        raise OneXNError("layers", f"must be a list of names, got {layers!r}", 'Use for example ["features.0"]')
    if given is not None:
        entries = [dict(entry) if isinstance(entry, Mapping) else entry for entry in given]
        for entry in entries:
            if ratio is not None and isinstance(entry, dict) and not _has_ratio(entry):
                entry["sparse_ratio"] = ratio
        return entries
    if ratio is None:
        raise OneXNError("parameters", "say no sparse_ratio", "Add sparse_ratio, or a config_list")
    rules = {key: known[key] for key in SELECTING if known.get(key) is not None}
    if layers is not None:
        rules["op_names"] = list(layers)
    if not {"op_types", "op_names", "op_names_re"} & rules.keys():
        # NNI's pruners take the first dimension of a weight for its outputs, which transposed layers have second.
        ours = "OneXNPruner" in _label_and_options(known.get("pruner", "OneXNPruner"))[0]
        rules["op_types"] = list(CONVOLUTIONS) if ours else ["Conv2d"]
    return [{**rules, "sparse_ratio": ratio}]


def _has_ratio(entry: Mapping[str, Any]) -> bool:
    targets = entry.get("target_settings") or {}
    said = [entry, *(target for target in targets.values() if isinstance(target, Mapping))]
    return any(part.get(key) is not None for part in said for key in ("sparse_ratio", "sparse_threshold", "sparsity"))


def _plain(known: Mapping[str, Any], spec: Any) -> dict[str, Any]:
    """What was chosen, flat, as numbers and text."""
    label, options = _label_and_options(spec)
    plain = {key: value for key, value in options.items() if isinstance(value, (str, bool, int, float))}
    ratio = known.get("sparse_ratio")
    return {**plain, "pruner": label, **({} if ratio is None else {"sparse_ratio": ratio})}


def _label_and_options(spec: Any) -> tuple[str, dict[str, Any]]:
    """A pruner's name, a scheduler's as Scheduler(Pruner), and the options of both."""
    if not isinstance(spec, Mapping):
        return spec.__name__ if inspect.isclass(spec) else str(spec).rpartition(".")[2], {}
    options = dict(spec)
    inner = options.pop("pruner", None)
    label, _ = _label_and_options(options.pop("_name", options.pop("__nni_type__", None)))
    if inner is None:
        return label, options
    inner_label, inner_options = _label_and_options(inner)
    return f"{label}({inner_label})", {**inner_options, **options}
