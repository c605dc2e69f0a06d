"""Where NNI cannot cut a network, torch-pruning's structural pruner does it by the same criterion and ratio."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from nni.compression.base.config import select_modules_by_config
from torch import Tensor, nn

from onexn_plugins.errors import MissingDependencyError, OneXNError
from onexn_plugins.inputs import call_model, keep_state, tensors_in

_SELECTING = ("op_types", "op_names", "op_names_re", "exclude_op_types", "exclude_op_names", "exclude_op_names_re")
# NNI's criterion -> torch-pruning's class and its norm.
_CRITERIA = {"L1NormPruner": ("GroupMagnitudeImportance", 1), "L2NormPruner": ("GroupMagnitudeImportance", 2),
             "FPGMPruner": ("FPGMImportance", 2)}


def cut_by_torch_pruning(model: nn.Module, criterion: str, config_list: list[dict[str, Any]],
                         example_inputs: Any) -> nn.Module:
    """A smaller copy, in eval mode: selected layers have fewer filters, those that are added together alike.

    Where torch-pruning cannot follow the network as a whole (a channel shuffle), the parts of it that it can follow
    are cut inside: what such a part reads and gives keeps its channels.

    Raises:
        OneXNError: torch-pruning has no such criterion.
        MissingDependencyError: torch-pruning is not installed.
    """
    _torch_pruning()
    if criterion not in _CRITERIA:
        raise OneXNError(criterion, "NNI cannot cut this network, and torch-pruning has no such criterion",
                         f"Use one of {', '.join(_CRITERIA)}")
    small = copy.deepcopy(model).eval()
    try:
        _cut(small, criterion, _ratios(small, config_list), example_inputs)
        call_model(small, example_inputs)
    except Exception:  # whatever its tracing stumbles over
        small = copy.deepcopy(model).eval()
        ratios = _ratios(small, config_list)
        for part, inputs in _parts(small, example_inputs):
            inner = {layer: ratio for layer, ratio in ratios.items() if _is_inner(part, layer, inputs)}
            if inner:
                _cut(part, criterion, inner, inputs)
    return small


def _torch_pruning() -> Any:
    try:
        import torch_pruning
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch-pruning", "torch-pruning") from error
    return torch_pruning


def _cut(model: nn.Module, criterion: str, ratios: Mapping[nn.Module, float], example_inputs: Any) -> None:
    torch_pruning = _torch_pruning()
    name, norm = _CRITERIA[criterion]
    torch_pruning.pruner.BasePruner(
        model, example_inputs, getattr(torch_pruning.importance, name)(p=norm), pruning_ratio=0.0,
        pruning_ratio_dict=dict(ratios),
        ignored_layers=[module for module in model.modules()
                        if isinstance(module, (nn.Conv2d, nn.Linear)) and module not in ratios]).step()


def _is_followed(model: nn.Module, example_inputs: Any) -> bool:
    """torch-pruning finds which layers of it depend on each other."""
    try:
        with keep_state(model):
            _torch_pruning().DependencyGraph().build_dependency(model, example_inputs)
    except Exception:  # whatever its tracing stumbles over
        return False
    return True


def _parts(model: nn.Module, example_inputs: Any) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
    """The largest modules that can be followed, each with what it reads; those that run twice are left out."""
    reads: dict[nn.Module, list[Any]] = {}
    hooks = [module.register_forward_pre_hook(lambda module, inputs: reads.setdefault(module, []).append(inputs))
             for module in model.modules()]
    try:
        call_model(model, example_inputs)
    finally:
        for hook in hooks:
            hook.remove()

    def within(module: nn.Module) -> Iterator[tuple[nn.Module, tuple[Tensor, ...]]]:
        for child in module.children():
            inputs = reads.get(child, [])
            plain = len(inputs) == 1 and bool(inputs[0]) and all(isinstance(value, Tensor) for value in inputs[0])
            if plain and any(True for _ in child.children()) and _is_followed(child, inputs[0]):
                yield child, inputs[0]
            else:
                yield from within(child)

    yield from within(model)


def _is_inner(part: nn.Module, layer: nn.Module, inputs: tuple[Tensor, ...]) -> bool:
    """Its filters are nobody's outside the part: without one of them the part still reads and gives the same."""
    name = next((name for name, module in part.named_modules() if module is layer), None)
    if name is None:
        return False
    tried = copy.deepcopy(part).eval()
    shapes = [output.shape for output in tensors_in(call_model(tried, inputs))]
    graph = _torch_pruning().DependencyGraph().build_dependency(tried, inputs)
    filters = tried.get_submodule(name)
    try:
        graph.get_pruning_group(filters, graph.get_pruner_of_module(filters).prune_out_channels, [0]).prune()
        return [output.shape for output in tensors_in(call_model(tried, inputs))] == shapes
    except Exception:  # it reads other channels now
        return False


def _ratios(model: nn.Module, config_list: list[dict[str, Any]]) -> dict[nn.Module, float]:
    """The sparse_ratio of every layer that the config_list selects."""
    ratios: dict[nn.Module, float] = {}
    for entry in config_list:
        flat: Mapping[str, Any] = {**entry, **(entry.get("target_settings") or {}).get("weight", {})}
        rules = {key: entry[key] for key in _SELECTING if entry.get(key) is not None}
        for layer in select_modules_by_config(model, rules)[0]:
            ratios.setdefault(model.get_submodule(layer), float(flat.get("sparse_ratio") or 0.0))
    return ratios
