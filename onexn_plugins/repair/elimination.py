"""Which 1×N blocks a layer misses least, found by removing them one after another and correcting what stays.

Optimal brain compression (Frantar, Singh and Alistarh, NeurIPS 2022) with blocks for weights. The N rows of a block row
read the same inputs and lose the same ones, so one inverse Hessian serves them all, and those of different block rows
differ by what each lost. Instead of a matrix for every block row the layer's is kept once, with factors V of what the
row removed: H⁻¹ of the row = H⁻¹ − V Vᵀ. Once much is gone, that becomes the row's own matrix, without the places of
what is gone, and V begins anew.
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
SHRINK = 3  # when one in so many places is empty, a row's matrices are made smaller
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
    rows, _, blocks, taps = weight.shape
    left = _Left(weight.flatten(2).clone(), inverse, taps)
    scores, losses, highest = (torch.zeros(rows, size, dtype=torch.float64) for size in (blocks, blocks, 1))
    gone = torch.zeros(rows, blocks, dtype=torch.bool)
    for step in range(steps):
        if SHRINK * left.count * at_once >= left.blocks.shape[1]:
            left = left.smaller()
        picked, loss = left.remove(at_once, steps - step)
        gone.scatter_(1, picked, True)
        losses.scatter_(1, picked, loss)
        rising = torch.cat([highest, loss], 1).cummax(1).values  # a row keeps its own order among the others ...
        # ... also where a block is cheaper than one before
        later = 1 + TIE * (step * at_once + torch.arange(at_once, dtype=torch.float64))
        scores.scatter_(1, picked, rising[:, 1:] * later)
        highest = rising[:, -1:]
    rest = torch.zeros(rows, blocks, dtype=torch.float64).scatter_(1, left.blocks, left.costs().double())
    last = torch.maximum(rest, highest) * (1 + TIE * blocks)
    return torch.where(gone, scores, last), torch.where(gone, losses, rest)


class _Left:
    """Block rows on their way: what is left of each.

    Attributes:
        blocks: int64 [rows, places], the block at every place.
        count: steps that were taken.
    """

    def __init__(self, weight: Tensor, inverse: Tensor, taps: int, blocks: Tensor | None = None) -> None:
        """
        Args:
            weight: [rows, N, places × taps], overwritten.
            inverse: Hessian's, [places × taps, places × taps] for all rows, or one for each row in front.
            taps: of a kernel.
            blocks: as the attribute; all of them in their order by default.
        """
        rows, places = len(weight), weight.shape[2] // taps
        self.blocks = torch.arange(places).expand(rows, places) if blocks is None else blocks
        self.count = 0
        self._weight, self._inverse, self._taps = weight, inverse, taps
        self._own = _diagonal_blocks(inverse, taps).expand(rows, -1, -1, -1).clone()
        self._gone = torch.zeros(rows, places, dtype=torch.bool)
        self._removed = weight.new_zeros(rows, 0, places * taps)

    def costs(self) -> Tensor:
        """Loss of each block alone, [rows, places]."""
        return _costs(self._weight, self._own)

    def remove(self, at_once: int, steps: int) -> tuple[Tensor, Tensor]:
        """(blocks, their losses float64), [rows, at_once]: those that cost least go; `steps` of this kind are to come.

        The rest is corrected.
        """
        if not self.count:  # so many go before `smaller`
            most = min(steps, -(-self.blocks.shape[1] // (SHRINK * at_once)))
            self._removed = self._weight.new_zeros(len(self.blocks), most * at_once * self._taps, self._weight.shape[2])
        picked = self.costs().masked_fill(self._gone, float("inf")).topk(at_once, largest=False).indices  # ascending
        index = self._columns_of(picked)
        columns = self._inverse[index] if self._inverse.dim() == 2 else self._inverse.gather(
            1, index[:, :, None].expand(-1, -1, self._inverse.shape[2]))  # [rows, g, d]
        done = self.count * index.shape[1]
        if done:
            past = self._removed[:, :done]
            columns = torch.baddbmm(columns, _columns(past, index).mT, past, alpha=-1)
        factor = _cholesky(_columns(columns, index))
        change = torch.linalg.solve_triangular(factor, columns, upper=False)  # [rows, g, d]
        share = torch.linalg.solve_triangular(factor, _columns(self._weight, index).mT, upper=False)  # [rows, g, N]
        self._weight.baddbmm_(share.mT, change, alpha=-1)
        self._removed[:, done : done + index.shape[1]] = change
        self._own -= _outer(change, self._taps)
        self._gone.scatter_(1, picked, True)
        self._weight.unflatten(2, (-1, self._taps)).masked_fill_(self._gone[:, None, :, None], 0)
        self.count += 1
        return self.blocks.gather(1, picked), share.square().sum(2).unflatten(1, (at_once, self._taps)).sum(2).double()

    def smaller(self) -> _Left:
        """The same without the places of what is gone, and with an inverse Hessian for every row."""
        stays = (~self._gone).nonzero()[:, 1].view(len(self._gone), -1)
        index = self._columns_of(stays)
        square = index[:, :, None], index[:, None]
        each = torch.arange(len(index))[:, None, None]
        inverse = self._inverse[square] if self._inverse.dim() == 2 else self._inverse[(each, *square)]
        past = _columns(self._removed, index)  # as yet unused rows of it are zero
        return _Left(_columns(self._weight, index), inverse.baddbmm_(past.mT, past, alpha=-1), self._taps,
                     self.blocks.gather(1, stays))

    def _columns_of(self, places: Tensor) -> Tensor:
        """Places [rows, k] as columns of the weight, [rows, k × taps]."""
        return (places[:, :, None] * self._taps + torch.arange(self._taps)).flatten(1)


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
    """[..., in × taps, in × taps] -> [..., in, taps, taps]"""
    return inverse.unflatten(-2, (-1, taps)).unflatten(-1, (-1, taps)).diagonal(dim1=-4, dim2=-2).movedim(-1, -3)


def _outer(change: Tensor, taps: int) -> Tensor:
    """What changes [rows, g, d] take from the diagonal blocks, [rows, in, taps, taps]."""
    if taps == 1:
        return change.square().sum(1)[:, :, None, None]
    parts = change.unflatten(2, (-1, taps)).permute(0, 2, 3, 1)  # [rows, in, taps, g]
    return parts @ parts.mT


def _columns(values: Tensor, index: Tensor) -> Tensor:
    """values [rows, k, d] at index [rows, g]: [rows, k, g]"""
    return values.gather(2, index[:, None].expand(-1, values.shape[1], -1))
