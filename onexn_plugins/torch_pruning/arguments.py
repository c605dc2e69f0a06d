"""What the arguments of torch-pruning's BasePruner mean for blocks, checked before anything changes."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import call_model, check_inputs, keep_state
from onexn_plugins.layers import PrunableLayer, out_channels
from onexn_plugins.plain_modules import check_plain
from onexn_plugins.selection import SCOPES, check_ratio

Scheduler = Callable[[float, int], Sequence[float]]
Regrowth = float | Callable[[int, int], float]

BASE_PRUNER = {name: parameter.default
               for name, parameter in inspect.signature(tp.pruner.BasePruner).parameters.items()}
# Arguments of BasePruner that only say how the model is traced.
TRACING = ("forward_fn", "output_transform", "unwrapped_parameters", "customized_pruners")
# Arguments of BasePruner that were renamed.
RENAMED = {"ch_sparsity": "pruning_ratio", "ch_sparsity_dict": "pruning_ratio_dict"}
# Arguments of BasePruner that concern removed channels or heads: why they are refused, and what to do instead.
NO_CHANNELS = "1×N masks weights and removes neither channels nor heads"
REFUSED = dict.fromkeys(
    ("in_channel_groups", "out_channel_groups", "channel_groups", "num_heads", "prune_num_heads", "prune_head_dims",
     "head_pruning_ratio", "head_pruning_ratio_dict"),
    (NO_CHANNELS, "Leave it out; conv groups are found by themselves"))


def tracing_arguments(others: Mapping[str, Any]) -> dict[str, Any]:
    """Those of BasePruner's other arguments that say how to trace the model.

    Raises:
        OneXNError: BasePruner has no such argument, or it concerns removed channels and is not at its default.
    """
    for name, value in others.items():
        if name not in (*TRACING, *RENAMED, *REFUSED):
            close = difflib.get_close_matches(name, BASE_PRUNER, n=1)
            raise OneXNError(name, "OneXNPruner has no such argument",
                             f"Did you mean {close[0]}" if close else "See help(OneXNPruner)")
        # {} on its own account: torch-pruning's pruners write into the dicts that are their defaults
        if name in REFUSED and value is not None and value != {} and value != BASE_PRUNER[name]:
            raise OneXNError(name, *REFUSED[name])
    return {name: others.get(name) for name in TRACING}


def renamed_argument(others: Mapping[str, Any], old_name: str, value: Any) -> Any:
    """The value of a deprecated argument where it is given, else `value`."""
    if others.get(old_name) is None:
        return value
    warnings.warn(f"{old_name} is deprecated in torch-pruning; use {RENAMED[old_name]}", stacklevel=3)
    return others[old_name]


def check_widths(layers: Mapping[str, PrunableLayer], round_to: object) -> None:
    """Raise OneXNError unless every width is a multiple of round_to already: masks leave widths as they are."""
    if round_to is None:
        return
    if isinstance(round_to, bool) or not isinstance(round_to, int) or round_to < 1:
        raise OneXNError("round_to", f"must be a positive integer, got {round_to!r}", "Leave it out")
    for name, layer in layers.items():
        width = out_channels(layer)
        if width % round_to:
            raise OneXNError("round_to", f"{NO_CHANNELS}, so {name} keeps its {width} channels, no multiple of "
                             f"{round_to}", "Give round_to to the structural pruner that runs before this one")


def check_scope(scope: object, global_pruning: object, isomorphic: object, min_pruning_ratio: object) -> str:
    """The scope, with torch-pruning's global_pruning=True as another word for "global"."""
    if not isinstance(scope, str) or scope not in SCOPES:
        raise OneXNError("scope", f"must be one of {', '.join(SCOPES)}, got {scope!r}", "Use scope='layer'")
    if global_pruning and scope == "row":
        raise OneXNError("scope", "global_pruning=True contradicts scope='row'", "Leave one of them out")
    resolved = "global" if global_pruning else scope
    if resolved != "global" and isomorphic:
        raise OneXNError("isomorphic", "it sorts layers that compete globally into classes", "Pass scope='global' too")
    if resolved != "global" and min_pruning_ratio:
        raise OneXNError("min_pruning_ratio", f"with scope={resolved!r} every layer has the ratio it was given",
                         "Pass scope='global' too")
    return resolved


