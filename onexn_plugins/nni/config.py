"""A config_list resolved to one setting per layer, and checked, before anything is wrapped.

NNI 3.0 takes some bad input silently (a sparse_ratio of 1.5 prunes everything, a second entry for the same layer is
ignored) and fails on other input with a bare KeyError or AssertionError.
Here each is a OneXNError that names the entry or the layer.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from nni.compression.base.config import select_modules_by_config
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PRUNABLE, PrunableLayer, check_layer_name
from onexn_plugins.nni.spelling import flatten, modern
from onexn_plugins.pattern import check_block_size
from onexn_plugins.pruning import Target, select
from onexn_plugins.selection import check_ratio

_log = logging.getLogger(__name__)

_SELECTING = ("op_types", "op_names", "op_names_re")
_EXCLUDING = ("exclude_op_types", "exclude_op_names", "exclude_op_names_re")
_RATIOS = ("sparse_ratio", "min_sparse_ratio", "max_sparse_ratio")
_SETTINGS = (*_RATIOS, "sparse_threshold", "global_group_id", "block_size")


@dataclass(frozen=True)
class LayerSetting:
    """What one config_list entry asks of its layers; the names are NNI's, and None is "not said"."""

    block_size: int
    sparse_ratio: float | None = None
    sparse_threshold: float | None = None
    min_sparse_ratio: float | None = None
    max_sparse_ratio: float | None = None
    global_group_id: int | str | None = None

    def to_target(self) -> Target:
        """In the core's words."""
        low, high = self.min_sparse_ratio, self.max_sparse_ratio
        return Target(self.block_size, 0.0 if self.sparse_ratio is None else self.sparse_ratio, self.sparse_threshold,
                      0.0 if low is None else low, 1.0 if high is None else high, group=self.global_group_id)

    def to_nni(self, name: str) -> dict[str, Any]:
        """A config_list entry for this one layer in NNI's words, which have no block_size."""
        said = {key: value for key, value in asdict(self).items() if value is not None and key != "block_size"}
        return {"op_names": [name], "target_names": ["weight"], **said}


def resolve(model: nn.Module, config_list: Any, block_size: int) -> dict[str, LayerSetting]:
    """The setting of every layer that config_list selects, by qualified name, in the model's order.

    A module that is reachable under several names is listed once, under its first. Layers with nothing to gain
    (depthwise convolutions, one output channel) that an op_types or op_names_re entry selects stay dense, as in the
    paper, with a warning; in op_names they are an error.

    Raises:
        OneXNError: anything in config_list that cannot be done as written.
    """
    if not isinstance(config_list, Sequence) or isinstance(config_list, str) or not config_list:
        raise OneXNError("config_list", f"must be a non-empty list of dicts, got {config_list!r}",
                         'For example [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]')
    settings: dict[str, LayerSetting] = {}
    source: dict[str, str] = {}
    for index, entry in enumerate(modern(config_list)):
        where = f"config_list[{index}]"
        flat = _flatten(entry, where)
        setting = _read_setting(flat, where, block_size)
        for name in _select(model, flat, where):
            if name in settings:
                raise OneXNError(name, f"is selected by {source[name]} and by {where}",
                                 f"Keep it in one of them; add it to exclude_op_names of {source[name]}")
            settings[name], source[name] = setting, where
    if not settings:
        raise OneXNError("config_list", "selects nothing: it only excludes", "Add an entry with op_types or op_names")
    _check_groups(settings)
    order = {name: index for index, (name, _) in enumerate(model.named_modules())}
    return {name: settings[name] for name in sorted(settings, key=order.__getitem__)}


def _flatten(entry: Any, where: str) -> dict[str, Any]:
    """The entry in one dict; OneXNError for keys that 1×N cannot follow."""
    flat = flatten(entry, where)
    known = (*_SELECTING, *_EXCLUDING, *_SETTINGS, "apply_method")
    for key in flat:
        if key not in known:
            raise OneXNError(where, f"1×N pruning has no setting {key!r}", f"Known are: {', '.join(known)}")
    if flat.get("apply_method", "mul") != "mul":
        raise OneXNError(where, f"apply_method is {flat['apply_method']!r}", "1×N masks multiply: leave the key out")
    return flat


