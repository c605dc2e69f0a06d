"""The best weights on the blocks that stay."""

from __future__ import annotations

import torch
from torch import Tensor

from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.elimination import DAMPING, damped
from onexn_plugins.repair.moments import Statistics

MEMORY = 2**29  # bytes of factors that are kept


def fit(weight: Tensor, keep: Tensor, pattern: BlockPattern, statistics: Statistics, *,
        damping: float = DAMPING) -> Tensor:
    """`LeastSquares` for one target."""
    return LeastSquares(weight, keep, pattern, statistics.inputs, damping=damping).fit(statistics)


class LeastSquares:
    """argmin |target − W x|² + damping |W − weight|² over weights whose other blocks are zero, for any targets.

    The kept inputs of a block row make one matrix, which is factored once.
    """

    def __init__(self, weight: Tensor, keep: Tensor, pattern: BlockPattern, inputs: Tensor, *,
                 damping: float = DAMPING) -> None:
        """
        Args:
            weight: the old one, [out, in / groups, *kernel].
            keep: bool [block_rows, in / groups].
            pattern: its blocks.
            inputs: covariance of what the layer reads, float64 [groups, d, d].
            damping: towards the old weight, in means of the covariance's diagonal.
        """
        self._weight, self._pattern = weight, pattern
        self._old = weight.detach().double().flatten(1).cpu()
        hessian = damped(inputs, damping)
        added = (hessian - inputs).diagonal(dim1=-2, dim2=-1)[:, :1]  # [groups, 1]
        self._pull = added.repeat_interleave(pattern.group_channels, 0) * self._old
        self._hessian = hessian.to(torch.float64 if weight.dtype == torch.float64 else torch.float32)
        self._columns = keep.cpu().repeat_interleave(weight[0, 0].numel(), 1)
        self._factors: dict[int, Tensor] = {}
        self._room = MEMORY

    def fit(self, statistics: Statistics) -> Tensor:
        """The weight; its squared error on these samples is never above that of the masked old one.

        Args:
            statistics: of the same inputs, with what the layer should give.
        """
        wanted = (statistics.cross.flatten(0, 1) + self._pull).to(self._hessian)
        fitted = self._all(wanted) if bool(self._columns.all()) else self._row_by_row(wanted)
        fitted = fitted.double().reshape(self._weight.shape).to(self._weight)
        masked = (self._old * self._columns[self._pattern.row_of]).reshape(self._weight.shape).to(self._weight)
        better = squared_error(fitted, statistics) <= squared_error(masked, statistics)  # but for rounding always
        shape = (-1, *(1,) * (self._weight.dim() - 1))
        return torch.where(better.flatten().reshape(shape).to(self._weight.device), fitted, masked)

    def _all(self, wanted: Tensor) -> Tensor:
        """Nothing is removed: one matrix for each group."""
        rows = wanted.unflatten(0, (len(self._hessian), -1))
        if -1 not in self._factors:
            self._factors[-1] = torch.linalg.cholesky(self._hessian)
        return torch.cholesky_solve(rows.mT, self._factors[-1]).mT.flatten(0, 1)

    def _row_by_row(self, wanted: Tensor) -> Tensor:
        fitted = torch.zeros_like(wanted)
        heights = self._pattern.row_heights().tolist()
        for row, (own, result) in enumerate(zip(wanted.split(heights), fitted.split(heights), strict=True)):
            kept = self._columns[row].nonzero().flatten()
            if len(kept):
                result[:, kept] = torch.cholesky_solve(own[:, kept].T, self._factor(row, kept)).T
        return fitted

    def _factor(self, row: int, kept: Tensor) -> Tensor:
        if row in self._factors:
            return self._factors[row]
        own = self._hessian[row // self._pattern.rows_per_group].index_select(0, kept).index_select(1, kept)
        factor = torch.linalg.cholesky(own)
        if (size := factor.numel() * factor.element_size()) <= self._room:  # else it is found again each time
            self._factors[row], self._room = factor, self._room - size
        return factor


def squared_error(weight: Tensor, statistics: Statistics) -> Tensor:
    """Mean squared error of each output channel about its best offset, float64 [groups, out / groups]."""
    rows = weight.detach().double().cpu().flatten(1).unflatten(0, (len(statistics.inputs), -1))
    explained = 2 * (rows * statistics.cross).sum(2) - ((rows @ statistics.inputs) * rows).sum(2)
    return (statistics.target_variance - explained).clamp_min(0)


def offset(weight: Tensor, statistics: Statistics) -> Tensor:
    """What must be added to the outputs so that their means are the targets', float64 [out]."""
    rows = weight.detach().double().cpu().flatten(1).unflatten(0, (len(statistics.inputs), -1))
    return (statistics.target_mean - (rows @ statistics.mean[:, :, None])[:, :, 0]).flatten()
