"""What NNI users already write, in the words that `config` checks: 2.x keys, NNI's granularity, numpy numbers, ...

NNI has several ways to say one thing, and its own tools write keys that are None or mean nothing to 1×N masks. They
are translated here, entry by entry; what is left is one flat dict, whose keys and values `config` judges.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from nni.compression.base.config import trans_legacy_config_list

from onexn_plugins.errors import OneXNError

_log = logging.getLogger(__name__)

_OLD_RATIOS = ("sparsity", "sparsity_per_layer", "total_sparsity")
_OLD = ("exclude", *_OLD_RATIOS, "max_sparsity_per_layer", "op_partial_names")
# Written by auto_set_denpendency_group_ids for channels that are cut together. 1×N masks remove no channel.
_DEPENDENCY = ("dependency_group_id", "internal_metric_block")


def modern(config_list: Sequence[Any]) -> list[Any]:
    """A list in NNI 2.x's words (`sparsity`, `total_sparsity`, `exclude`) in 3.0's, by NNI's own translation.

    Raises:
        OneXNError: an entry says its ratio in both.
    """
    entries = list(config_list)
    if not all(isinstance(entry, Mapping) for entry in entries) or not any(
            key in entry for entry in entries for key in _OLD):
        return entries
    for index, entry in enumerate(entries):
        old = next((key for key in _OLD_RATIOS if entry.get(key) is not None), None)
        if old is not None and entry.get("sparse_ratio") is not None:
            raise OneXNError(f"config_list[{index}]", f"has {old}, NNI 2.x's word, beside sparse_ratio",
                             "Keep sparse_ratio alone")
    excluding = [bool(entry.get("exclude")) for entry in entries]
    # NNI looks at the first entry alone to see which words a list is in.
    first = next((index for index, entry in enumerate(entries) if any(key in entry for key in _OLD[:4])), 0)
    order = [first, *(index for index in range(len(entries)) if index != first)]
    translated = dict(zip(order, trans_legacy_config_list([dict(entries[index]) for index in order]), strict=True))
    return [translated[index] for index in range(len(entries)) if not excluding[index]]


def flatten(entry: Any, where: str) -> dict[str, Any]:
    """The entry without what is None or said in another place, and with target_settings["weight"] merged in.

    Raises:
        OneXNError: it is no dict of dicts, or asks for what 1×N masks cannot do: pruned biases, inputs, outputs.
    """
    if not isinstance(entry, Mapping):
        raise OneXNError(where, f"must be a dict, got {type(entry).__name__}", 'Write {"op_types": ..., ...}')
    targets = entry.get("target_settings") or {}
    if not isinstance(targets, Mapping) or not all(isinstance(target, Mapping) for target in targets.values()):
        raise OneXNError(where, "target_settings must be a dict of dicts", 'Write {"weight": {"sparse_ratio": 0.5}}')
    flat = _said(entry) | _said(targets.get("weight", {}))
    flat.pop("target_settings", None)
    _check_targets(flat.pop("target_names", None), targets, where)
    if any(flat.pop(key, None) is not None for key in _DEPENDENCY):
        _log.warning("%s: dependency_group_id is for channels that are cut; 1×N masks remove none, so that each layer "
                     "chooses its blocks for itself", where)
    flat.pop("align", None)
    if "group_id" in flat:
        flat.setdefault("global_group_id", flat.pop("group_id"))
    if "granularity" in flat:
        _read_granularity(flat, where)
    return flat


def _said(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Keys that are not None, with numpy's numbers as Python's."""
    return {key: _plain(value) for key, value in entry.items() if value is not None}


def _plain(value: Any) -> Any:
    """numpy's numbers and arrays, and tensors, are numbers and lists too."""
    if hasattr(value, "tolist") and hasattr(value, "ndim"):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple, set, frozenset)) else value


def _check_targets(names: Any, targets: Mapping[str, Any], where: str) -> None:
    for name in {**dict.fromkeys(names if isinstance(names, list) else []), **targets}:
        if name not in ("weight", "bias"):
            raise OneXNError(where, f"names the target {name!r}", "1×N prunes weights: name only 'weight'")
    if isinstance(names, list) and "weight" not in names:
        raise OneXNError(where, f"target_names is {names!r}", "1×N prunes weights: name 'weight'")
    if names is not None and not isinstance(names, list):
        raise OneXNError(where, f"target_names must be a list, got {names!r}", 'Write ["weight"], or leave it out')
    bias = _said(targets.get("bias", {}))
    if bias.get("sparse_ratio") and "align" not in bias:
        raise OneXNError(where, f"asks to prune biases by {bias['sparse_ratio']}", "1×N prunes weights: leave bias out")


def _read_granularity(flat: dict[str, Any], where: str) -> None:
    """[N, 1, -1, -1] are blocks of N kernels: block_size N, with tails and groups that NNI's own has not."""
    value = flat.pop("granularity")
    if value == "default":
        return
    blocks = isinstance(value, list) and len(value) >= 2 and value[1] == 1 and all(size == -1 for size in value[2:])
    if not blocks or isinstance(value[0], bool) or not isinstance(value[0], int):
        raise OneXNError(where, f"granularity is {value!r}",
                         "1×N blocks are [N, 1, -1, -1], or block_size N; NNI's own pruners do the others")
    if flat.setdefault("block_size", value[0]) != value[0]:
        raise OneXNError(where, f"granularity {value!r} and block_size {flat['block_size']} differ", "Say one of them")
