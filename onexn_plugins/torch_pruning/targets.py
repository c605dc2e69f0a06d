"""Which layers are pruned, at which ratio, and which of them compete for one budget of blocks."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import (
    PRUNABLE,
    PrunableLayer,
    check_layer_name,
    default_layers,
    groups_of,
    ignored_names,
    is_depthwise,
    weighted_layers,
)
from onexn_plugins.masking import dense_weight
from onexn_plugins.pruning import Target, select

Ratios = tuple[float, ...]


@dataclass(frozen=True)
class NamedRatio:
    """One entry of pruning_ratio_dict: layers its key names, layers inside what it names, the ratio of every step."""

    named: frozenset[str]
    inside: frozenset[str]
    ratios: Ratios


@dataclass(frozen=True)
class Competition:
    """Layers that share one budget of blocks, and the ratio of every step."""

    names: tuple[str, ...]
    ratios: Ratios


def named_ratios(
    model: nn.Module, pruning_ratio_dict: Mapping[Any, Any] | None, per_step: Callable[[Any, str], Ratios]
) -> list[NamedRatio]:
    """pruning_ratio_dict by names. A key is a module, a name, or a tuple of these.

    Raises:
        OneXNError: a key names nothing in the model or nothing that has blocks, or its ratio is none.
    """
    if pruning_ratio_dict is not None and not isinstance(pruning_ratio_dict, Mapping):
        raise OneXNError("pruning_ratio_dict", f"must be a dict, got {type(pruning_ratio_dict).__name__}",
                         "Pass {module or name: ratio}")
    modules, layers = dict(model.named_modules()), weighted_layers(model)
    entries = []
    for key, ratio in (pruning_ratio_dict or {}).items():
        names = [_name_in(part, modules, "pruning_ratio_dict") for part in (key if isinstance(key, tuple) else (key,))]
        label = ", ".join(names)
        inside = frozenset(name for name in ignored_names(model, names) if name in layers)
        if not inside or any(is_depthwise(modules[name]) for name in names):
            raise OneXNError(label, "pruning_ratio_dict names it, but it has no 1×N blocks",
                             f"Name {PRUNABLE} layers that are not depthwise, or what contains them")
        entries.append(NamedRatio(inside.intersection(names), inside, per_step(ratio, label)))
    return entries


def select_layers(
    model: nn.Module, ignored: Iterable[str], entries: Iterable[NamedRatio], root_module_types: Any, full: bool
) -> dict[str, PrunableLayer]:
    """The layers to prune: the default ones of the given types, and those asked for by name, unless ignored.

    Raises:
        OneXNError: a layer asked for by name has nothing to gain.
    """
    types, left_out = _types(root_module_types), ignored_names(model, ignored)
    asked = frozenset().union(*(entry.named for entry in entries))
    default = default_layers(model, left_out, full=full)
    chosen = {
        name: module for name, module in weighted_layers(model).items()
        if (name in asked and name not in left_out)
        or (name in default and isinstance(module, types) and not is_depthwise(module))
    }
    return select(chosen, asked, "Take it out of pruning_ratio_dict; it stays dense")


def targets_of(competitions: Iterable[Competition], step: int, *, block_size: int, scope: str,
               min_ratios: Ratios, max_ratio: float) -> dict[str, Target]:
    """What is asked of each layer in a step."""
    return {
        name: Target(block_size, each.ratios[step], min_ratio=min_ratios[step], max_ratio=max_ratio,
                     by_row=scope == "row", group=number if scope == "global" else None)
        for number, each in enumerate(competitions) for name in each.names
    }


def competitions(
    layers: Mapping[str, PrunableLayer], entries: Iterable[NamedRatio], default: Ratios, scope: str, isomorphic: bool
) -> list[Competition]:
    """Every layer alone; with scope "global" the layers of one entry together, and all others together.

    isomorphic: the others compete only with layers of their own type, kernel size and kind of groups, so that
    no kind is pruned away (isomorphic pruning, ECCV 2024, read for single layers).
    """
    owner = {name: entry for entry in entries for name in entry.inside}  # of several entries the last one holds
    together: dict[Any, list[str]] = {}
    for name, layer in layers.items():
        entry = owner.get(name)
        kind = (type(layer), layer.weight.shape[2:], groups_of(layer) > 1) if isomorphic else None
        key = name if scope != "global" else (id(entry) if entry else kind)
        together.setdefault(key, []).append(name)
    return [Competition(tuple(names), owner[names[0]].ratios if names[0] in owner else default)
            for names in together.values()]


def ignored_layer_names(model: nn.Module, ignored_layers: Any) -> list[str]:
    """Names of ignored_layers, whose entries are modules, names, module types, or parameters of layers."""
    if ignored_layers is None:
        return []
    if isinstance(ignored_layers, (str, nn.Module)) or not isinstance(ignored_layers, Iterable):
        raise OneXNError("ignored_layers", f"must be a list, got {type(ignored_layers).__name__}",
                         "Pass a list of modules or names")
    modules, names = dict(model.named_modules()), []
    for entry in ignored_layers:
        if isinstance(entry, type):
            names += [name for name, module in modules.items() if isinstance(module, entry)]
        elif isinstance(entry, nn.Parameter):
            names += [name for name, module in weighted_layers(model).items()
                      if dense_weight(module) is entry or module.bias is entry]
        else:
            names.append(_name_in(entry, modules, "ignored_layers"))
    return names


def _name_in(entry: Any, modules: Mapping[str, nn.Module], argument: str) -> str:
    if isinstance(entry, str):
        return check_layer_name(entry, modules)
    name = next((name for name, module in modules.items() if module is entry), None)
    if name is None:
        raise OneXNError(argument, f"{type(entry).__name__} {str(entry)[:60]} is no layer of the model",
                         "Pass modules of this model, or their names")
    return name


def _types(root_module_types: Any) -> tuple[type, ...]:
    types = tuple(root_module_types) if isinstance(root_module_types, (list, tuple, set)) else (None,)
    if not all(isinstance(kind, type) for kind in types):
        raise OneXNError("root_module_types", f"must be a list of module types, got {root_module_types!r}",
                         "Pass for example [torch.nn.Conv2d]")
    return types
