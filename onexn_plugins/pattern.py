"""The 1×N pattern: how a weight is cut into blocks. The only file that reshapes weights.

A block is N consecutive output channels × one input channel × all kernel taps (1×N Pattern for Pruning
Convolutional Neural Networks, TPAMI 2022, section 3.2). Blocks never cross a conv group; where a group's
output channels are not a multiple of N its last block row is a *tail* of fewer channels; a layer that has fewer
than N is one tail.

Everything here works on three shapes:
    weight      [out_channels, in_channels / groups, *kernel]   convolutions; a Linear weight has no kernel
    per kernel  [out_channels, in_channels / groups]
    per block   [block_rows, in_channels / groups]
A transposed convolution stores [in_channels, out_channels / groups, *kernel]; `turned` brings it to the first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from onexn_plugins.errors import OneXNError

MAX_BLOCK_SIZE = 32
# Kept blocks may hold this share of stray zero kernels (dead filters) and the weight still counts as aligned.
STRAY_ZERO_KERNELS = 0.02


@dataclass(frozen=True)
class BlockPattern:
    """The blocks of one weight.

    Attributes:
        out_channels: rows of the weight, all groups together.
        in_channels: columns of the weight, that is input channels per group.
        block_size: N, output channels per block.
        groups: conv groups; 1 for Linear.
    """

    out_channels: int
    in_channels: int
    block_size: int
    groups: int = 1

    @classmethod
    def of(cls, weight: Tensor, block_size: int, groups: int = 1, layer: str = "weight") -> BlockPattern:
        """The pattern of `weight` ([out, in / groups, *kernel]).

        Raises:
            OneXNError: block_size is no integer in 1..32, or the weight has no input-channel dimension.
        """
        check_block_size(block_size, layer)
        if weight.dim() < 2:
            raise OneXNError(layer, f"weight of shape {tuple(weight.shape)} has no input channels",
                             "1×N applies to weights of convolutions and Linear layers; leave this layer out")
        return cls(int(weight.shape[0]), int(weight.shape[1]), block_size, groups)

    @property
    def group_channels(self) -> int:
        """Output channels per group."""
        return self.out_channels // self.groups

    @property
    def rows_per_group(self) -> int:
        return -(-self.group_channels // self.block_size)

    @property
    def block_rows(self) -> int:
        return self.groups * self.rows_per_group

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of a per-block tensor."""
        return self.block_rows, self.in_channels

    @property
    def num_blocks(self) -> int:
        return self.block_rows * self.in_channels

    def row_heights(self) -> Tensor:
        """Output channels in each block row, int64 [block_rows]: N, or fewer in a tail."""
        heights = torch.full((self.groups, self.rows_per_group), self.block_size, dtype=torch.int64)
        heights[:, -1] = self.group_channels - (self.rows_per_group - 1) * self.block_size
        return heights.flatten()

    @property
    def row_of(self) -> Tensor:
        """The block row that each output channel is in, int64 [out]."""
        return torch.arange(self.block_rows).repeat_interleave(self.row_heights())

    def split(self, per_kernel: Tensor) -> Tensor:
        """[out, in] -> [block_rows, N, in]; tails are filled up with zeros."""
        grouped = per_kernel.reshape(self.groups, self.group_channels, self.in_channels)
        missing = self.rows_per_group * self.block_size - self.group_channels
        padded = F.pad(grouped, (0, 0, 0, missing)) if missing else grouped
        return padded.reshape(self.block_rows, self.block_size, self.in_channels)

    def blocks(self, weight: Tensor) -> Tensor:
        """[out, in, *kernel] -> [block_rows, in, N × taps], one block a row; tails are filled up with zeros."""
        grouped = weight.reshape(self.groups, self.group_channels, self.in_channels, -1)
        missing = self.rows_per_group * self.block_size - self.group_channels
        padded = F.pad(grouped, (0, 0, 0, 0, 0, missing)) if missing else grouped
        rows = padded.reshape(self.block_rows, self.block_size, self.in_channels, -1)
        return rows.transpose(1, 2).reshape(self.block_rows, self.in_channels, -1)

    def expand(self, per_block: Tensor) -> Tensor:
        """[block_rows, in] -> [out, in]: every channel gets its block's value."""
        grouped = per_block.reshape(self.groups, self.rows_per_group, self.in_channels)
        rows = grouped.repeat_interleave(self.block_size, dim=1)[:, : self.group_channels]
        return rows.reshape(self.out_channels, self.in_channels)


