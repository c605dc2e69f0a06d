"""Sums (or maxima) over the taps of a window, channel by channel: what depthwise convolutions and pooling share."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.problem import VectorUnit
from onexn_plugins.tvm_backend.kernels.vector import Buffer, Expr, Register, each_strip, load
from onexn_plugins.tvm_backend.kernels.window import Window

# What a first-level cache of 32 KiB leaves for one channel's scratch.
CHANNEL_BUDGET = 16 * 1024

# Called with (register, tap, value under the tap) for each tap of an output vector.
Accumulate = Callable[[Register, int, Expr], None]
# Called with (output row within the band, first column, sum, lanes).
Finish = Callable[[Expr, Expr, Expr, int], None]


def row_alignment(unit: VectorUnit) -> int:
    """Window rows begin at whole vectors where offsets inside an instruction count vectors (ARM)."""
    return unit.lanes if unit.fused_weights else 1


def rows_at_once(window: Window, unit: VectorUnit) -> int:
    """Output rows summed together, so that they share the loads of the input rows they have in common."""
    return min(window.rows, 7 if unit.registers >= 32 else 4)


def slide(window: Window, scratch: Buffer, base: Expr, unit: VectorUnit, initial: Callable[[int], Expr],
          accumulate: Callable[[int], Accumulate], finish: Finish) -> None:
    """Emit the window's sums over one packed channel.

    Args:
        window: layout of the scratch.
        scratch: holds the packed channel from `base` on.
        base: see scratch.
        unit: vector registers.
        initial: the first value of a sum, for a number of lanes.
        accumulate: called once per strip of columns with its lanes (to load weights); what it returns adds one value.
        finish: stores a vector of results.
    """
    count = rows_at_once(window, unit)
    last = window.rows - count
    with T.serial(0, -(-window.rows // count)) as block:
        first = block * count if window.rows % count == 0 else tirx.min(block * count, last)

        def emit(column: Expr, lanes: int) -> None:
            add = accumulate(lanes)
            sums = [Register(initial(lanes), lanes) for _ in range(count)]
            for offset, users in _users_by_offset(window, count):
                value = Register(load(scratch, base + first * window.row_stride + column + offset, lanes), lanes).value
                for row, tap in users:
                    add(sums[row], tap, value)
            for row in range(count):
                finish(first + row, column, sums[row].value, lanes)

        _each_strip(window.problem.out_width, unit, emit)


def _each_strip(width: int, unit: VectorUnit, emit: Callable[[Expr, int], None]) -> None:
    """As each_strip, but what is left over and fills at most half a strip gets one of half the width.

    ARM's pair loads read two vectors at once, so there strips are of two where they fit.
    """
    lanes = 2 * unit.lanes if unit.fused_weights and width >= 2 * unit.lanes else unit.lanes
    left, half = width % lanes, lanes // 2
    if width > lanes and 0 < left <= half:
        each_strip(width - left, lanes, emit)
        emit(width - half, half)
    else:
        each_strip(width, lanes, emit)


def _users_by_offset(window: Window, rows: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """For each scratch offset that `rows` output rows read, the (row, tap) pairs that read it."""
    users: dict[int, list[tuple[int, int]]] = {}
    for row in range(rows):
        for tap, offset in enumerate(window.taps):
            users.setdefault(offset + row * window.row_stride, []).append((row, tap))
    return sorted(users.items())
