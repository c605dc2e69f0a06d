"""Block rows of an encoded weight inside a kernel: loops over rows and over their kept blocks, and their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import (
    LINE,
    Buffer,
    Expr,
    Register,
    as_index,
    load,
    pieces,
    prefetch,
    splat,
    view,
)
from onexn_plugins.tvm_backend.kernels.encode import Encoded
from onexn_plugins.tvm_backend.kernels.parts.sharing import Run, turn
from onexn_plugins.tvm_backend.kernels.parts.tiling import channels_at_once
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# Gives one channel's weight in every lane of a vector of so many lanes.
Weight = Callable[[int], Expr]
WEIGHT_LANES = 4  # weights loaded at once where the unit multiplies by a lane: one 128-bit register
# Weights that are asked for ahead of their use: 4 KiB, about 300 cycles of multiply-adds, as long as memory takes.
_AHEAD = 1024
# Taps that code is written out for: 7×7. A loop over them costs two instructions beside a tile's 16 multiply-adds.
_WRITTEN_OUT = 49


def weight_constants(encoded: Encoded, bias: np.ndarray, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays an encoded weight needs at run time: dense ones no indices, even ones no row pointers."""
    constants = {"values": encoded.values}
    if not encoded.is_dense:
        constants["indices"] = encoded.indices
    if encoded.blocks_per_row is None:
        constants["row_ptr"] = encoded.row_ptr
    constants["bias"] = np.ascontiguousarray(bias, np.float32)
    return {prefix + name: array for name, array in constants.items()}


@dataclass(frozen=True)
class Channels:
    """A run of output channels inside one block row.

    Attributes:
        row: block row.
        start: first output channel of the run, over all groups.
        offset: channels of the block before the run.
        count: channels in the run.
    """

    row: Expr
    start: Expr
    offset: Expr
    count: int


@dataclass(frozen=True)
class Source:
    """Where a kernel reads: pixel p of channel c under tap t is buffer[base + c * channel_stride + taps[t] + p].

    Attributes:
        constant: the kernel does not write the buffer.
        listed: holds the taps at run time, too, so that a loop goes over them; None where code is written for each.
    """

    buffer: Buffer
    base: Expr
    channel_stride: int
    taps: tuple[int, ...] = (0,)
    constant: bool = False
    listed: Buffer | None = None

    def seen_from(self, pixel: Expr, unit: VectorUnit) -> tuple[Source, Expr]:
        """The source and the number that `pixel` has in it: on ARM, where it may, the first behind an address.

        There an instruction adds a small constant to an address, but LLVM adds it to an index that it cannot bound.
        """
        if not (self.constant and unit.isa.loads_pairs):
            return self, pixel
        return replace(self, buffer=view(self.buffer, self.base + pixel), base=0), 0


def listed_taps(taps: Sequence[int]) -> dict[str, np.ndarray]:
    """A constant for kernels of many taps, which are a loop: code of its own for each of 3×39 is twenty times as long
    and takes LLVM nine times as long (1.8 s). Empty where they are few."""
    return {"taps": np.array(taps, np.int32)} if len(taps) > _WRITTEN_OUT else {}


