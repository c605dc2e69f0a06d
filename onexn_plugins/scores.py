"""Block scores: how much each block matters. Pure functions of weights, float64 [block_rows, in / groups] out."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from onexn_plugins.errors import OneXNError
from onexn_plugins.pattern import BlockPattern, kernel_l1

SCORES = ("l1", "random")


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


def random(pattern: BlockPattern, *, seed: int = 0, layer: str = "", step: int = 0) -> Tensor:
    """Uniform scores, float64 [block_rows, in / groups]: pruning the lowest k draws k blocks without replacement.

    The stream depends on the seed, the layer's name and the step alone, so every toolkit draws the same
    blocks in whatever order it visits the layers.
    """
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{layer}/{step}".encode()))
    return torch.rand(pattern.shape, generator=generator, dtype=torch.float64)


def check_finite(weight: Tensor, layer: str) -> None:
    """Raise OneXNError where the weight holds NaN or infinity: such blocks cannot be ranked."""
    if not bool(torch.isfinite(weight.detach()).all()):
        raise OneXNError(layer, "its weight holds NaN or infinite values",
                         "Load a checkpoint that trained without diverging, or leave this layer out")
