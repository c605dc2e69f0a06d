"""torch-pruning's DependencyGraph, traced without leaving a trace on the model."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch_pruning as tp
from torch import nn

from onexn_plugins.errors import OneXNError
from onexn_plugins.inputs import keep_state


def build_graph(
    model: nn.Module,
    example_inputs: Any,
    *,
    forward_fn: Callable[..., Any] | None = None,
    output_transform: Callable[..., Any] | None = None,
    unwrapped_parameters: Any = None,
    customized_pruners: Mapping[Any, Any] | None = None,
) -> tp.DependencyGraph:
    """The graph, with the model's mode, buffers, hooks and requires_grad as before.

    Raises:
        OneXNError: torch-pruning cannot trace the model.
    """
    graph = tp.DependencyGraph()
    with _untouched(model), torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for parameter in model.parameters():  # the trace follows gradients, so frozen layers would be invisible
            if parameter.is_floating_point():
                parameter.requires_grad_(True)
        try:
            graph.build_dependency(
                model, example_inputs, forward_fn=forward_fn or _forward, output_transform=output_transform,
                unwrapped_parameters=_as_pairs(unwrapped_parameters), customized_pruners=customized_pruners,
                verbose=False,
            )
        except Exception as error:
            reason = f"torch-pruning's dependency graph cannot trace it: {type(error).__name__}: {error}"
            raise OneXNError("model", reason, "Prune and rearrange without the graph; neither needs it") from error
    return graph


def _forward(model: nn.Module, example_inputs: Any) -> Any:
    """Run the model. torch-pruning by itself would unpack a batch of one image into its channels first."""
    if isinstance(example_inputs, dict):
        return model(**example_inputs)
    return model(*example_inputs) if isinstance(example_inputs, (list, tuple)) else model(example_inputs)


def _as_pairs(unwrapped_parameters: Any) -> list[Any] | None:
    """A list of our own, because torch-pruning appends to the one it is given; a dict is documented, pairs are read."""
    if unwrapped_parameters is None:
        return None
    pairs = unwrapped_parameters.items() if isinstance(unwrapped_parameters, Mapping) else unwrapped_parameters
    return list(pairs)


@contextmanager
def _untouched(model: nn.Module) -> Iterator[None]:
    hooks = {module: list(module._forward_hooks) for module in model.modules()}
    trainable = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with keep_state(model):
            yield
    finally:
        for module, known in hooks.items():
            for key in set(module._forward_hooks).difference(known):
                del module._forward_hooks[key]
        for parameter, requires_grad in trainable:
            parameter.requires_grad_(requires_grad)
