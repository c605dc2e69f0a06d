"""Block compressed sparse rows (BSR) of a 1×N weight: kept blocks, their input channels, where each block row starts.

One index per block of N × taps weights instead of one per weight is what makes 1×N cheap to store and to read
(1×N Pattern for Pruning Convolutional Neural Networks, TPAMI 2022, section 3.4). Indices take the smallest type that
holds them: at N = 4, 1×1 and 50 % a block costs 16 bytes of weights and 1 or 2 of index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onexn_plugins.pattern import BlockPattern, nonzero_blocks


@dataclass(frozen=True)
class Blocks:
    """How a weight [out_channels, in_channels / groups, *kernel] is cut into blocks, and how many of them are kept.

    Attributes:
        pattern: how it is cut.
        kernel: its kernel shape; () for Linear.
        num_blocks: kept blocks.
    """

    pattern: BlockPattern
    kernel: tuple[int, ...]
    num_blocks: int

    @property
    def block_size(self) -> int:
        return self.pattern.block_size

    @property
    def taps(self) -> int:
        return int(np.prod(self.kernel, dtype=np.int64))

    @property
    def density(self) -> float:
        """Kept blocks over all blocks."""
        return self.num_blocks / self.pattern.num_blocks

    @property
    def is_dense(self) -> bool:
        return self.num_blocks == self.pattern.num_blocks


@dataclass(frozen=True)
class Encoded(Blocks):
    """A weight as BSR.

    Attributes:
        values: float32 [blocks × taps × N], kept blocks row by row; a tail block is filled up with zeros.
        indices: uint8, uint16 or int32 [blocks], the input channel (within its group) of each kept block.
        row_ptr: uint16 or int32 [block_rows + 1]; block row r owns blocks row_ptr[r] to row_ptr[r + 1].
        slices: runs of input channels that come one after the other, see in_slices.
    """

    values: np.ndarray
    indices: np.ndarray
    row_ptr: np.ndarray
    slices: int = 1

    @property
    def slice_channels(self) -> int:
        """Input channels of a slice; the last may have fewer."""
        return -(-self.pattern.in_channels // self.slices)

    @property
    def row_counts(self) -> np.ndarray:
        """Kept blocks in each block row, int64 [slices × block_rows]."""
        pointers = self.row_ptr.astype(np.int64)
        return pointers[1:] - pointers[:-1]

    @property
    def blocks_per_row(self) -> int | None:
        """Kept blocks of every block row where they are the same number, else None."""
        counts = self.row_counts
        return int(counts[0]) if (counts == counts[0]).all() else None

    @property
    def nbytes(self) -> int:
        """Bytes stored; a dense weight needs neither indices nor row pointers, an even one no row pointers."""
        indices = 0 if self.is_dense else self.indices.nbytes
        pointers = 0 if self.blocks_per_row is not None else self.row_ptr.nbytes
        return self.values.nbytes + indices + pointers


def encode(weight: np.ndarray | Tensor, block_size: int, groups: int = 1, *, keep_all: bool = False) -> Encoded:
    """Encode a weight [out, in / groups, *kernel]; blocks that are zero throughout are left out.

    Args:
        weight: float weight; stored as float32.
        block_size: N, cut to the output channels of a group.
        groups: conv groups.
        keep_all: store zero blocks too, which makes the weight dense.

    Raises:
        OneXNError: block_size is no integer in 1..32.
    """
    tensor = torch.as_tensor(weight).detach().to(torch.float32)
    block_size = min(block_size, int(tensor.shape[0]) // groups)
    pattern = BlockPattern.of(tensor, block_size, groups)
    keep = nonzero_blocks(tensor, pattern)
    if keep_all:
        keep = torch.ones_like(keep)
    kernel_taps = tensor.reshape(*tensor.shape[:2], -1).unbind(-1)
    blocks = torch.stack([pattern.split(tap) for tap in kernel_taps], dim=-1)  # [rows, N, in, taps]
    rows, columns = keep.nonzero(as_tuple=True)
    values = blocks.permute(0, 2, 3, 1)[rows, columns]  # [kept, taps, N]
    row_ptr = np.concatenate([[0], np.cumsum(keep.sum(1).numpy())])
    return Encoded(
        pattern=pattern,
        kernel=tuple(tensor.shape[2:]),
        num_blocks=int(columns.numel()),
        values=np.ascontiguousarray(values.numpy()).reshape(-1),
        indices=columns.numpy().astype(_index_type(pattern.in_channels - 1)),
        row_ptr=row_ptr.astype(_pointer_type(int(row_ptr[-1]))),
    )


def in_slices(encoded: Encoded, slices: int) -> Encoded:
    """The same blocks slice by slice: all block rows of the first input channels, then all of the next ones.

    Block row r of slice s becomes row s × block_rows + r, and indices count from the first channel of the slice.

    Args:
        encoded: the weight, in one slice.
        slices: how many, or as many less as leave none empty.
    """
    in_channels, block_rows = encoded.pattern.in_channels, encoded.pattern.block_rows
    slice_channels = -(-in_channels // slices)
    slices = -(-in_channels // slice_channels)
    slice_of, channels = np.divmod(encoded.indices.astype(np.int64), slice_channels)
    rows = slice_of * block_rows + np.repeat(np.arange(block_rows), encoded.row_counts)
    order = np.argsort(rows, kind="stable")
    counts = np.bincount(rows, minlength=slices * block_rows)
    return replace(
        encoded,
        slices=slices,
        values=encoded.values.reshape(-1, encoded.taps * encoded.block_size)[order].reshape(-1),
        indices=channels[order].astype(_index_type(slice_channels - 1)),
        row_ptr=np.concatenate([[0], np.cumsum(counts)]).astype(encoded.row_ptr.dtype),
    )


def decode(encoded: Encoded) -> np.ndarray:
    """The weight back, float32 [out, in / groups, *kernel]; exact."""
    pattern = encoded.pattern
    row_of = np.repeat(np.arange(encoded.slices * pattern.block_rows), encoded.row_counts)
    slices, rows = np.divmod(row_of, pattern.block_rows)
    columns = encoded.indices + slices * encoded.slice_channels
    blocks = np.zeros((pattern.block_rows, pattern.in_channels, encoded.taps, pattern.block_size), np.float32)
    blocks[rows, columns] = encoded.values.reshape(-1, encoded.taps, pattern.block_size)
    channels = blocks.transpose(0, 3, 1, 2).reshape(pattern.groups, -1, pattern.in_channels, encoded.taps)
    weight = channels[:, : pattern.group_channels]
    return weight.reshape(pattern.out_channels, pattern.in_channels, *encoded.kernel)


def _index_type(largest: int) -> type[np.generic]:
    if largest <= np.iinfo(np.uint8).max:
        return np.uint8
    return np.uint16 if largest <= np.iinfo(np.uint16).max else np.int32


def _pointer_type(largest: int) -> type[np.generic]:
    return np.uint16 if largest <= np.iinfo(np.uint16).max else np.int32
