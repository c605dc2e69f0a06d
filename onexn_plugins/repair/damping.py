"""How far a layer's least squares is damped towards its old weights: by what images that it was not fitted on say.

Late layers read more channels than a few hundred images tell apart. Fitted freely they know those images by heart, and
are further off on others than if they had been held back; early ones are not. Each layer is told by cross-validation
(Stone, Journal of the Royal Statistical Society 1974): fitted without a share of the images, judged on them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.elimination import DAMPING
from onexn_plugins.repair.least_squares import LeastSquares, offset
from onexn_plugins.repair.moments import Moments

FOLDS = 3
DAMPINGS = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0)  # that are tried in turn, in means of the covariance's diagonal
ROWS = 6  # block rows that they are tried on


def folded(groups: int, inputs: int, outputs: int) -> list[Moments]:
    """Empty moments, one for each share of the images."""
    return [Moments(groups, inputs, outputs) for _ in range(FOLDS)]


def best_damping(weight: Tensor, keep: Tensor, pattern: BlockPattern, folds: Sequence[Moments],
                 centred: bool) -> float:
    """The damping with which images that were left out are met best; `DAMPING` where none can be left out.

    Args:
        weight: the old one, [out, in / groups, *kernel].
        keep: bool [block_rows, in / groups].
        pattern: its blocks.
        folds: moments of the samples with their targets, of one share of the images each.
        centred: may the outputs be shifted?
    """
    folds = [fold for fold in folds if fold.count]
    if len(folds) < 2:
        return DAMPING
    weight, keep, pattern, folds = _some_rows(weight, keep, pattern, folds)
    whole = Moments.total(folds)
    rests = [whole.plus(fold, -1) for fold in folds]
    covariances = [rest.statistics(centred).inputs for rest in rests]

    def error(damping: float) -> float:
        return sum(squared_error_on(fold, *fitted(
            LeastSquares(weight, keep, pattern, covariance, damping=damping), rest, centred))
            for fold, rest, covariance in zip(folds, rests, covariances, strict=True))

    best, least = DAMPINGS[0], error(DAMPINGS[0])
    for damping in DAMPINGS[1:]:
        if (own := error(damping)) > least:  # from too little to too much it falls, then it rises
            break
        best, least = damping, own
    return best


def fitted(solver: LeastSquares, moments: Moments, centred: bool) -> tuple[Tensor, Tensor]:
    """(weight, shift [out]) for these targets."""
    statistics = moments.statistics(centred)
    found = solver.fit(statistics)
    return found, offset(found, statistics) if centred else torch.zeros(len(found), dtype=torch.float64)


def squared_error_on(moments: Moments, weight: Tensor, shift: Tensor) -> float:
    """Of a weight and a shift [out], summed over these samples and all outputs."""
    rows = weight.detach().double().cpu().flatten(1).unflatten(0, (len(moments.inputs), -1))
    shift = shift.double().reshape(rows.shape[:2])
    means = (rows @ moments.input_sums[:, :, None])[:, :, 0]
    error = ((rows @ moments.inputs) * rows).sum(2) - 2 * (rows * moments.cross).sum(2) + moments.target_squares
    return float((error + 2 * shift * (means - moments.target_sums) + moments.count * shift.square()).sum())


def _some_rows(weight: Tensor, keep: Tensor, pattern: BlockPattern, folds: Sequence[Moments]) -> tuple[
        Tensor, Tensor, BlockPattern, list[Moments]]:
    """The same problem with a few of the block rows; those of a layer with groups are small, and all stay."""
    step = pattern.block_rows // ROWS
    if pattern.groups > 1 or step < 2:
        return weight, keep, pattern, list(folds)
    rows = torch.arange(0, pattern.block_rows, step)
    channels = torch.isin(pattern.row_of, rows).nonzero().flatten()
    few = BlockPattern(len(channels), pattern.in_channels, pattern.block_size)
    return weight[channels], keep[rows], few, [fold.of_outputs(channels) for fold in folds]
