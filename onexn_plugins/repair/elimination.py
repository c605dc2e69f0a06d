"""Which 1×N blocks a layer misses least, found by removing them one after another and correcting what stays.

Optimal brain compression (Frantar, Singh and Alistarh, NeurIPS 2022) with blocks for weights. The N rows of a block row
read the same inputs and lose the same ones, so one inverse Hessian serves them all, and those of different block rows
differ by what each lost. Instead of a matrix for every block row the layer's is kept once, with factors V of what the
row removed: H⁻¹ of the row = H⁻¹ − V Vᵀ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onexn_plugins.pattern import BlockPattern
from onexn_plugins.scores import fill_tails

DAMPING = 0.01  # of the mean diagonal of the Hessian
MAX_RATIO = 0.95  # of a block row's blocks; what is left then is ranked by what it would cost next
STEPS = 128  # a step removes inputs / STEPS blocks of a row at once: the error is that of single ones within 1 %
MEMORY = 2**28  # bytes of factors held at a time
TIE = 1e-9


@dataclass(frozen=True)
class Elimination:
    """The order in which a layer loses its blocks, and what each costs.

    Attributes:
        scores: float64 [block_rows, in / groups]; the lowest goes first. `selection.keep_highest` takes them. Losses
            that never fall along a row, with those of tails scaled up to N kernels: blocks compete per kernel.
        losses: float64 [block_rows, in / groups]: rise of the layer's squared error (per sample, summed over its
            output channels) when the block goes, everything before it gone and what stays corrected.
    """

    scores: Tensor
    losses: Tensor

    def curve(self) -> Tensor:
        """Squared error without k blocks, float64 [blocks + 1]."""
        losses = self.losses.flatten()[self.scores.flatten().argsort(stable=True)]
        return torch.cat([losses.new_zeros(1), losses.cumsum(0)])

    def ratio(self, share: float) -> float:
        """The ratio without this share of those blocks that cost anything.

        A layer may hold blocks of zeros already; half of all its blocks might cost nothing.
        """
        curve = self.curve()
        free, blocks = int((curve <= TIE * curve[-1]).sum()) - 1, len(curve) - 1
        return (free + share * (blocks - free)) / blocks if free < blocks else share

    def error(self, ratios: np.ndarray | float) -> np.ndarray:
        """Squared error without these shares of the blocks, float64."""
        curve = self.curve().numpy()
        return np.interp(ratios, np.linspace(0, 1, len(curve)), curve)


def damped(inputs: Tensor, damping: float = DAMPING) -> Tensor:
    """Covariances [..., d, d] with a share of their mean diagonal added to it; an input that is always 0 counts too."""
    mean = inputs.diagonal(dim1=-2, dim2=-1).mean(-1)
    added = torch.where(mean > 0, damping * mean, torch.ones_like(mean))
    return inputs + added[..., None, None] * torch.eye(inputs.shape[-1], dtype=inputs.dtype)


def eliminate(weight: Tensor, pattern: BlockPattern, inputs: Tensor, *, importance: Tensor | None = None,
              damping: float = DAMPING, max_ratio: float = MAX_RATIO, at_once: int | None = None) -> Elimination:
    """Remove blocks row by row until `max_ratio` of each row is gone.

    Args:
        weight: [out, in / groups, *kernel].
        pattern: its blocks.
        inputs: covariance of what the layer reads, float64 [groups, d, d], d = in / groups × taps.
        importance: weights of the output channels' squared errors, [out]; all alike without.
        damping: added to the diagonal, in its mean.
        max_ratio: of the blocks of every row.
        at_once: blocks of a row that go in one step.
    """
    rows = block_rows(weighted(weight, importance), pattern)
    dtype = weight.dtype if weight.dtype == torch.float64 else torch.float32
    at_once = at_once or max(1, pattern.in_channels // STEPS)
    parts = []
    for group, own in enumerate(rows.to(dtype).split(pattern.rows_per_group)):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(inputs[group], damping))).to(dtype)
        steps = int(pattern.in_channels * max_ratio) // at_once
        row_bytes = own.element_size() * inverse.shape[0] * max(1, steps * at_once * own.shape[3])
        for chunk in own.split(max(1, MEMORY // row_bytes)):
            parts.append(_eliminate_rows(chunk, inverse, steps, at_once))
    scores, losses = (torch.cat(each).double() for each in zip(*parts, strict=True))
    return Elimination(fill_tails(scores, pattern), losses)


def weighted(weight: Tensor, importance: Tensor | None) -> Tensor:
    """The weight whose plain squared error is the weighted one of `weight`."""
    if importance is None:
        return weight
    return weight * importance.sqrt().to(weight).reshape(-1, *(1,) * (weight.dim() - 1))


def block_rows(weight: Tensor, pattern: BlockPattern) -> Tensor:
    """[out, in / groups, *kernel] -> [block_rows, N, in / groups, taps]; tails are filled up with zeros."""
    blocks = pattern.blocks(weight.detach().cpu())
    return blocks.unflatten(2, (pattern.block_size, -1)).transpose(1, 2)


def kernel_saliency(weight: Tensor, inputs: Tensor, groups: int = 1, damping: float = DAMPING) -> Tensor:
    """What the removal of each kernel alone would cost, as a root: float64 [out, in / groups].

    The root makes it a magnitude, |w| / √(H⁻¹ diagonal) for a 1×1 kernel, so that it can stand for an L1 norm.
    """
    taps = weight[0, 0].numel()
    kernels = weight.detach().double().cpu().reshape(groups, -1, weight.shape[1], taps)
    parts = []
    for group, own in enumerate(kernels):
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(inputs[group], damping)))
        factor = torch.linalg.cholesky(_diagonal_blocks(inverse, taps))
        solved = torch.linalg.solve_triangular(factor, own.permute(1, 2, 0), upper=False)  # [in, taps, out]
        parts.append(solved.square().sum(1).sqrt().T)
    return torch.cat(parts)


def _eliminate_rows(weight: Tensor, inverse: Tensor, steps: int, at_once: int) -> tuple[Tensor, Tensor]:
    """(scores, losses) [rows, in] of block rows [rows, N, in, taps] whose inverse Hessian is [in × taps, in × taps]."""
    rows, height, blocks, taps = weight.shape
    weight = weight.flatten(2).clone()
    own = _diagonal_blocks(inverse, taps).repeat(rows, 1, 1, 1)
    removed = weight.new_zeros(rows, steps * at_once * taps, blocks * taps)
    gone = torch.zeros(rows, blocks, dtype=torch.bool)
    scores, losses, highest = (torch.zeros(rows, size, dtype=torch.float64) for size in (blocks, blocks, 1))
    tap = torch.arange(taps)
    for step in range(steps):
        cost = _costs(weight, own).masked_fill(gone, float("inf"))
        picked = cost.topk(at_once, largest=False).indices  # [rows, at_once], ascending by cost
        index = (picked[:, :, None] * taps + tap).flatten(1)
        columns = inverse[index]  # [rows, g, d]
        done = step * at_once * taps
        if done:
            past = removed[:, :done]
            columns = torch.baddbmm(columns, _columns(past, index).mT, past, alpha=-1)
        factor = _cholesky(_columns(columns, index))
        change = torch.linalg.solve_triangular(factor, columns, upper=False)  # [rows, g, d]
        share = torch.linalg.solve_triangular(factor, _columns(weight, index).mT, upper=False)  # [rows, g, N]
        weight = torch.baddbmm(weight, share.mT, change, alpha=-1)
        removed[:, done : done + len(index[0])] = change
        own -= _outer(change, taps)
        gone.scatter_(1, picked, True)
        weight.view(rows, height, blocks, taps).masked_fill_(gone[:, None, :, None], 0)
        loss = share.square().sum(2).unflatten(1, (at_once, taps)).sum(2).double()
        losses.scatter_(1, picked, loss)
        rising = torch.cat([highest, loss], 1).cummax(1).values  # a row keeps its own order among the others ...
        # ... also where a block is cheaper than one before
        later = 1 + TIE * (step * at_once + torch.arange(at_once, dtype=torch.float64))
        scores.scatter_(1, picked, rising[:, 1:] * later)
        highest = rising[:, -1:]
    left = _costs(weight, own).double()
    last = torch.maximum(left, highest) * (1 + TIE * blocks)
    return torch.where(gone, scores, last), torch.where(gone, losses, left)


def _costs(weight: Tensor, own: Tensor) -> Tensor:
    """Loss of each block alone, [rows, in]: Σ over the N rows of wᵀ (H⁻¹ of the block)⁻¹ w."""
    taps = own.shape[-1]
    if taps == 1:
        return weight.square().sum(1) / own[:, :, 0, 0].clamp_min(torch.finfo(own.dtype).tiny)
    kernels = weight.unflatten(2, (-1, taps)).permute(0, 2, 3, 1)  # [rows, in, taps, N]
    return torch.linalg.solve_triangular(_cholesky(own), kernels, upper=False).square().sum((2, 3))


def _cholesky(matrices: Tensor) -> Tensor:
    """Factors of matrices that rounding may have left barely positive."""
    scale = matrices.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(torch.finfo(matrices.dtype).tiny)
    eye = torch.eye(matrices.shape[-1], dtype=matrices.dtype)
    nudge = 100 * torch.finfo(matrices.dtype).eps
    factor, failed = torch.linalg.cholesky_ex(matrices + (nudge * scale)[..., None, None] * eye)
    if bool(failed.any()):  # a block that is gone, or one that the others determine: nothing is lost by it
        diagonal = matrices.diagonal(dim1=-2, dim2=-1).clamp_min(0) + scale[..., None]
        factor = torch.where((failed > 0)[..., None, None], torch.diag_embed(diagonal.sqrt()), factor)
    return factor


def _diagonal_blocks(inverse: Tensor, taps: int) -> Tensor:
    """[in × taps, in × taps] -> [in, taps, taps]"""
    return inverse.unflatten(0, (-1, taps)).unflatten(2, (-1, taps)).diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def _outer(change: Tensor, taps: int) -> Tensor:
    """What changes [rows, g, d] take from the diagonal blocks, [rows, in, taps, taps]."""
    if taps == 1:
        return change.square().sum(1)[:, :, None, None]
    parts = change.unflatten(2, (-1, taps)).permute(0, 2, 3, 1)  # [rows, in, taps, g]
    return parts @ parts.mT


def _columns(values: Tensor, index: Tensor) -> Tensor:
    """values [rows, k, d] at index [rows, g]: [rows, k, g]"""
    return values.gather(2, index[:, None].expand(-1, values.shape[1], -1))
