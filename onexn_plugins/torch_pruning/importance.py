"""Block scores as torch-pruning importances, and torch-pruning's own importances as block scores."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from onexn_plugins import scores
from onexn_plugins.errors import OneXNError
from onexn_plugins.layers import PRUNABLE, PrunableLayer, is_depthwise, out_first, pattern_of
from onexn_plugins.masking import dense_filters, dense_weight
from onexn_plugins.pattern import BlockPattern
from onexn_plugins.scores import BlockScore
from onexn_plugins.torch_pruning.groups import BlockGroup, root_item

# Importances with no meaning for a block, and why.
UNUSABLE = {
    "BNScaleImportance": "a batch norm's scale belongs to a whole channel, not to a block",
    "FPGMImportance": "it compares all pairs of blocks, which are too many",
    "OBDCImportance": "its Fisher matrices belong to whole layers of the graph",
}


class BlockImportance(tp.importance.Importance):  # type: ignore[misc]
    """An importance that scores blocks: subclass it and write `score`.

    Called with a group (ours, or any of torch-pruning's, whose root layer counts), it returns float64
    [block_rows, in / groups]. Inside a OneXNPruner the pruner's block_size holds.
    """

    def __init__(self, block_size: int = 4) -> None:
        self.block_size = block_size

    @torch.no_grad()
    def __call__(self, group: Any) -> Tensor:
        layer, name = group[0].dep.target.module, _name_of(group)
        if not isinstance(layer, PrunableLayer) or is_depthwise(layer):
            raise OneXNError(name, f"is a {'depthwise ' * is_depthwise(layer)}{type(layer).__name__}, which has no "
                             "1×N blocks", f"Score {PRUNABLE} layers that are not depthwise")
        block_size = group.block_size if isinstance(group, BlockGroup) else self.block_size
        return scores.score_blocks(self.score, dense_filters(layer), pattern_of(layer, block_size, name), name)

    @abc.abstractmethod
    def score(self, weight: Tensor, pattern: BlockPattern, name: str) -> Tensor:
        """Scores [block_rows, in / groups] of a weight [out, in / groups, *kernel]; the lowest are pruned first."""


class BlockScoreImportance(BlockImportance):
    """Any score of the package by its name in `onexn_plugins.scores.SCORES`, or a function of your own.

    Args:
        score: the name, or a function (weight, pattern, layer) -> scores [block_rows, in / groups].
        seed: of random choices.
        images: calibration data, for scores that need some.
        block_size: as in `BlockImportance`.

    Raises:
        OneXNError: there is no such score.
    """

    def __init__(self, score: str | BlockScore = "l1", *, seed: int = 0, images: Any = None,
                 block_size: int = 4) -> None:
        super().__init__(block_size)
        scores.check_score(score)
        self.seed, self.images, self._score = seed, images, score
        self._model: nn.Module | None = None
        self._made: BlockScore | None = None

    def bind(self, model: nn.Module) -> None:
        """Score layers of this model from now on; OneXNPruner says so before it changes anything."""
        if self._made is None or self._model is not model:
            self._made = scores.make_score(self._score, scores.Sources(model, self.images, self.seed))
            self._model = model

    def score(self, weight: Tensor, pattern: BlockPattern, name: str) -> Tensor:
        if self._made is None:
            self._made = scores.make_score(self._score, scores.Sources(None, self.images, self.seed))
        return self._made(weight, pattern, name)


class BlockL1Importance(BlockScoreImportance):
    """The L1 norm of every block (TPAMI 2022, equation 4); tails are compared per kernel."""

    def __init__(self, block_size: int = 4) -> None:
        super().__init__("l1", block_size=block_size)


class BlockRandomImportance(BlockScoreImportance):
    """Uniform random scores: the same seed and layer name give the same blocks, in every step and every toolkit."""

    def __init__(self, seed: int = 0, block_size: int = 4) -> None:
        super().__init__("random", seed=seed, block_size=block_size)


class BlockOBSImportance(BlockScoreImportance):
    """What removing each block costs on images, by exact elimination (`onexn_plugins.repair`); labels are not used.

    Args:
        images: a few hundred, as `onexn_plugins.repair.repair` takes them.
        block_size: as in `BlockImportance`.
    """

    def __init__(self, images: Any, block_size: int = 4) -> None:
        super().__init__("obs", images=images, block_size=block_size)


def check_importance(importance: Any) -> Callable[[Any], Tensor]:
    """The importance itself; OneXNError unless it can score blocks."""
    kind = type(importance).__name__
    if not callable(importance) or isinstance(importance, type):
        raise OneXNError("importance", f"must be called with a group, got {importance!r}",
                         "Pass an instance, for example BlockL1Importance() or BlockScoreImportance(name)")
    for unusable, reason in UNUSABLE.items():
        if isinstance(importance, getattr(tp.importance, unusable)):
            raise OneXNError(f"importance {kind}", reason, "Use BlockL1Importance, or torch-pruning's "
                             "MagnitudeImportance, LAMPImportance, TaylorImportance or HessianImportance")
    return importance


def block_scores(importance: Callable[[Any], Any], group: BlockGroup) -> Tensor:
    """Scores [block_rows, in / groups] of the group's layer by any importance.

    A `BlockImportance` scores blocks by itself. Any other takes channels: it is shown a layer in which every
    block of the real one is an output channel, with the weights and gradients of the block. So its formula and its
    normalizer hold, with "channel" read as "block". Missing kernels of tails count as zero; the tail's score is
    then scaled up to N kernels.

    Raises:
        OneXNError: the importance fails, gives no score, or scores that are not finite.
    """
    if isinstance(importance, BlockImportance):
        return scores.check_scores(importance(group), group.pattern, group.name)
    layer = group.layer
    weight = dense_weight(layer)
    pattern = group.pattern
    kind = type(importance).__name__
    if isinstance(importance, tp.importance.GroupHessianImportance):
        importance(tp.dependency.Group())  # moves the squared gradients it accumulated into weight.grad
    try:
        per_block = importance(_blocks_as_channels(layer, pattern))
    except Exception as error:
        raise OneXNError(group.name, f"{kind} fails on its blocks: {error}", _advice(weight)) from error
    if not isinstance(per_block, Tensor) or per_block.numel() != pattern.num_blocks:
        raise OneXNError(group.name, f"{kind} gives no score for each of its {pattern.num_blocks} blocks",
                         _advice(weight))
    filled = scores.fill_tails(per_block.detach().double().reshape(pattern.shape), pattern)
    return scores.check_scores(filled, pattern, group.name)


def _blocks_as_channels(layer: PrunableLayer, pattern: BlockPattern) -> tp.dependency.Group:
    """A full group of a stand-in Linear layer [num_blocks, N × taps] that holds the layer's blocks."""
    weight = dense_weight(layer)

    def as_matrix(tensor: Tensor) -> Tensor:
        return pattern.blocks(out_first(layer, tensor.detach())).reshape(pattern.num_blocks, -1)

    matrix = as_matrix(weight)
    stand_in = nn.Linear(matrix.shape[1], matrix.shape[0], bias=False, device="meta")
    stand_in.weight = nn.Parameter(matrix)
    if weight.grad is not None:
        stand_in.weight.grad = as_matrix(weight.grad)
    group = tp.dependency.Group()
    group._group = [root_item(stand_in, "blocks")]
    return group


def _advice(weight: Tensor) -> str:
    if weight.grad is None:
        return "If the importance reads gradients, call loss.backward() before pruner.step()"
    return "Use an importance that scores output channels by their weights and gradients, or subclass BlockImportance"


def _name_of(group: Any) -> str:
    if isinstance(group, BlockGroup):
        return group.name
    graph = group._DG
    return graph._module2name[group[0].dep.target.module] if graph is not None else "layer"
