"""The contenders, each as a `Method` of the training loop: what differs between two rows is here and nowhere else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from benchmarks.accuracy.rows import Row
from onexn_plugins import fold, measure
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import prunable_layers
from onexn_plugins.training import AlternatingBlocks, Blocks, Distilled, GradualBlocks, Method, RepairedBlocks
from onexn_plugins.training.data import Images

BISECTIONS = 10
# Gradual methods reach their ratio after this share of the steps; SR-STE's decay is its paper's.
UNTIL, SR_STE = 0.5, 2e-4
CALIBRATED = 512  # training images that repair looks at, without their labels


class FixedMask(nn.Module):
    """weight -> weight with single weights at zero; what 1×N masks do for blocks."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


class Weights(Method):
    """Single weights, chosen by NNI's LevelPruner, layer by layer."""

    def __init__(self, pruning_ratio: float) -> None:
        self.pruning_ratio = pruning_ratio

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        from nni.compression.pruning import LevelPruner

        pruner = LevelPruner(model, [{"op_names": list(prunable_layers(model)), "sparse_ratio": self.pruning_ratio}])
        _, masks = pruner.compress()
        pruner.unwrap_model()  # gives the dense weights back
        for name, targets in masks.items():
            parametrize.register_parametrization(model.get_submodule(name), "weight", FixedMask(targets["weight"]))
        return model


class Filters(Method):
    """Filters really cut, until no more multiply-accumulates are left than blocks would leave.

    Args:
        pruning_ratio: the share of the prunable layers' multiply-accumulates that blocks of this ratio remove.
    """

    def __init__(self, pruning_ratio: float) -> None:
        self.pruning_ratio = pruning_ratio

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        layers = measure(model, 1, example).layers
        target = sum((layer.dense_macs or 0) * (1 - self.pruning_ratio if layer.prunable else 1) for layer in layers)
        low, high, best = 0.0, 1.0, None
        for _ in range(BISECTIONS):
            middle = (low + high) / 2
            cut = self.cut(copy.deepcopy(model), example, middle)
            fits = (measure(cut, 1, example).dense_macs or 0) <= target
            low, high, best = (low, middle, cut) if fits else (middle, high, best)
        if best is None:
            raise OneXNError(type(self).__name__, f"cannot cut filters to {target:,.0f} multiply-accumulates",
                             "Choose a lower ratio")
        return best

    def cut(self, model: nn.Module, example: Tensor, ratio: float) -> nn.Module:
        """The model, which is given up, without this share of its filters."""
        raise NotImplementedError


class TorchPruningFilters(Filters):
    """By torch-pruning.

    Args:
        pruning_ratio: as in Filters.
        grouped: rank by group norm over coupled layers (DepGraph); else by each filter's own L1 norm.
    """

    def __init__(self, pruning_ratio: float, grouped: bool) -> None:
        super().__init__(pruning_ratio)
        self.grouped = grouped

    def cut(self, model: nn.Module, example: Tensor, ratio: float) -> nn.Module:
        import torch_pruning

        importance = (torch_pruning.importance.GroupMagnitudeImportance(p=2) if self.grouped
                      else torch_pruning.importance.MagnitudeImportance(p=1, group_reduction="first"))
        classifier = [module for module in model.modules() if isinstance(module, nn.Linear)]
        torch_pruning.pruner.BasePruner(model, example, importance=importance, pruning_ratio=ratio,
                                        ignored_layers=classifier).step()
        return model


class FiltersAtRatio(TorchPruningFilters):
    """That share of every layer's filters, as the paper compares: about 1 - (1 - ratio)² of the work goes."""

    def prepare(self, model: nn.Module, example: Tensor) -> nn.Module:
        return self.cut(model, example, self.pruning_ratio)


class NNIFilters(Filters):
    """By one of NNI's pruners, layers that depend on each other together, and its ModelSpeedup.

    Args:
        pruning_ratio: as in Filters.
        pruner: its name in nni.compression.pruning.
    """

    def __init__(self, pruning_ratio: float, pruner: str) -> None:
        super().__init__(pruning_ratio)
        self._pruner = pruner

    def cut(self, model: nn.Module, example: Tensor, ratio: float) -> nn.Module:
        import nni.compression.pruning
        from nni.compression.utils import auto_set_denpendency_group_ids  # sic

        from benchmarks.common.filter_pruning import prune_filters, tracing_on_this_torch

        config = [{"op_names": list(prunable_layers(model)), "sparse_ratio": ratio}]
        with tracing_on_this_torch():
            config = auto_set_denpendency_group_ids(model, config, example)
        return prune_filters(model, getattr(nni.compression.pruning, self._pruner), config, example)


def _options(row: Row) -> dict[str, Any]:
    return {"block_size": row.block_size, "pruning_ratio": row.pruning_ratio, "rearrange": row.rearrange}


def _kernels(row: Row, score: str) -> Method:
    return Blocks(block_size=1, pruning_ratio=row.pruning_ratio, score=score, seed=row.seed)


def _repaired(row: Row, images: Images, channels: float = 0.0) -> Method:
    return RepairedBlocks(images, count=CALIBRATED, channels=channels, seed=row.seed, **_options(row))


# A row and the training images -> what is done to the network.
METHODS: dict[str, Callable[[Row, Images], Method]] = {
    "start": lambda row, images: Method(),
    "dense": lambda row, images: Method(),
    "block_l1": lambda row, images: Blocks(**_options(row)),
    "block_random": lambda row, images: Blocks(score="random", seed=row.seed, **_options(row)),
    "block_gradual": lambda row, images: GradualBlocks(until=UNTIL, **_options(row)),
    "block_regrow": lambda row, images: GradualBlocks(until=UNTIL, straight_through=True, **_options(row)),
    "block_srste": lambda row, images: GradualBlocks(until=UNTIL, straight_through=True, decay=SR_STE,
                                                     **_options(row)),
    "block_distil": lambda row, images: Distilled(Blocks(**_options(row))),
    "block_acdc": lambda row, images: AlternatingBlocks(until=UNTIL, dense_phases=2, **_options(row)),
    "block_uniform": lambda row, images: Blocks(scope="row", score="angular", **_options(row)),
    "block_repair": _repaired,
    # What channels leave, and what blocks leave of that, are equal shares.
    "block_channels": lambda row, images: _repaired(row, images, 1 - math.sqrt(1 - row.pruning_ratio)),
    "kernels_l1": lambda row, images: _kernels(row, "l1"),
    "kernels_random": lambda row, images: _kernels(row, "random"),
    "weights_level": lambda row, images: Weights(row.pruning_ratio),
    "filters_magnitude": lambda row, images: TorchPruningFilters(row.pruning_ratio, grouped=False),
    "filters_group_norm": lambda row, images: TorchPruningFilters(row.pruning_ratio, grouped=True),
    "filters_distil": lambda row, images: Distilled(TorchPruningFilters(row.pruning_ratio, grouped=False)),
    "filters_at_ratio": lambda row, images: FiltersAtRatio(row.pruning_ratio, grouped=False),
    "filters_l1_nni": lambda row, images: NNIFilters(row.pruning_ratio, "L1NormPruner"),
    "filters_fpgm_nni": lambda row, images: NNIFilters(row.pruning_ratio, "FPGMPruner"),
}


def plain(model: nn.Module) -> nn.Module:
    """The trained model with its masks as zeros in the weights."""
    fold(model)
    for module in model.modules():
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.0)  # a negative weight under a mask is minus zero
    return model.eval()
