"""What must hold before OneXNPruner touches the model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from nni.compression.base.wrapper import ModuleWrapper
from nni.compression.utils import Evaluator
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import check_inputs
from onexn_plugins.masking import dense_weight
from onexn_plugins.nni.config import LayerSetting
from onexn_plugins.plain_modules import check_plain
from onexn_plugins.scores import SCORES, BlockScore, check_score


def check_arguments(model: Any, evaluator: Any, existed: Any, score: Any, seed: Any,
                    rearrange: bool | str, example_inputs: Any) -> None:
    """Raise OneXNError for an argument of the wrong kind, or a model that another compressor has wrapped."""
    if not isinstance(model, nn.Module):
        raise OneXNError("model", f"must be a torch.nn.Module, got {type(model).__name__}", "Pass the model itself")
    check_plain(model)
    if evaluator is not None and not isinstance(evaluator, Evaluator):
        raise OneXNError("evaluator", f"must be an NNI evaluator, got {type(evaluator).__name__}",
                         "Use nni.compression.TorchEvaluator, or leave it out for one-shot pruning")
    if not isinstance(existed, Mapping) or not all(isinstance(value, ModuleWrapper) for value in existed.values()):
        raise OneXNError("existed_wrappers", "must map layer names to NNI's wrappers",
                         "Use OneXNPruner.from_compressor")
    check_score(score)
    if isinstance(seed, bool) or not isinstance(seed, int):
        raise OneXNError("seed", f"must be an integer, got {seed!r}", "Use for example seed=0")
    if rearrange:
        check_inputs(example_inputs)
        if existed:
            raise OneXNError("rearrange", "another compressor's wrappers hold copies of the weights",
                             "Rearrange first: from onexn_plugins import rearrange")
    for name, module in model.named_modules():
        wrapper = getattr(module, "_nni_wrapper", None)
        if wrapper is not None and not any(wrapper is known for known in existed.values()):
            raise OneXNError(name, "is already wrapped by another NNI compressor",
                             "Call unwrap_model() on that one first, or use OneXNPruner.from_compressor")


def check_wrappable(model: nn.Module, settings: dict[str, LayerSetting], existed: Mapping[str, ModuleWrapper],
                    score: str | BlockScore) -> None:
    """Raise OneXNError for a selected layer that NNI cannot wrap, or not prune as its setting says."""
    modules = dict(model.named_modules())
    for name, setting in settings.items():
        label = name or "model"
        if name in existed and existed[name].pruning_target_spaces:
            raise OneXNError(label, "is already pruned by the compressor whose wrappers are passed on",
                             "Exclude it with exclude_op_names, or unwrap and fold the model first")
        if setting.sparse_threshold is not None and not (isinstance(score, str) and SCORES[score].is_norm):
            raise OneXNError(label, "sparse_threshold compares norms of blocks", 'Use score="l1" or sparse_ratio')
    _check_own_weight(modules, settings)


def _check_own_weight(modules: dict[str, nn.Module], names: Iterable[str]) -> None:
    """NNI gives each wrapped layer a weight of its own, which would silently end the sharing."""
    users: dict[int, list[str]] = defaultdict(list)
    for name, module in modules.items():
        for parameter in module.parameters(recurse=False):
            users[id(parameter)].append(name.removesuffix(".parametrizations.weight"))
    for name in names:
        sharing = [user for user in users[id(dense_weight(modules[name]))] if user != name]
        if sharing:
            raise OneXNError(name, f"shares its weight with {', '.join(sharing)}; NNI's wrapper would part them",
                             "Exclude them with exclude_op_names")