def _read_setting(flat: dict[str, Any], where: str, block_size: int) -> LayerSetting:
    values = {key: flat[key] for key in _SETTINGS if flat.get(key) is not None}
    for key in _RATIOS:
        if key in values:
            values[key] = check_ratio(values[key], f"{where}.{key}")
    check_block_size(values.setdefault("block_size", block_size), f"{where}.block_size")
    threshold, group = values.get("sparse_threshold"), values.get("global_group_id")
    if ("sparse_ratio" in values) == (threshold is not None):
        raise OneXNError(where, "needs either sparse_ratio or sparse_threshold", "Write one of them")
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not threshold >= 0:
            raise OneXNError(f"{where}.sparse_threshold", f"must be a number >= 0, got {threshold!r}",
                             "Blocks whose L1 norm is below it are pruned")
        if group is not None:
            raise OneXNError(where, "a global group shares a ratio, not a threshold", "Use sparse_ratio in it")
        values["sparse_threshold"] = float(threshold)
    if isinstance(group, bool) or not isinstance(group, (int, str, type(None))):
        raise OneXNError(f"{where}.global_group_id", f"must be an int or a str, got {group!r}",
                         "Use a number or a name")
    if values.get("min_sparse_ratio", 0.0) > values.get("max_sparse_ratio", 1.0):
        raise OneXNError(where, "min_sparse_ratio is larger than max_sparse_ratio", "Swap or drop one of them")
    return LayerSetting(**values)


def _select(model: nn.Module, entry: Mapping[str, Any], where: str) -> list[str]:
    """Names that the entry selects by NNI's own rules, every one a layer that 1×N applies to."""
    rules = {key: entry[key] for key in (*_SELECTING, *_EXCLUDING) if entry.get(key) is not None}
    _check_rules(model, rules, where)
    canonical = {id(module): name for name, module in model.named_modules()}
    selected, _, _ = select_modules_by_config(model, rules)
    layers = {canonical[id(module)]: module for module in selected.values()}
    named = {canonical[id(model.get_submodule(name))] for name in rules.get("op_names", ())}
    for name, module in layers.items():
        if not isinstance(module, PrunableLayer):
            raise OneXNError(name or "model", f"is a {type(module).__name__}; 1×N applies to {PRUNABLE}",
                             f'Narrow {where}, for example with "op_types": ["Conv2d", "Linear"]')
    layers = {name: layers[name] for name in canonical.values() if name in layers}
    layers = dict(select(layers, named, "Take it out of op_names; it stays dense"))
    if not layers:
        raise OneXNError(where, "it selects no layer that 1×N applies to",
                         "Check op_types, op_names and exclude_*; list the names with model.named_modules()")
    return list(layers)


def _check_rules(model: nn.Module, rules: dict[str, Any], where: str) -> None:
    if not any(rules.get(key) for key in _SELECTING):
        raise OneXNError(where, "selects nothing", "Add op_types, op_names or op_names_re")
    for key, value in rules.items():
        if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(v, str) for v in value):
            raise OneXNError(f"{where}.{key}", f"must be a list of str, got {value!r}", f'Write "{key}": ["..."]')
    known = [name for name, _ in model.named_modules(remove_duplicate=False)]
    for name in rules.get("op_names", ()):
        check_layer_name(name, known)
    for name in rules.get("exclude_op_names", ()):  # one list may serve several networks
        try:
            check_layer_name(name, known)
        except OneXNError as error:
            _log.warning("%s.exclude_op_names excludes nothing by %r: %s", where, name, error)
    types = {type(module).__name__ for module in model.modules()}
    for kind in sorted(set(rules.get("exclude_op_types", ())) - types):
        _log.warning("%s.exclude_op_types excludes nothing: the model has no %s", where, kind)
    for pattern in (*rules.get("op_names_re", ()), *rules.get("exclude_op_names_re", ())):
        try:
            re.compile(pattern)
        except re.error as error:
            raise OneXNError(where, f"{pattern!r} is no regular expression: {error}", "Mend it") from error


def _check_groups(settings: dict[str, LayerSetting]) -> None:
    """Layers of one global group compete for one number of equal blocks."""
    first: dict[int | str, tuple[str, LayerSetting]] = {}
    for name, setting in settings.items():
        if setting.global_group_id is None:
            continue
        other, same = first.setdefault(setting.global_group_id, (name, setting))
        if (setting.sparse_ratio, setting.block_size) != (same.sparse_ratio, same.block_size):
            raise OneXNError(name, f"differs from {other} in sparse_ratio or block_size, but shares its "
                             f"global_group_id {setting.global_group_id!r}",
                             "Give the group one sparse_ratio and one block_size, or make two groups")
