"""Block scores: how much each block matters. Functions of weights, float64 [block_rows, in / groups] out.

`SCORES` is the one table that every adapter and the command line read: a score is an entry in it. What a score needs
besides the weight it takes from its `Sources` when it is made.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError, first_line
from onexn_plugins.pattern import BlockPattern, kernel_l1

# How many cosines between blocks are held at a time.
_COSINES = 2**24

# (weight [out, in / groups, *kernel], its pattern, the layer's name) -> scores [block_rows, in / groups]
BlockScore = Callable[[Tensor, BlockPattern, str], Tensor]


def l1(weight: Tensor, pattern: BlockPattern) -> Tensor:
    """L1 norm of every block (TPAMI 2022, equation 4), float64 [block_rows, in / groups].

    A tail block holds fewer kernels, so its norm is scaled up to N kernels: blocks compete per kernel.
    """
    return aggregate(kernel_l1(weight), pattern)


def aggregate(per_kernel: Tensor, pattern: BlockPattern) -> Tensor:
    """Any per-kernel score [out, in / groups] summed over blocks, tails scaled up to N kernels."""
    return fill_tails(pattern.split(per_kernel).sum(1), pattern)


def fill_tails(per_block: Tensor, pattern: BlockPattern) -> Tensor:
    """Summed block scores [block_rows, in / groups] with those of tail blocks scaled up to N kernels."""
    fill = pattern.block_size / pattern.row_heights().to(per_block)
    return per_block * fill[:, None]


def angular(weight: Tensor, pattern: BlockPattern) -> Tensor:
    """Norm against redundancy within a block row (SUBP, NeurIPS 2023), float64 [block_rows, in / groups].

    A block's share of its row's L1 norm, less its share of the row's |cos| between blocks: of blocks that point the
    same way one is enough. Shares are in units of 1 / in, and one is added, so that every row's mean is 1.
    """
    blocks = pattern.blocks(weight.detach()).double()
    norms = blocks.abs().sum(-1)
    directions = F.normalize(blocks, dim=-1)
    rows = max(1, _COSINES // pattern.in_channels**2)
    cosines = torch.cat([(part @ part.mT).abs().sum(-1) for part in directions.split(rows)])
    cosines = cosines.where(norms > 0, float(pattern.in_channels))  # zeros have no direction, and are no loss
    return pattern.in_channels * (_shares(norms) - _shares(cosines)) + 1


def _shares(values: Tensor) -> Tensor:
    """Of each row's sum; equal ones where that is zero."""
    sums = values.sum(1, keepdim=True)
    return torch.where(sums > 0, values / sums, 1 / values.shape[1])


def random(pattern: BlockPattern, *, seed: int = 0, layer: str = "", step: int = 0) -> Tensor:
    """Uniform scores, float64 [block_rows, in / groups]: pruning the lowest k draws k blocks without replacement.

    The stream depends on the seed, the layer's name and the step alone, so every toolkit draws the same
    blocks in whatever order it visits the layers.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{layer}/{step}".encode()))
    return torch.rand(pattern.shape, generator=generator, dtype=torch.float64)


@dataclass(frozen=True)
class Sources:
    """What a score may draw on besides the weight.

    Attributes:
        model: the model to prune; None outside a pruner.
        images: calibration data as the user gave it; None where none was given.
        seed: of random choices.
    """

    model: nn.Module | None = None
    images: Any = None
    seed: int = 0


@dataclass(frozen=True)
class ScoreEntry:
    """One score that the user can ask for by name.

    Attributes:
        make: called once per pruner, before the model is changed: it raises OneXNError where the sources lack what
            the score needs. State of the model is gathered when the first layer is scored, because channels may move
            in between.
        summary: one line for --help.
        is_norm: its values are norms of blocks, so a user can name a threshold among them.
    """

    make: Callable[[Sources], BlockScore]
    summary: str
    is_norm: bool = False


def _obs(sources: Sources) -> BlockScore:
    from onexn_plugins.repair.score import EliminationScore  # which stands above this file, as it needs a model

    return EliminationScore(sources.model, sources.images)


SCORES: dict[str, ScoreEntry] = {
    "l1": ScoreEntry(lambda sources: lambda weight, pattern, layer: l1(weight, pattern),
                     "L1 norm of every block, as in the paper", is_norm=True),
    "angular": ScoreEntry(lambda sources: lambda weight, pattern, layer: angular(weight, pattern),
                          "L1 norm less redundancy within the block row, as in SUBP; for scope row"),
    "random": ScoreEntry(lambda sources: lambda weight, pattern, layer: random(pattern, seed=sources.seed, layer=layer),
                         "drawn without replacement, the same blocks in every toolkit"),
    "obs": ScoreEntry(_obs, "what each block's removal costs on unlabelled images, the others corrected"),
}


def check_score(score: object) -> None:
    """Raise OneXNError unless it is a name in the table, or callable as a `BlockScore`."""
    if isinstance(score, str) and score in SCORES:
        return
    if not callable(score) or isinstance(score, type):
        raise OneXNError("score", f"must be one of {', '.join(SCORES)}, got {score!r}",
                         "Leave it out for l1, or pass a function (weight, pattern, layer) that scores blocks")


def make_score(score: str | BlockScore, sources: Sources) -> BlockScore:
    """The function behind a name of the table; a function of the user's own is taken as it is.

    Raises:
        OneXNError: it is neither, or the score lacks what it needs.
    """
    check_score(score)
    return SCORES[score].make(sources) if isinstance(score, str) else score


@torch.no_grad()
def score_blocks(score: BlockScore, weight: Tensor, pattern: BlockPattern, layer: str) -> Tensor:
    """The scores of one layer, on the weight's device.

    Raises:
        OneXNError: the weight is not finite, or the score fails, or does not give a finite number for every block.
    """
    check_finite(weight, layer)
    try:
        scores = score(weight.detach(), pattern, layer)
    except OneXNError:
        raise
    except Exception as error:
        raise OneXNError(layer, f"its score fails: {first_line(error)}",
                         "Pass a function (weight, pattern, layer) that scores blocks") from error
    return check_scores(scores, pattern, layer).detach().to(weight.device, torch.float64)


def check_scores(scores: object, pattern: BlockPattern, layer: str) -> Tensor:
    """The scores; OneXNError unless they hold one finite number for every block."""
    if not isinstance(scores, Tensor) or tuple(scores.shape) != pattern.shape:
        shape = tuple(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
        raise OneXNError(layer, f"its score gives {shape}, not {pattern.shape}",
                         "Return one score for every block, [block_rows, in_channels / groups]")
    if not bool(torch.isfinite(scores).all()):
        raise OneXNError(layer, "its score gives NaN or infinite values",
                         "Check its gradients (a normalizer divides by zero where all are zero), or ignore the layer")
    return scores


def check_finite(weight: Tensor, layer: str) -> None:
    """Raise OneXNError where the weight holds NaN or infinity: such blocks cannot be ranked."""
    if not bool(torch.isfinite(weight.detach()).all()):
        raise OneXNError(layer, "its weight holds NaN or infinite values",
                         "Load a checkpoint that trained without diverging, or leave this layer out")