def check_steps(iterative_steps: object) -> int:
    """iterative_steps itself; OneXNError unless it is a positive integer."""
    if isinstance(iterative_steps, bool) or not isinstance(iterative_steps, int) or iterative_steps < 1:
        raise OneXNError("iterative_steps", f"must be a positive integer, got {iterative_steps!r}",
                         "Use 1 for one shot")
    return iterative_steps


def check_state(state: object, recipe: Mapping[str, Any], iterative_steps: int) -> None:
    """Raise OneXNError unless it has the form of a pruner's state, with a step that a run of so many can stand at."""
    if isinstance(state, Mapping) and set(state) == {"step", "recipe"} and isinstance(state["recipe"], Mapping):
        step = state["step"]
        counted = isinstance(step, int) and not isinstance(step, bool) and 0 <= step <= iterative_steps
        if counted and set(state["recipe"]) == set(recipe):
            return
    raise OneXNError("state", "is no state of a OneXNPruner", "Pass what pruner.state_dict() returned")


def check_regrowth(regrowth: Any, straight_through: object) -> Callable[[int, int], float]:
    """The fraction of pruned blocks that compete again, as a function of (step, iterative_steps)."""
    if regrowth != 0.0 and not straight_through:
        raise OneXNError("regrowth", "a block behind a hard mask gets no gradient, so it cannot earn its way back",
                         "Pass straight_through=True too")
    if callable(regrowth):
        return lambda step, steps: check_ratio(regrowth(step, steps), "regrowth")
    fraction = check_ratio(regrowth, "regrowth")
    return lambda step, steps: fraction


def schedule(scheduler: Scheduler, ratio: object, steps: int, layer: str) -> tuple[float, ...]:
    """The ratios of steps 0 .. steps by torch-pruning's scheduler(ratio, steps).

    Raises:
        OneXNError: the ratio or an entry is outside [0, 1], there are too few entries, or they fall.
    """
    final, name = check_ratio(ratio, layer), "iterative_pruning_ratio_scheduler"
    try:
        ratios = tuple(float(value) for value in scheduler(final, steps))
    except Exception as error:
        raise OneXNError(name, f"it fails for ratio {final} in {steps} steps: {error}",
                         "Pass a function (ratio, steps) that returns a list of steps + 1 ratios") from error
    if len(ratios) <= steps:
        raise OneXNError(name, f"it gives {len(ratios)} ratios for {steps} steps", "Return steps + 1 ratios")
    for value in ratios:
        check_ratio(value, name)
    if list(ratios) != sorted(ratios):
        raise OneXNError(name, "its ratios fall, but the number of pruned blocks never does",
                         "Return ratios that never fall; regrowth exchanges blocks at the same ratio")
    return ratios


def check_model(model: object, example_inputs: Any, forward_fn: Callable[..., Any] | None) -> None:
    """Raise OneXNError unless the model runs on example_inputs; its mode and buffers are given back."""
    if not isinstance(model, nn.Module):
        raise OneXNError("model", f"must be a torch.nn.Module, got {type(model).__name__}", "Pass the network itself")
    check_plain(model)
    check_inputs(example_inputs)
    with keep_state(model):
        model.eval()
        if forward_fn is None:
            call_model(model, example_inputs)
            return
        try:
            with torch.no_grad():
                forward_fn(model, example_inputs)
        except Exception as error:
            raise OneXNError("forward_fn", f"it fails on example_inputs: {error}",
                             "Pass a function (model, example_inputs) that runs the model") from error
