"""The best weights on the blocks that stay."""

from __future__ import annotations

import torch
from torch import Tensor

from onexn_plugins.pattern import BlockPattern
from onexn_plugins.repair.elimination import DAMPING, damped
from onexn_plugins.repair.moments import Statistics


def fit(weight: Tensor, keep: Tensor, pattern: BlockPattern, statistics: Statistics, *,
        damping: float = DAMPING) -> Tensor:
    """argmin |target − W x|² + damping |W − weight|² over weights whose other blocks are zero.

    Its squared error on these samples is never above that of the masked weight.

    Args:
        weight: the old one, [out, in / groups, *kernel].
        keep: bool [block_rows, in / groups].
        pattern: its blocks.
        statistics: of what the layer reads and should give.
        damping: towards the old weight, in means of the covariance's diagonal.
    """
    taps = weight[0, 0].numel()
    old = weight.detach().double().flatten(1).cpu()
    dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
    hessian = damped(statistics.inputs, damping)
    added = (hessian - statistics.inputs).diagonal(dim1=-2, dim2=-1)[:, :1]  # [groups, 1]
    wanted = statistics.cross.flatten(0, 1) + added.repeat_interleave(pattern.group_channels, 0) * old
    row_of = pattern.expand(torch.arange(pattern.block_rows)[:, None].expand(pattern.shape))[:, 0]
    fitted = torch.zeros_like(old)
    columns = keep.cpu().repeat_interleave(taps, 1)
    for row in range(pattern.block_rows):
        kept = columns[row].nonzero().flatten()
        channels = (row_of == row).nonzero().flatten()
        if len(kept):
            own = hessian[row // pattern.rows_per_group][kept][:, kept].to(dtype)
            solved = torch.cholesky_solve(wanted[channels][:, kept].T.to(dtype), torch.linalg.cholesky(own))
            fitted[channels[:, None], kept] = solved.T.double()
    fitted = fitted.reshape(weight.shape).to(weight)
    masked = (old * columns[row_of]).reshape(weight.shape).to(weight)
    better = squared_error(fitted, statistics) <= squared_error(masked, statistics)  # but for rounding it always is
    return torch.where(better.flatten().reshape(-1, *(1,) * (weight.dim() - 1)).to(weight.device), fitted, masked)


def squared_error(weight: Tensor, statistics: Statistics) -> Tensor:
    """Mean squared error of each output channel about its best offset, float64 [groups, out / groups]."""
    rows = weight.detach().double().cpu().flatten(1).unflatten(0, (len(statistics.inputs), -1))
    explained = 2 * (rows * statistics.cross).sum(2) - ((rows @ statistics.inputs) * rows).sum(2)
    return (statistics.target_variance - explained).clamp_min(0)


def offset(weight: Tensor, statistics: Statistics) -> Tensor:
    """What must be added to the outputs so that their means are the targets', float64 [out]."""
    rows = weight.detach().double().cpu().flatten(1).unflatten(0, (len(statistics.inputs), -1))
    return (statistics.target_mean - (rows @ statistics.mean[:, :, None])[:, :, 0]).flatten()
