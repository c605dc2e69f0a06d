"""Filters cut in one call that returns the network alone; `onexn_plugins.nni.cut_filters` tells more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from onexn_plugins.nni import cut_filters
from onexn_plugins.nni.filters.tracer import tracing_on_this_torch

__all__ = ["prune_filters", "tracing_on_this_torch"]


def prune_filters(model: nn.Module, pruner_class: Callable[..., Any], config_list: list[dict[str, Any]],
                  example_inputs: Any) -> nn.Module:
    """The model with the filters that an NNI pruner masks cut out, in eval mode; the arguments are cut_filters'."""
    return cut_filters(model, pruner_class, config_list, example_inputs).model
