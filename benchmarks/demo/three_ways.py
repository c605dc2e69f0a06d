"""Three ways to prune the small network: blocks (ours), single weights (NNI), whole filters (torch-pruning).

Every way takes a trained model and a ratio, and gives a model to fine-tune and a function that makes the result
plain. They are compared at equal multiply-accumulates: blocks and single weights remove the same share of the same
layers' weights, filters are removed until the whole network needs no more multiply-accumulates than that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.demo.settings import BLOCK_SIZE
from onexn_plugins import fold, measure
from onexn_plugins.layers import prunable_layers

# A model to fine-tune, and what makes it plain afterwards.
Pruned = tuple[nn.Module, Callable[[], nn.Module]]

DENSE, BLOCKS, WEIGHTS, FILTERS = "dense", f"1×{BLOCK_SIZE} blocks", "single weights", "filters"
BISECTIONS = 10
# Dense runtimes work on channels in eights; other widths would make filter pruning look slower than it is.
ROUND_TO = 8


def prune(way: str, model: nn.Module, example: Tensor, ratio: float) -> Pruned:
    """A copy of `model` pruned one way; `model` itself is left alone.

    Args:
        way: DENSE (a copy that is only trained on), BLOCKS, WEIGHTS or FILTERS.
        model: trained, in eval mode.
        example: one input.
        ratio: fraction removed of the prunable layers' blocks or weights.
    """
    model = copy.deepcopy(model)
    if way == BLOCKS:
        return _blocks(model, example, ratio)
    if way == WEIGHTS:
        return _single_weights(model, ratio)
    if way == FILTERS:
        return _filters(model, example, ratio)
    return model, lambda: model


def _blocks(model: nn.Module, example: Tensor, ratio: float) -> Pruned:
    from onexn_plugins.torch_pruning import OneXNPruner

    OneXNPruner(model, example, block_size=BLOCK_SIZE, pruning_ratio=ratio, rearrange=True).step()
    return model, lambda: fold(model)


def _single_weights(model: nn.Module, ratio: float) -> Pruned:
    """NNI's LevelPruner on the same layers."""
    from nni.compression.pruning import LevelPruner

    pruner = LevelPruner(model, [{"op_names": list(prunable_layers(model)), "sparse_ratio": ratio}])
    _, masks = pruner.compress()

    def finish() -> nn.Module:
        # Unwrapping gives back the dense weights.
        pruner.unwrap_model()
        with torch.no_grad():
            for name, mask in masks.items():
                model.get_parameter(f"{name}.weight").mul_(mask["weight"])
        return model

    return model, finish


def _filters(model: nn.Module, example: Tensor, ratio: float) -> Pruned:
    """torch-pruning's MagnitudePruner, with the smallest channel ratio whose network needs no more work than blocks."""
    target = equal_macs(model, example, ratio)
    low, high = 0.0, 0.99
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if _macs(_without_filters(model, example, middle), example) > target:
            low = middle
        else:
            high = middle
    pruned = _without_filters(model, example, high)
    return pruned, lambda: pruned


def equal_macs(model: nn.Module, example: Tensor, ratio: float) -> float:
    """Multiply-accumulates left when `ratio` of every prunable layer's weights are zero."""
    layers = measure(model, BLOCK_SIZE, example).layers
    return sum((layer.dense_macs or 0) * (1 - ratio if layer.prunable else 1.0) for layer in layers)


def _without_filters(model: nn.Module, example: Tensor, ratio: float) -> nn.Module:
    import torch_pruning

    model = copy.deepcopy(model)
    classifier = [module for module in model.modules() if isinstance(module, nn.Linear)]
    torch_pruning.pruner.MagnitudePruner(
        model, example, importance=torch_pruning.importance.MagnitudeImportance(p=1), pruning_ratio=ratio,
        ignored_layers=classifier, round_to=ROUND_TO,
    ).step()
    return model


def _macs(model: nn.Module, example: Tensor) -> int:
    return measure(model, BLOCK_SIZE, example).macs or 0