def check_block_size(block_size: object, layer: str = "block_size") -> None:
    """Raise OneXNError unless block_size is an integer in 1..32."""
    if isinstance(block_size, bool) or not isinstance(block_size, int) or not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise OneXNError(layer, f"block_size must be an integer from 1 to {MAX_BLOCK_SIZE}, got {block_size!r}",
                         "The paper uses 2, 4, 8, 16 or 32")


def turned(weight: Tensor, groups: int = 1) -> Tensor:
    """[in, out / groups, *kernel], as transposed convolutions store it, to [out, in / groups, *kernel], and back."""
    return weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1)


def kernel_l1(weight: Tensor) -> Tensor:
    """L1 norm of every kernel, float64 [out, in / groups] (float64: the sum must not depend on the dtype)."""
    magnitudes = weight.detach().abs().reshape(*weight.shape[:2], -1)
    return magnitudes.sum(-1, dtype=torch.float64) if magnitudes.shape[2] > 1 else magnitudes[:, :, 0].double()


def nonzero_kernels(weight: Tensor) -> Tensor:
    """Which kernels hold any non-zero weight, bool [out, in / groups]."""
    nonzero = weight if weight.dtype == torch.bool else weight.detach() != 0  # booleans compare a hundred times slower
    return nonzero if weight.dim() == 2 else nonzero.reshape(*weight.shape[:2], -1).any(-1)


def nonzero_blocks(weight: Tensor, pattern: BlockPattern) -> Tensor:
    """Which blocks hold any non-zero weight, bool [block_rows, in / groups]."""
    return pattern.split(nonzero_kernels(weight).to(torch.uint8)).any(1).bool()  # bytes reduce faster than booleans


def weight_mask(keep: Tensor, pattern: BlockPattern, weight: Tensor, transposed: bool = False) -> Tensor:
    """Kept blocks as a mask that broadcasts over `weight`: bool [out, in / groups, 1, 1] for a Conv2d.

    transposed: the weight is [in, out / groups, *kernel], and so is the mask.
    """
    kernels = pattern.expand(keep)
    return (turned(kernels, pattern.groups) if transposed else kernels).reshape(
        *weight.shape[:2], *(1 for _ in weight.shape[2:]))


def is_block_sparse(weight: Tensor, pattern: BlockPattern) -> bool:
    """Does the weight have zero blocks, and are its zero kernels in them?

    A few zero kernels inside kept blocks are allowed (`STRAY_ZERO_KERNELS`): dead filters do not break the pattern.
    """
    blocks = nonzero_blocks(weight, pattern)
    kept_kernels = int((blocks.count_nonzero(1).cpu() * pattern.row_heights()).sum())
    stray = kept_kernels - int(nonzero_kernels(weight).count_nonzero())
    return not bool(blocks.all()) and stray <= STRAY_ZERO_KERNELS * kept_kernels


def detect_block_size(weight: Tensor, groups: int = 1) -> int | None:
    """The largest N in 32, 16, 8, 4, 2, 1 for which `weight` is block-sparse; None if no kernel is zero.

    Of the N beyond the output channels, for which all is one tail, only the next one counts: 32 for 24 channels.
    """
    for block_size in (32, 16, 8, 4, 2, 1):
        if block_size < 2 * weight.shape[0] and is_block_sparse(weight, BlockPattern.of(weight, block_size, groups)):
            return block_size
    return None