class BlockRows:
    """The encoded weight of a kernel under construction.

    Args:
        encoded: the weight.
        buffers: the arrays of weight_constants.
        unit: vector registers.
        sums: registers that the kernel takes for an output channel at least.
        at_once: most channels of a run; None for as many as registers hold the sums of.
    """

    def __init__(self, encoded: Encoded, buffers: dict[str, Buffer], unit: VectorUnit, sums: int = 1,
                 at_once: int | None = None) -> None:
        self._at_once = at_once or channels_at_once(encoded.pattern.block_size, unit, sums)
        self.encoded, self.unit, self.pattern = encoded, unit, encoded.pattern
        self.values, self.bias = buffers["values"], buffers["bias"]
        self._indices, self._row_ptr = buffers.get("indices"), buffers.get("row_ptr")

    def behind(self, before: Expr, taps: int) -> BlockRows:
        """The same blocks with the values of so many taps, those that are stored behind all values of `before` taps."""
        other = copy(self)
        other.encoded = replace(self.encoded, kernel=(taps,))
        other.values = view(self.values, before * (self.encoded.num_blocks * self.encoded.block_size))
        return other

    def each_row(self, group: Expr, emit: Callable[[Channels], None], run: Run = None) -> None:
        """Emit code for the block rows of a conv group: a loop over the full ones, then the tail.

        A run is of rows within the group.
        """
        pattern = self.pattern
        full_rows, tail = divmod(pattern.group_channels, pattern.block_size)
        first_row, first_channel = group * pattern.rows_per_group, group * pattern.group_channels
        first, last = (0, full_rows) if run is None else run
        with T.serial(first, tirx.min(last, full_rows) if tail and run else last) as row:
            self._each_run(first_row + row, first_channel + row * pattern.block_size, pattern.block_size, emit)
        if tail:
            start = first_channel + full_rows * pattern.block_size
            with turn(full_rows, run):
                self._each_run(first_row + full_rows, start, tail, emit)

    def each_few_rows(self, count: int, emit: Callable[[tuple[Expr, Expr]], None], run: Run = None) -> None:
        """Emit a loop over runs, for each_row, of up to `count` block rows of a conv group."""
        first, last = (0, self.pattern.rows_per_group) if run is None else run
        with T.serial(0, tirx.truncdiv(last - first + (count - 1), count)) as index:
            start = first + index * count
            emit((start, tirx.min(start + count, last)))

    def _each_run(self, row: Expr, start: Expr, count: int, emit: Callable[[Channels], None]) -> None:
        """Runs of equal length are a loop: code of their own for each takes long to compile."""
        loops = count // self._at_once if count % self._at_once == 0 else 1
        if loops > 1:
            with T.serial(0, loops) as index:
                offset = index * self._at_once
                emit(Channels(row, start + offset, offset, self._at_once))
            return
        for run in self._runs(row, start, count):
            emit(run)

    def _runs(self, row: Expr, start: Expr, count: int) -> list[Channels]:
        """Cut a block with more channels than registers can sum into runs that fit; a tail's are no longer."""
        return [Channels(row, start + offset, offset, min(self._at_once, count - offset))
                for offset in range(0, count, self._at_once)]

    def each_row_group(self, size: int, emit: Callable[[list[Channels]], None], run: Run = None) -> None:
        """As each_row of the only conv group, but up to `size` neighbouring full rows at once: emit(a run of each)."""
        block_size = self.pattern.block_size
        full_rows, tail = divmod(self.pattern.group_channels, block_size)
        first, last = (0, full_rows) if run is None else (run[0], tirx.min(run[1], full_rows))

        def emit_rows(row: Expr, count: int) -> None:
            rows = [self._runs(row + other, (row + other) * block_size, block_size) for other in range(count)]
            for runs in zip(*rows, strict=True):
                emit(list(runs))

        groups = tirx.truncdiv(last - first, size)
        with T.serial(0, groups) as index:
            emit_rows(first + index * size, size)
        if size > 1:
            with T.serial(first + groups * size, last) as row:
                emit_rows(row, 1)
        if tail:
            with turn(full_rows, run):
                for channels in self._runs(full_rows, full_rows * block_size, tail):
                    emit([channels])

    def each_block(self, row: Expr, emit: Callable[[Expr, Expr, int], None], ways: int = 1) -> None:
        """Emit a loop over the kept blocks of a row: emit(block, input channel within the group, way).

        With several ways the loop is unrolled so often; `way` numbers the copies, so that each may have its own sum.
        """
        per_row = self.encoded.blocks_per_row
        first: Expr
        count: Expr
        if per_row is None:
            assert self._row_ptr is not None
            first = as_index(self._row_ptr[row])
            count = as_index(self._row_ptr[row + 1]) - first
        else:
            first, count = row * per_row, per_row

        def emit_block(position: Expr, way: int) -> None:
            channel = position if self._indices is None else as_index(self._indices[first + position])
            emit(first + position, channel, way)

        unrolled = tirx.truncdiv(count, ways)
        with T.serial(0, unrolled) as index:
            for way in range(ways):
                emit_block(index * ways + way, way)
        if ways > 1:
            with T.serial(0, count - unrolled * ways) as index:
                emit_block(unrolled * ways + index, 0)

    def weights(self, block: Expr, tap: Expr, run: Channels) -> list[Weight]:
        """The weight of each channel of the run."""
        return self.weights_at(block * self.encoded.taps + tap, run)

    def weights_at(self, place: Expr, run: Channels) -> list[Weight]:
        """As weights, of the N values stored after `place` times N others."""
        first = place * self.encoded.block_size + run.offset
        if not self.unit.isa.multiplies_by_lane:
            return [_from_memory(self.values[first + channel]) for channel in range(run.count)]
        return lane_weights(self.values, first, run.count)

    def prefetch(self, place: Expr, count: int, run: Channels) -> None:
        """Ask for the run's weights that follow some way behind `count` places from `place` on.

        Weights that are read once come from memory, and the processor's own prefetching stops at every page. On ARM
        nothing is asked for: that has not been measured.
        """
        if self.unit.isa.prefetches:
            first = place * self.encoded.block_size + run.offset + _AHEAD
            for line in range(0, count * self.encoded.block_size, LINE):
                prefetch(self.values, first + line)

    def weight_vectors(self, block: Expr, tap: Expr, run: Channels) -> list[Register]:
        """The run's weights as vectors over its channels."""
        first = (block * self.encoded.taps + tap) * self.encoded.block_size + run.offset
        return _vectors(self.values, first, run.count, self.unit.lanes)

    def bias_vectors(self, run: Channels) -> list[Register]:
        return _vectors(self.bias, run.start, run.count, self.unit.lanes)


def _vectors(buffer: Buffer, first: Expr, count: int, lanes: int) -> list[Register]:
    """`count` consecutive values in as few vectors as cover them exactly."""
    vectors, position = [], 0
    for width in pieces(count, lanes):
        vectors.append(Register(load(buffer, first + position, width), width))
        position += width
    return vectors


def lane_weights(buffer: Buffer, first: Expr, count: int) -> list[Weight]:
    """`count` consecutive weights, loaded as vectors, each multiplied by from its lane."""
    registers = _vectors(buffer, first, count, WEIGHT_LANES)
    return [_from_register(register, index) for register in registers for index in range(register.lanes)]


def _from_memory(weight: Expr) -> Weight:
    return lambda lanes: splat(weight, lanes)


def _from_register(register: Register, index: int) -> Weight:
    return lambda lanes: splat(register.lane(index), lanes)
