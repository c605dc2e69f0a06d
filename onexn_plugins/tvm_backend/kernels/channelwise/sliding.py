"""Sums (or maxima) over the taps of a window, channel by channel: what depthwise convolutions and pooling share."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from tvm import tirx
from tvm.script.ir_builder import tirx as T

from onexn_plugins.tvm_backend.kernels.code.vector import Buffer, Expr, Register, each_strip, load
from onexn_plugins.tvm_backend.kernels.parts.window import Window
from onexn_plugins.tvm_backend.kernels.unit import VectorUnit

# How far behind an address 64-bit ARM's load of two vectors reaches, in values.
_PAIR_REACH = 252

# Called with (register, tap, value under the tap) for each tap of an output vector.
Accumulate = Callable[[Register, int, Expr], None]
# Called with (output row within the band, first column, sum, lanes).
Finish = Callable[[Expr, Expr, Expr, int], None]


def channel_budget(unit: VectorUnit) -> int:
    """Bytes that a first-level cache leaves for one channel's scratch."""
    return unit.first_cache // 2


def row_alignment(unit: VectorUnit) -> int:
    """Window rows begin at whole vectors where offsets inside an instruction count vectors (ARM)."""
    return unit.lanes if unit.isa.loads_pairs else 1


def rows_at_once(window: Window, unit: VectorUnit) -> int:
    """Output rows summed together, so that they share the loads of the input rows they have in common."""
    measured = unit.measured
    return window.rows if window.rows <= measured.whole_rows else min(window.rows, measured.rows_at_once)


def anchors(window: Window, unit: VectorUnit) -> dict[str, np.ndarray]:
    """A constant for kernels that slide on 64-bit ARM: offsets that LLVM does not know, from which it reads the rest.

    Loads take constant offsets of whole vectors, pair loads near ones alone; any other offset that LLVM knows it adds
    anew for each load. From an anchor every offset is a near one of whole vectors, and the anchor is added once.
    """
    if not unit.isa.near_pairs:
        return {}
    found: list[int] = []
    for offset in _users_by_offset(window, rows_at_once(window, unit)):
        if _anchor(found, offset, unit) is None:
            found.append(offset)
    return {"anchors": np.array(found, np.int32)}


def _anchor(found: Sequence[int], offset: int, unit: VectorUnit) -> int | None:
    """Which of the anchors an offset is read from."""
    near = (number for number, anchor in enumerate(found)
            if (offset - anchor) % unit.lanes == 0 and 0 <= offset - anchor <= _PAIR_REACH - unit.lanes)
    return next(near, None)


def slide(window: Window, scratch: Buffer, base: Expr, unit: VectorUnit, initial: Callable[[int], Expr],
          accumulate: Callable[[int], Accumulate], finish: Finish, known: dict[str, Buffer]) -> None:
    """Emit the window's sums over one packed channel.

    Args:
        window: layout of the scratch.
        scratch: holds the packed channel from `base` on.
        base: see scratch.
        unit: vector registers.
        initial: the first value of a sum, for a number of lanes.
        accumulate: called once per strip of columns with its lanes (to load weights); what it returns adds one value.
        finish: stores a vector of results.
        known: the kernel's constants, with `anchors` among them.
    """
    count, reader = rows_at_once(window, unit), _reader(window, unit, known)
    last = window.rows - count
    with T.serial(0, -(-window.rows // count)) as block:
        first = block * count if window.rows % count == 0 else tirx.min(block * count, last)

        def emit(column: Expr, lanes: int) -> None:
            add = accumulate(lanes)
            sums = [Register(initial(lanes), lanes) for _ in range(count)]
            position = reader(base + first * window.row_stride + column)
            for offset, users in _users_by_offset(window, count).items():
                value = Register(load(scratch, position(offset), lanes), lanes).value
                for row, tap in users:
                    add(sums[row], tap, value)
            for row in range(count):
                finish(first + row, column, sums[row].value, lanes)

        _each_strip(window.problem.out_width, unit, emit)


def _each_strip(width: int, unit: VectorUnit, emit: Callable[[Expr, int], None]) -> None:
    """As each_strip, but what is left over and fills at most half a strip gets one of half the width.

    ARM's pair loads read two vectors at once, so there strips are of two where they fit.
    """
    lanes = 2 * unit.lanes if unit.isa.loads_pairs and width >= 2 * unit.lanes else unit.lanes
    left, half = width % lanes, lanes // 2
    if width > lanes and 0 < left <= half:
        each_strip(width - left, lanes, emit)
        emit(width - half, half)
    else:
        each_strip(width, lanes, emit)


def _reader(window: Window, unit: VectorUnit, known: dict[str, Buffer]) -> Callable[[Expr], Callable[[int], Expr]]:
    """Gives, for where a strip starts, what gives the index of an offset from there."""
    buffer, found = known.get("anchors"), list(anchors(window, unit).get("anchors", ()))

    def reader(start: Expr) -> Callable[[int], Expr]:
        if buffer is None:
            return lambda offset: start + offset
        addresses = [start + buffer[number] for number in range(len(found))]

        def position(offset: int) -> Expr:
            number = _anchor(found, offset, unit)
            assert number is not None
            return addresses[number] + (offset - int(found[number]))

        return position

    return reader


def _users_by_offset(window: Window, rows: int) -> dict[int, list[tuple[int, int]]]:
    """For each scratch offset that `rows` output rows read, the (row, tap) pairs that read it."""
    users: dict[int, list[tuple[int, int]]] = {}
    for row in range(rows):
        for tap, offset in enumerate(window.taps):
            users.setdefault(offset + row * window.row_stride, []).append((row, tap))
    return dict(sorted(users.items()))
