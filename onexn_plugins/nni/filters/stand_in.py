"""Where NNI cannot cut a network, torch-pruning's structural pruner does it by the same criterion and ratio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nni.compression.base.config import select_modules_by_config
from torch import nn

from onexn_plugins.errors import MissingDependencyError, OneXNError

_SELECTING = ("op_types", "op_names", "op_names_re", "exclude_op_types", "exclude_op_names", "exclude_op_names_re")
# NNI's criterion -> torch-pruning's class and its norm.
_CRITERIA = {"L1NormPruner": ("GroupMagnitudeImportance", 1), "L2NormPruner": ("GroupMagnitudeImportance", 2),
             "FPGMPruner": ("FPGMImportance", 2)}


def cut_by_torch_pruning(model: nn.Module, criterion: str, config_list: list[dict[str, Any]],
                         example_inputs: Any) -> None:
    """Cut the filters of the selected layers in place. Layers that are added together are cut alike.

    Raises:
        OneXNError: torch-pruning has no such criterion.
        MissingDependencyError: torch-pruning is not installed.
    """
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch-pruning", "torch-pruning") from error
    if criterion not in _CRITERIA:
        raise OneXNError(criterion, "NNI cannot cut this network, and torch-pruning has no such criterion",
                         f"Use one of {', '.join(_CRITERIA)}")
    ratios = _ratios(model, config_list)
    name, norm = _CRITERIA[criterion]
    pruner = torch_pruning.pruner.BasePruner(
        model, example_inputs, getattr(torch_pruning.importance, name)(p=norm), pruning_ratio=0.0,
        pruning_ratio_dict={model.get_submodule(layer): ratio for layer, ratio in ratios.items()},
        ignored_layers=[module for layer, module in model.named_modules()
                        if isinstance(module, (nn.Conv2d, nn.Linear)) and layer not in ratios])
    pruner.step()


def _ratios(model: nn.Module, config_list: list[dict[str, Any]]) -> dict[str, float]:
    """The sparse_ratio of every layer that the config_list selects."""
    ratios: dict[str, float] = {}
    for entry in config_list:
        flat: Mapping[str, Any] = {**entry, **(entry.get("target_settings") or {}).get("weight", {})}
        rules = {key: entry[key] for key in _SELECTING if entry.get(key) is not None}
        for layer in select_modules_by_config(model, rules)[0]:
            ratios.setdefault(layer, float(flat.get("sparse_ratio") or 0.0))
    return ratios
