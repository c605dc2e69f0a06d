"""What kernels know of a core: its vector instructions, its caches, and what was measured to pay on it.

All of it is data, and the rows are in cores.py. A kernel asks for what it is about to use ("does the multiply take a
lane?"), never for the name of a processor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Isa:
    """A set of vector instructions.

    Attributes:
        name: as people call it.
        bits: of a register.
        registers: how many there are.
        multiplies_by_lane: the multiply takes a lane of a register as its factor, so weights are loaded as vectors;
            elsewhere each is broadcast from memory.
        loads_pairs: one instruction loads two neighbouring vectors, and addresses take constant offsets of whole
            vectors, so rows should begin at whole ones.
        near_pairs: pair loads reach near offsets alone, so far ones need anchors.
        keeps_nan: the maximum that is NaN where either value is, is one instruction.
        shuffled_strides: strides under which every n-th value is loaded as whole vectors and shuffled.
        prefetches: weights are asked for ahead of their use; elsewhere that has not been measured.
    """

    name: str
    bits: int
    registers: int
    multiplies_by_lane: bool = False
    loads_pairs: bool = False
    near_pairs: bool = False
    keeps_nan: bool = False
    shuffled_strides: tuple[int, ...] = (2, 4, 8)
    prefetches: bool = True


@dataclass(frozen=True)
class WinogradCosts:
    """What Winograd's algorithm costs in multiply-adds, and shares of the multiply-adds' rate.

    Attributes:
        there: of transforming a point of a tile and input channel, packing included.
        back: of transforming one of a tile and output channel.
        weight: of fetching one.
        sums, phases: the rate that sums reach over one phase, and over several.
        direct: the rate that a direct kernel reaches.
    """

    there: float
    back: float
    weight: float
    sums: float
    phases: float
    direct: float


@dataclass(frozen=True)
class Packing:
    """Uses of an input channel's pixels from which on a 1×1 convolution copies them first.

    Attributes:
        few, many: where the first cache holds all channels of a tile, and where it does not.
        aligned_few, aligned_many: the same where channels begin at whole vectors, so that in place no vector crosses
            cache lines; infinity where copying never pays.
    """

    few: float
    many: float
    aligned_few: float
    aligned_many: float


@dataclass(frozen=True)
class Measured:
    """Tiles, thresholds, and which ways of computing pay: what a core was measured for.

    Attributes:
        sums: registers of sums beside what a few of them multiply.
        pointwise_sums: the same for 1×1 convolutions and linear layers.
        joined_sums: registers of sums up to which left-over pixels join the last tile.
        channels: output channels of a block summed together at most.
        fills_registers: a tile takes the sums, as many vectors of pixels and one weight that fill the registers.
        dense_block: block size of a convolution without blocks.
        rows_at_once: output rows of a depthwise layer or pool that share their loads.
        whole_rows: windows of up to so many rows are summed at once.
        conv_efficiency: multiply-adds per second with indices over those of a dense kernel, at block size 4 and more.
        linear_efficiency, linear_most: the same for a linear layer, per channel of a block, and at most.
        dense_rows: dense linear layers of many rows have their vectors over rows, too.
        least_uses: runs of output channels that read an input channel from which on its pixels should stay in the first
            cache.
        packing: when 1×1 convolutions copy their pixels; None for never.
        slices: strided and dilated k×k layers of many channels are summed in slices.
        reads_unpadded: small hidden images of a pair are read where they are.
        copies_unaligned: their inputs are copied where vectors would cross cache lines.
        pairs_far: a 1×1 layer whose input lies beyond the first cache is computed with the depthwise layer after it
            even where it would rather copy its pixels.
        lays_out: pixels of strided pairs are laid out as they are read.
        cached_bands: hidden rows come in bands that the first cache holds where few weights are kept.
        projects: the 1×1 convolution after a pair is computed with it.
        whole_strips: unpadded rows are summed in whole registers, elsewhere in halves of 256 bits.
        stems: strided 3×3 stems and the depthwise layer after them are one kernel by Winograd's algorithm.
        winograd: its costs.
        winograd_by_points: its costs where sums go point by point, where they differ.
        by_points: when they do; "many" is where a weight is shared by more than two vectors of tiles.
        winograd_kernels: which kernels it was measured for: any, or 3×3 of stride 1 with tiles of 2×2.
    """

    sums: int
    pointwise_sums: int
    joined_sums: int
    channels: int
    winograd: WinogradCosts
    fills_registers: bool = False
    dense_block: int = 4
    rows_at_once: int = 4
    whole_rows: int = 4
    conv_efficiency: float = 1.0
    linear_efficiency: float = 0.5
    linear_most: float = 1.0
    dense_rows: bool = False
    least_uses: int = 7
    packing: Packing | None = None
    slices: bool = False
    reads_unpadded: bool = False
    copies_unaligned: bool = False
    pairs_far: bool = True
    lays_out: bool = False
    cached_bands: bool = False
    projects: bool = False
    whole_strips: bool = False
    stems: bool = False
    winograd_by_points: WinogradCosts | None = None
    by_points: Literal["never", "many", "always"] = "never"
    winograd_kernels: Literal["any", "3×3"] = "any"


@dataclass(frozen=True)
class VectorUnit:
    """A core, or several that share every kernel large enough.

    Attributes:
        isa: its vector instructions.
        measured: what pays on it.
        first_cache, second_cache: bytes that kernels are cut for.
        unrolls: LLVM unrolls loops by itself for this core.
        threads: cores that share a kernel.
        strict: infinities and NaN have to go wherever ONNX's operators take them: no zero block is skipped, as zero
            times infinity is NaN, and nothing is computed by Winograd's algorithm, which takes differences of pixels.
    """

    isa: Isa
    measured: Measured
    first_cache: int = 32 * 1024
    second_cache: int = 1024 * 1024
    unrolls: bool = False
    threads: int = 1
    strict: bool = False

    @property
    def lanes(self) -> int:
        """float32 values in a register."""
        return self.isa.bits // 32

    @property
    def registers(self) -> int:
        """Vector registers."""
        return self.isa.registers
