"""NNI's filter pruners as baselines: `ModelSpeedup` cuts the masked filters out, here also on a torch newer than 2.0.

NNI 3.0 is from 2023. Its tracer stumbles over two things in torch 2.13: builtin functions without a module name, which
it takes for functions to wrap, and `torch.fx.Node.is_impure`, which has gained an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from nni.common.concrete_trace_utils import concrete_tracer
from nni.compression.speedup import ModelSpeedup
from torch import nn

# Builtins of these classes have no module name either, but the tracer handles them. torch has renamed the first one.
KNOWN_CLASSES = ("_TensorBase", "_VariableFunctionsClass")


def prune_filters(model: nn.Module, pruner_class: Callable[..., Any], config_list: list[dict[str, Any]],
                  example_inputs: Any) -> nn.Module:
    """The model with the filters that an NNI pruner masks cut out, in eval mode; fine-tune it afterwards.

    Args:
        model: given up: NNI changes it.
        pruner_class: for example nni.compression.pruning.L1NormPruner or FPGMPruner.
        config_list: for the pruner.
        example_inputs: a tensor or a tuple; one batch that the model runs on.
    """
    pruner = pruner_class(model, config_list)
    _, masks = pruner.compress()
    pruner.unwrap_model()  # not fold(): ModelSpeedup infers from zeros in the weights, and then cuts inconsistently
    with tracing_on_this_torch():
        return ModelSpeedup(model, example_inputs, masks).speedup_model().eval()  # replaced layers come in train mode


@contextmanager
def tracing_on_this_torch() -> Iterator[None]:
    """While it lasts, NNI's concrete tracer works on torch 2.13."""
    leaves = concrete_tracer.ConcreteTracer.default_autowrap_leaf_function
    all_leaves, is_impure = dict(leaves), concrete_tracer.node_is_impure_wrapper

    def is_impure_with_any_arguments(node: Any, *arguments: Any, **options: Any) -> bool:
        return is_impure(node)

    for function in all_leaves:
        if _has_no_name(function):
            del leaves[function]
    concrete_tracer.node_is_impure_wrapper = is_impure_with_any_arguments
    try:
        yield
    finally:
        leaves.update(all_leaves)
        concrete_tracer.node_is_impure_wrapper = is_impure


def _has_no_name(function: Any) -> bool:
    return getattr(function, "__module__", "") is None and not getattr(function, "__qualname__", "").startswith(
        KNOWN_CLASSES)
